"""The attacks that take minutes are not run here; these tests keep them working, on a small sample."""

import ast

import pytest
from conftest import ROOT

from tests.attack import meta, slips
from tests.attack.mutants import changed_lines, functions, is_wording


def test_slips_are_of_every_kind_and_leave_the_argument_checks_alone(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[tool.mutmut]\nonly_mutate = ["rlvr_lib/theory/one.py"]\n')
    path = tmp_path / "rlvr_lib" / "theory" / "one.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "from rlvr_lib.arguments import positive\n\nLIMIT = 1 + 1\n\n\n"
        "def f(a, b=2 * 3):\n    return positive('a', a - 1) if b else -a[0] * 2  # é\n"
    )
    found = slips.mutants("theory.one", path)
    assert [(mutant.original, mutant.broken, mutant.kind) for mutant in found] == [
        ("-a[0] * 2", "(-a[0] / 2)", "exponent"),
        ("-a[0] * 2", "(-a[0] * 3)", "constant"),
        ("-a[0]", "(a[0])", "sign"),
        ("a[0]", "(a[1])", "index"),
    ]
    slips.apply(found[3], tmp_path)
    assert "else -(a[1]) * 2  # é\n" in path.read_text()


def test_every_theory_module_is_sampled_again_and_again_alike():
    drawn = slips.sample(ROOT)
    theory = {f"theory.{path.stem}" for path in (ROOT / "rlvr_lib" / "theory").glob("[a-z]*.py")}
    assert {mutant.module for mutant in drawn} == theory | {"responses"}
    assert drawn == slips.sample(ROOT)
    assert {mutant.kind for mutant in drawn} == {"sign", "constant", "exponent", "index"}
    assert len(drawn) >= 60


def test_every_drawn_slip_is_another_program():
    for mutant in slips.sample(ROOT):
        source = slips.modules(ROOT)[mutant.module].read_bytes()
        broken = source[: mutant.start] + mutant.broken.encode() + source[mutant.end :]
        assert ast.dump(ast.parse(broken)) != ast.dump(ast.parse(source)), mutant


@pytest.mark.slow
@pytest.mark.parametrize("module", ["responses", "theory.gap", "theory.advantages"])
def test_unit_tests_notice_a_broken_function(tmp_path, module):
    """One slip of each of the modules whose tests are quickest, of the kind that is hardly ever harmless."""
    project = meta.copy_project(tmp_path)
    slip = next(m for m in slips.mutants(module, slips.modules(ROOT)[module]) if m.kind in ("sign", "exponent"))
    if module == "responses":
        assert meta.failing_test(slip, project) == "", "the copy must pass as it is"
    slips.apply(slip, project)
    assert meta.failing_test(slip, project) not in ("", "the tests cannot be collected")


def test_notebooks_are_judged_by_their_import_closure():
    importers = meta.importers("theory.gap", ROOT)
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
