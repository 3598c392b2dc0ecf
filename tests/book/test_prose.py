"""Prose about results carries no hand-typed numerals: cells, figures and the published results print them.

What counts as a numeral here is what a result would look like: a decimal, a percentage, a power of ten, ``3 of 4``,
``3 times``. Numbers in math and code are constants and settings; quotations, references and versions are theirs who
made them.
"""

import re

import pytest
from conftest import ROOT

from rlvr_lib.reproduction.notebooks import notebook_names, read_source

OPEN = {"in_your_own_run"}  # types two settings as prose, a size and a rate, which are to be written as math
PAGES = sorted({path.stem for path in (ROOT / "book").glob("*.md")} - OPEN)

NOT_PROSE = (
    r"^(?P<fence>`{3,}|:{3,})\{(?:math|bibliography|figure|image|code-cell|code-block|code)\}.*?^(?P=fence)",
    r"^(?:`{3,}|:{3,}).*?$|^:[a-z-]+:.*?$|^---\n.*?\n---$",
    r"\{[a-z:]+\}`[^`]*`",
    r"`[^`]*`",
    r"\$\$.*?\$\$|\$[^$]*\$",
    r"\\begin\{.*?\\end\{[a-z*]+\}",
    r"\]\([^)]*\)|<[^>]*>|https?://\S+",
    r'"[^"\n]*"|“[^”]*”',
    r"^#+ \d+(?:\.\d+)*",
    r"(?i:arxiv)[: ]*\d{4}\.\d{4,5}",
    r"\b(?:[Ss]ections?|[Cc]hapters?|[Tt]heorems?|[Ll]emmas?|[Ff]igures?|[Tt]ables?|Python|[Vv]ersion|v)\s?"
    r"\d+(?:\.\d+)*(?:(?:, | and | to )\d+(?:\.\d+)+)*",
)

NUMERAL = re.compile(
    r"""(?<![\w.])(?:
    \d[\d,]*\.\d+                                          # a decimal
    | \d[\d,.]*\s?(?:%|per\scent\b|percent\b)              # a percentage
    | \d[\d.]*e[-+]?\d+                                    # a power of ten
    | \d[\d,.]*\s(?:out\s)?of\s(?:the\s)?\d[\d,.]*         # 3 of 4
    | \d[\d,.]*(?:\s(?:times|fold)\b|-fold\b|x\b)           # 3 times
    )""",
    re.X,
)


def without_code(text):
    """The text with its code blocks left empty; what a directive holds is prose, so its closing fence opens no code."""
    lines, open_fences = [], []
    for line in text.splitlines():
        fence = re.match(r"(`{3,}|:{3,})(.*)", line)
        in_code = bool(open_fences) and open_fences[-1][1]
        if fence and open_fences and not fence[2].strip() and len(fence[1]) >= len(open_fences[-1][0]):
            open_fences.pop()
        elif fence and not in_code:
            open_fences.append((fence[1], not fence[2].startswith("{")))
        elif in_code:
            line = ""
        lines.append(line)
    return "\n".join(lines)


def blanked(text):
    """The text with everything that is not prose replaced by blanks, line by line."""
    text = without_code(text)
    for pattern in NOT_PROSE:
        text = re.sub(pattern, lambda match: re.sub(r"[^\n]", " ", match[0]), text, flags=re.M | re.S)
    return text


def numerals(text):
    return [
        f"{match[0].strip()!r} in: {text.splitlines()[number].strip()}"
        for number, line in enumerate(blanked(text).splitlines())
        for match in NUMERAL.finditer(line)
    ]


REMEDY = "let a cell print a result; write a setting or a constant as math or code"


@pytest.mark.parametrize("name", notebook_names(ROOT / "notebooks"))
def test_notebooks_type_no_results(name):
    cells = read_source(ROOT / "notebooks" / f"{name}.py").cells
    found = [
        f"cell {number}: {numeral}"
        for number, cell in enumerate(cells)
        if cell.cell_type == "markdown"
        for numeral in numerals(cell.source)
    ]
    assert not found, "\n".join([f"{name}: {REMEDY}", *found])


@pytest.mark.parametrize("page", PAGES)
def test_pages_type_no_results(page):
    found = numerals((ROOT / "book" / f"{page}.md").read_text())
    assert not found, "\n".join([f"book/{page}.md: {REMEDY}", *found])


@pytest.mark.parametrize(
    "text",
    [
        "Success reached 0.93.",
        "It holds in 93% of runs.",
        "It holds in 93 percent of runs.",
        "It held in 59 of 60 runs.",
        "It held in 59 out of 60.",
        "The step is 3.5 times longer.",
        "The step is 20 times longer.",
        "A 20-fold step.",
        "The error was 1e-12.",
        "| a table | 12.5 |",
        "```{admonition} Found\nIt rose by 12.5.\n```",
        "```{admonition} One\nTwo.\n```\nIt rose by 12.5.\n```{admonition} Three\nFour.\n```",
    ],
)
def test_results_are_recognised(text):
    assert numerals(text)


@pytest.mark.parametrize(
    "text",
    [
        "The constant is $4$, then $0.93$ and `lr=0.1`.",
        "# 1. Title\n## 1.2 Heading\nSee section 3.4, chapter 2 and {prf:ref}`thm-1.2`.",
        "```{math}\n:label: eq\n0.5 x\n```\n$$\n0.5\n$$",
        '```{prf:theorem} One\n:label: thm-1.5\nTwo of three, 60 seeds.\n```\nP1 printed "about 20%".',
        "P1 (arXiv 2510.08539), v1, Python 3.11, [link](https://x.org/1.5).",
        "```bash\nrlvr --lr 0.1\n```",
        "```{code-block} bash\n:caption: A run\nrlvr --model Qwen2.5-1.5B\n```",
    ],
)
def test_mathematics_settings_and_references_are_not_results(text):
    assert not numerals(text)
