import pytest

from rlvr_lib import provenance
from rlvr_lib.notebooks import read_source


def test_closure_follows_imports_through_modules_and_packages(project):
    closure = provenance.import_closure("from rlvr_lib.gap import gradient_gap", project)
    assert closure.keys() == {"rlvr_lib", "rlvr_lib.gap", "rlvr_lib.arguments", "rlvr_lib.responses"}
    bandit = provenance.import_closure("from rlvr_lib.testbeds import bandit", project)
    assert {"rlvr_lib.testbeds", "rlvr_lib.testbeds.bandit", "rlvr_lib.responses"} <= bandit.keys()


@pytest.mark.parametrize(
    "source",
    [
        "from rlvr_lib import gradient_gap",
        "import rlvr_lib.gap as g",
        "def f():\n    from rlvr_lib import gap",
        "from rlvr_lib import *",
    ],
)
def test_closure_sees_every_form_of_import(project, source):
    assert "rlvr_lib.gap" in provenance.import_closure(source, project)


def test_editing_a_module_changes_exactly_the_closures_that_hold_it(project):
    """Each module of the library in turn, against two programs of different closures."""
    programs = ("from rlvr_lib.gap import gradient_gap", "from rlvr_lib.testbeds import bandit\nimport rlvr_lib.claims")
    before = [provenance.import_closure(program, project) for program in programs]
    modules = sorted((project / "rlvr_lib").rglob("*.py"))
    assert len(modules) > 10
    for file in modules:
        module = ".".join(file.relative_to(project).with_suffix("").parts).removesuffix(".__init__")
        original = file.read_text()
        file.write_text(original + "\n# edited\n")
        for program, old in zip(programs, before, strict=True):
            assert (provenance.import_closure(program, project) != old) == (module in old), module
        file.write_text(original)


def test_inputs_change_with_source_and_pins_but_not_with_other_files(project):
    path = project / "notebooks" / "01_stub.py"
    before = provenance.inputs(read_source(path), project)
    (project / "notes.txt").write_text("x")
    assert provenance.inputs(read_source(path), project) == before
    path.write_text(path.read_text().replace("one is one", "one is 1"))
    assert provenance.inputs(read_source(path), project)["source"] != before["source"]
    (project / "requirements.txt").write_text("numpy==2.4.7\n")
    assert provenance.inputs(read_source(path), project)["requirements"] != before["requirements"]


def test_damaged_stamps_are_no_stamps(tmp_path):
    for content in ("", "{", "[]", '{"notebook": "x"}', "\0\1"):
        (tmp_path / "stamp.json").write_text(content)
        assert provenance.read_stamp(tmp_path / "stamp.json") is None
    assert provenance.read_stamp(tmp_path / "absent.json") is None


def test_hardware_names_no_machine():
    import socket

    assert socket.gethostname() not in str(provenance.hardware())
