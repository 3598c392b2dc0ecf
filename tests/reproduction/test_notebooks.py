import json
import re

import jupytext
import nbformat
import pytest
import yaml
from conftest import ROOT, STUB

from rlvr_lib.reproduction import provenance
from rlvr_lib.reproduction.notebooks import declared_parameters, notebook_names, read_source, resolve
from rlvr_lib.reproduction.results import Result, published_claims

NOTEBOOKS = ROOT / "notebooks"
NAMES = notebook_names(NOTEBOOKS)
each_notebook = pytest.mark.parametrize("name", NAMES)


def write(project, text):
    (project / "notebooks" / "01_stub.py").write_text(text)
    return project / "notebooks"


def test_resolution_takes_defaults_then_profile_then_settings(project):
    folder = project / "notebooks"
    assert resolve([], "book", {}, folder)["01_stub"] == {
        **{"profile": "book", "seed": 0, "scale": 1.0, "names": [1, 2], "kind": "mean", "pause": 0.0}
    }
    resolved = resolve(["02_stub"], "smoke", {"names": "[3]", "kind": "median", "scale": "2"}, folder)
    assert resolved == {
        "02_stub": {"profile": "smoke", "seed": 3, "scale": 2.0, "names": [3], "kind": "median", "pause": 0.0}
    }


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"seed": "-1"}, r"parameter seed must be int in \[0, 100\], got -1"),
        ({"seed": "1.5"}, "parameter seed must be int"),
        ({"seed": "True"}, "parameter seed must be int"),
        ({"seed": "__import__('os')"}, "parameter seed must be int"),
        ({"scale": "nan"}, "parameter scale must be float"),
        ({"scale": "11"}, "parameter scale must be float"),
        ({"names": "[]"}, "parameter names must be"),
        ({"names": "[10]"}, "parameter names must be"),
        ({"kind": "mode"}, "parameter kind must be one of mean, median"),
        ({"nothing": "1"}, "parameter must be one that 01_stub declares, got 'nothing'"),
        ({"profile": "full"}, "parameter must be one that 01_stub declares, got 'profile'"),
    ],
)
def test_bad_settings_are_named(project, setting, named):
    with pytest.raises(ValueError, match=named):
        resolve([], "book", setting, project / "notebooks")


def test_unknown_notebooks_and_profiles_are_named(project):
    with pytest.raises(ValueError, match="notebook must be one of 01_stub, 02_stub, got '03'"):
        resolve(["03"], "book", {}, project / "notebooks")
    with pytest.raises(ValueError, match="profile must be one of book, smoke, broken, got 'x'"):
        resolve([], "x", {}, project / "notebooks")
    with pytest.raises(ValueError, match="parameter scale must be float"):
        resolve([], "broken", {}, project / "notebooks")


def test_parameters_cells_that_cannot_be_checked_are_refused(project):
    untyped = STUB.replace("seed: int = 0", "seed = 0")
    breaking = STUB.replace("[0, 100] seed", "[5, 100] seed")
    missing = STUB.replace(' tags=["parameters"]', "")
    for text in (untyped, breaking, missing):
        with pytest.raises(ValueError, match="must be"):
            declared_parameters(read_source(write(project, text) / "01_stub.py"))


@each_notebook
def test_every_notebook_declares_the_shared_parameters(name):
    declared = declared_parameters(read_source(NOTEBOOKS / f"{name}.py"))
    assert declared.keys() >= {"profile", "seed", "judged", "qwen_model"}
    assert declared["profile"].default == "book"
    assert declared["qwen_model"].default == "tiny"


@pytest.mark.parametrize("profile", yaml.safe_load((NOTEBOOKS / "profiles.yml").read_text()))
def test_every_profile_resolves(profile):
    assert list(resolve([], profile, {}, NOTEBOOKS)) == NAMES


@each_notebook
def test_source_has_no_profile_branch(name):
    assert not re.search(r"\bif\b[^\n]*\bprofile\b", (NOTEBOOKS / f"{name}.py").read_text())


@each_notebook
def test_pair_is_one_notebook(name):
    executed = jupytext.read(NOTEBOOKS / f"{name}.ipynb")
    assert jupytext.writes(executed, fmt="py:percent") == (NOTEBOOKS / f"{name}.py").read_text()


@each_notebook
def test_committed_outputs_are_those_of_the_committed_source_and_library(name):
    result = Result(ROOT / "results", name, "book")
    stamp = provenance.read_stamp(result.stamp_file)
    stale = "is stale: run make notebooks"
    assert stamp, f"results/provenance of {name} {stale}"
    assert stamp.inputs == provenance.inputs(read_source(NOTEBOOKS / f"{name}.py"), ROOT), f"{name} {stale}"
    assert stamp.outputs["notebook"] == provenance.sha256((NOTEBOOKS / f"{name}.ipynb").read_bytes()), f"{name} {stale}"
    assert result.claims() == published_claims(nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4)), f"{name} {stale}"
    assert not any(claim.accepted_sabotages for claim in result.claims())


@each_notebook
def test_outputs_are_small_whole_and_name_no_machine(name):
    path = NOTEBOOKS / f"{name}.ipynb"
    assert path.stat().st_size < 1_000_000
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert cell.cell_type != "code" or cell.execution_count, cell.source
        for output in cell.get("outputs", []):
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.get("text")
            text = json.dumps({kind: value for kind, value in output.get("data", {}).items() if kind != "image/png"})
            assert not re.search(r"(/home|/root|/work|/tmp|/Users|[A-Z]:\\\\Users)\b", text + output.get("text", ""))
    import getpass
    import socket

    # Encoded pictures contain every short word sooner or later.
    words = re.sub(r'"image/png": "[^"]*"', "", path.read_text())
    for private in {socket.gethostname(), getpass.getuser()} - {"root", "localhost"}:
        assert not re.search(rf"\b{re.escape(private)}\b", words)


@each_notebook
def test_every_picture_has_alt_text(name):
    for cell in nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4).cells:
        pictures = [o for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
        assert len(pictures) <= 1, "one figure a cell, so that each has its own alt text"
        assert all(len(o.metadata["image/png"]["alt"]) >= 20 for o in pictures)
