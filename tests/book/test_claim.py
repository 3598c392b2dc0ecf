"""Numbers in prose are printed by the role ``claim``: every one names a published claim and a field of it."""

import re
import sys

import pytest
from conftest import ROOT

from rlvr_lib.reproduction.notebooks import notebook_names, read_source

sys.path.insert(0, str(ROOT / "book" / "_ext"))
import claim as role

PAGES = {
    name: "\n".join(cell.source for cell in read_source(ROOT / "notebooks" / f"{name}.py").cells)
    for name in notebook_names(ROOT / "notebooks")
}
PAGES |= {path.stem: path.read_text() for path in (ROOT / "book").glob("*.md")}
USES = sorted({use for text in PAGES.values() for use in re.findall(r"\{claim\}`([^`]+)`", text)})


@pytest.mark.parametrize("use", USES)
def test_every_number_in_prose_is_a_published_one(use):
    claim, field, spec = role.found(use, role.published(ROOT))
    assert role.printed(claim, field, spec)


def test_there_are_numbers_in_prose():
    assert len(USES) > 10


@pytest.mark.parametrize(
    "use",
    [
        "2-no-such-claim",
        "2-qwen-ridge-constant@none",
        "2-qwen-ridge-constant:sabotages",
        "2-qwen-ridge-constant:x",
        "2-qwen-local-form-is-no-guarantee:measured:.0%",
    ],
)
def test_what_is_not_there_is_refused(use):
    with pytest.raises(ValueError, match="2-"):
        role.printed(*role.found(use, role.published(ROOT)))


def test_a_number_has_the_format_it_asks_for():
    claims = role.published(ROOT)
    claim = claims["2-qwen-ridge-constant", "book"][0]
    assert role.printed(*role.found("2-qwen-ridge-constant:measured:.4f", claims)) == f"{claim.measured:.4f}"
    assert role.printed(*role.found("2-qwen-ridge-constant:n", claims)) == str(claim.n)
    assert role.printed(*role.found("2-qwen-ridge-constant", claims)) == f"{claim.measured:.2g}"
