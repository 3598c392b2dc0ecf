"""The attacks that take minutes are not run here; these tests keep them working, on a small sample."""

import ast
import functools

import pytest
from conftest import ROOT

from tests.attack import meta
from tests.attack.mutants import changed_lines, functions, is_wording
from tests.attack.theory import MUTANTS

LIBRARY = ROOT / "rlvr_lib"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.module}: {mutant.original}")
def test_every_mutant_breaks_one_place_of_the_code(mutant):
    source = (LIBRARY / f"{mutant.module}.py").read_text()
    assert source.count(mutant.original) == 1, "change tests/attack/theory.py with the library"
    broken = ast.parse(source.replace(mutant.original, mutant.broken))
    assert ast.dump(broken) != ast.dump(ast.parse(source))


def test_every_theory_module_and_kind_of_slip_is_there():
    modules = {"advantages", "baseline", "curvature", "gap", "groups", "permutations", "relay", "responses"}
    assert {mutant.module for mutant in MUTANTS} == modules | {"threshold"}
    assert {mutant.kind for mutant in MUTANTS} == {"sign", "constant", "exponent", "index"}
    assert len(MUTANTS) >= 60


@functools.cache
def sample():
    """One mutant of each of the modules whose tests are quickest."""
    return [next(m for m in MUTANTS if m.module == module) for module in ("responses", "gap", "advantages")]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(3))
def test_unit_tests_notice_a_broken_function(tmp_path, number):
    project = meta.copy_project(tmp_path)
    if number == 0:
        assert meta.failing_test(sample()[number], project) == "", "the copy must pass as it is"
    meta.apply(sample()[number], project)
    assert meta.failing_test(sample()[number], project) not in ("", "the tests cannot be collected")


def test_notebooks_are_judged_by_their_import_closure():
    importers = meta.importers("gap", ROOT)
    assert "01_gap_alignment" in importers
    assert meta.importers("no_such_module", ROOT) == []


REWRITTEN = """
def x_f__mutmut_orig(a):
    require(a > 0, "a", a, "positive")
    return a + 1


def x_f__mutmut_1(a):
    require(a > 0, "a", None, "POSITIVE")
    return a + 1


def x_f__mutmut_2(a):
    require(a >= 0, "a", a, "positive")
    return a + 1


def x_f__mutmut_3(a):
    require(a > 0, "a", a, "positive")
    return a - 1
"""


def test_only_the_wording_of_errors_is_left_out_of_the_mutation_test(tmp_path):
    (tmp_path / "module.py").write_text(REWRITTEN)
    by_name = functions(tmp_path / "module.py")
    original = by_name["x_f__mutmut_orig"]
    mutants = [by_name[f"x_f__mutmut_{number}"] for number in (1, 2, 3)]
    assert [is_wording(original, mutant) for mutant in mutants] == [True, False, False]
    assert changed_lines(original, mutants[2]) == ("return a + 1", "return a - 1")
