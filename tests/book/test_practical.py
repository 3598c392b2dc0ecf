"""The practical pages: every answer has its claim, worked arithmetic is right, code runs, words fit the pictures."""

import re
import sys
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO

import numpy as np
import pytest
from conftest import ROOT

from rlvr_lib.theory.advantages import estimator_gain, power_gain
from rlvr_lib.theory.baseline import critical_energy_ratio
from rlvr_lib.theory.levels import next_level

sys.path[:0] = [str(ROOT / "book"), str(ROOT / "tests" / "book")]
numerals = import_module("test_prose").numerals
claim, pictures = import_module("claim"), import_module("practical_figures")  # book/_ext by conftest, and book/

PAGES = (
    "choosing_a_learning_rate",
    "which_baseline",
    "standard_deviation",
    "choosing_the_next_level",
    "real_conditions",
    "cheat_sheet",
)
NO_RESULTS = (
    "What was never run",
    "What is not covered",
    "From pass rates to a level and a mixture",
    "Two reports that no constant fits",
    "Symbols",
)
"""Sections that tell what was not done, how a function works, what others report, and what letters mean."""

LONGEST = {"choosing_a_learning_rate": 1300}  # words, roles and tables included; it has two decision tables
TEXT = {page: (ROOT / "book" / f"{page}.md").read_text() for page in PAGES}
ROLE = re.compile(r"\{claim\}`([^`]+)`")


def units(text):
    """Rows of tables, items of lists and paragraphs, without code, pictures, headings and heads of tables."""
    text = re.sub(r"^(`{3,}).*?^\1$", "", text, flags=re.M | re.S)
    for part in re.split(r"^#+ ", text, flags=re.M)[1:]:
        title, _, body = part.partition("\n")
        if title in NO_RESULTS:
            continue
        for block in filter(None, (block.strip() for block in body.split("\n\n"))):
            lines = block.splitlines()
            if lines[0].startswith("|"):
                yield from lines[2:]
            elif re.match(r"- |\d+\. ", lines[0]):
                yield from lines
            elif not block.endswith(":"):  # what leads in a piece of code
                yield block


@pytest.mark.parametrize("page", PAGES)
def test_every_row_item_and_paragraph_has_its_claim(page):
    found = list(units(TEXT[page]))
    assert len(found) > 8
    assert [unit for unit in found if not ROLE.search(unit)] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_claim_exists_and_prints(page):
    published = claim.published(ROOT)
    uses = ROLE.findall(TEXT[page])
    assert uses
    for use in uses:
        assert claim.printed(*claim.found(use, published))


@pytest.mark.parametrize("page", PAGES)
def test_a_claim_that_does_not_hold_is_called_so_where_it_is_quoted(page):
    """Whatever prints a number of it also prints its outcome, or says in words that it is no verdict."""
    published = claim.published(ROOT)
    for unit in units(TEXT[page]):
        for use in ROLE.findall(unit):
            row = claim.found(use, published)[0]
            said = re.search(rf"{row.id}(@\w+)?:outcome", unit) or "too few for a verdict" in unit
            assert row.outcome == "holds" or said, use


@pytest.mark.parametrize("page", PAGES)
def test_the_pages_type_no_results(page):
    reports = re.sub(r"\*\*.*?\*\*", "", TEXT[page])
    assert numerals(reports) == []


@pytest.mark.parametrize("page", PAGES[:4])
def test_a_page_can_be_read_in_a_few_minutes_and_opens_with_its_answer(page):
    words = re.sub(r"^```.*?^```|\{claim\}`[^`]*`|\$[^$]*\$", " ", TEXT[page], flags=re.M | re.S).split()
    assert 500 <= len(words) <= LONGEST.get(page, 1000)
    assert TEXT[page].split("\n\n")[1].startswith("**")
    assert "## What was never run" in TEXT[page]
    assert TEXT[page].count("```{figure}") == 1


@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in TEXT[page]])
def test_code_prints_what_the_page_says(page):
    with redirect_stdout(StringIO()) as printed:
        for code in re.findall(r"^```python\n(.*?)^```", TEXT[page], re.M | re.S):
            exec(code, {})
    assert printed.getvalue() == "".join(re.findall(r"^```text\n(.*?)^```", TEXT[page], re.M | re.S))


def test_the_rates_of_the_table_of_the_deviation_are_exact():
    rows = re.findall(
        r"^\| (?:at most |at least )?(\d+).*?weight \$([\d.]+)\$.*?\\times([\d.]+)\$ to \$\\times([\d.]+)\$",
        TEXT["standard_deviation"],
        re.M,
    )
    assert [int(row[0]) for row in rows] == [4, 8, 16]
    for size, weight, tail, even in rows:
        G = int(size)
        boost = power_gain(np.array([1e-7, 0.5]), 1, G) / power_gain(np.array([1e-7, 0.5]), 0, G)
        assert weight == f"{boost[0] / boost[1]:.2f}"
        assert np.isclose(pictures.rate_factor(0.1, G), pictures.rate_factor(0.9, G))
        assert (tail, even) == tuple(f"{pictures.rate_factor(J, G):.2f}" for J in (0.9, 0.5))


def test_conversions_of_the_rate_are_exact():
    J, G = 0.9, 8
    rloo = estimator_gain(J)
    assert np.isclose(rloo / estimator_gain(J, group_size=G), G / (G - 1))
    assert np.isclose(rloo / estimator_gain(J, "grpo"), np.sqrt(J * (1 - J)))
    assert np.isclose(rloo / estimator_gain(J, "grpo"), 0.3)
    with_population, with_sample = (estimator_gain(J, "grpo", G, bessel) for bessel in (False, True))
    assert np.isclose(with_population / with_sample, np.sqrt(G / (G - 1)))


def test_words_fit_the_picture_of_rates():
    multiples = np.arange(0.05, 1.35, 0.05)
    ends = {name: pictures.success_at_the_end(multiples, name) for name in pictures.ESTIMATORS}
    assert all(np.allclose(end[multiples < 0.71], 0.9, atol=1e-3) for end in ends.values())
    assert np.allclose(ends["grpo"][multiples < 0.96], 0.9, atol=1e-3)
    assert f"{ends['grpo'][-1]:.2f}" == "0.26"
    failed = np.isclose(multiples, 0.75) | np.isclose(multiples, 0.8)
    assert (ends["reinforce"][failed] < 0.5).all()
    assert (ends["reinforce"][multiples > 1.09] < 1e-3).all()


def test_words_fit_the_pictures_of_deviations_levels_and_baselines():
    alt = re.search(r":alt: (.*)", TEXT["standard_deviation"])[1]
    said = [f"{pictures.rate_factor(0.9, size):.2f}" for size in (4, 8, 16, None)]
    assert "{}, {}, {} and {}".format(*said) in alt
    assert [f"{pictures.rate_factor(0.5, size):.2f}" for size in (4, 8, 16, None)] == ["0.54", "0.50", "0.50", "0.50"]
    alt = re.search(r":alt: (.*)", TEXT["choosing_the_next_level"])[1]
    for prompts in pictures.MIXTURES:
        found = next_level({1: prompts})
        assert f"{found.reach:.1f}" in alt
        assert np.isclose(pictures.next_success(found.reach, prompts), 0.1)
    assert np.allclose(critical_energy_ratio([0.9, 0.98]), [11, 51])


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_the_pictures_are_those_of_the_script(name, tmp_path):
    if not (tmp_path.parent / "drawn").exists():
        (tmp_path.parent / "drawn").mkdir()
        pictures.draw(tmp_path.parent / "drawn")
    numbers = [
        np.array(re.findall(r"-?\d+\.\d+", path.read_text()), float)
        for path in (tmp_path.parent / "drawn" / f"{name}.svg", ROOT / "book" / "_static" / f"{name}.svg")
    ]
    assert len(numbers[0]) == len(numbers[1])
    assert np.allclose(*numbers, atol=0.05)


@pytest.mark.browser
def test_the_cheat_sheet_is_one_page_of_paper(book_address, reader_browser):
    with reader_browser.new_page() as page:
        page.goto(f"{book_address}book/cheat_sheet.html")
        page.wait_for_load_state("networkidle")
        page.evaluate("() => window.MathJax ? MathJax.startup.promise : null")
        paper = page.pdf(format="A4", prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", paper)) == 1
