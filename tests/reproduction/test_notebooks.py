import importlib.util
import json
import re
import shutil

import jupytext
import nbformat
import pytest
import yaml
from conftest import ROOT, STUB

from rlvr_lib.reproduction import provenance
from rlvr_lib.reproduction.driver import reproduce
from rlvr_lib.reproduction.notebooks import declared_parameters, notebook_names, read_source, resolve
from rlvr_lib.reproduction.results import Result, located, published_claims

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


def test_a_name_may_be_the_beginning_of_several(project):
    folder = project / "notebooks"
    (folder / "evidence").mkdir()
    (folder / "evidence" / "02_stub.py").write_text(STUB)
    (folder / "profiles.yml").write_text("book:\n  evidence/02_stub: {scale: 3.0}\n")
    both = ["02_stub", "evidence/02_stub"]
    for names, found in {
        (): ["01_stub", *both], ("02",): both, ("02_stub",): both[:1], ("evidence/02_stub",): both[1:],
        ("evidence/02",): both[1:], ("02", "01"): [*both, "01_stub"],
        ("evidence",): None, ("0",): None, ("stub",): None,
    }.items():  # fmt: skip
        if found is None:
            with pytest.raises(ValueError, match="^notebook must be one of 01_stub, 02_stub, evidence/02_stub, got"):
                resolve(names, "book", {}, folder)
        else:
            resolved = resolve(names, "book", {}, folder)
            assert list(resolved) == found
            assert all(values["scale"] == (3.0 if "/" in name else 1.0) for name, values in resolved.items())


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
    assert declared.keys() >= {"profile", "seed", "judged"}
    assert declared["profile"].default == "book"
    assert "qwen_model" not in declared or declared["qwen_model"].default == "tiny"


@pytest.mark.parametrize("profile", yaml.safe_load((NOTEBOOKS / "profiles.yml").read_text()))
def test_every_profile_resolves(profile):
    assert list(resolve([], profile, {}, NOTEBOOKS)) == NAMES
    assert set(yaml.safe_load((NOTEBOOKS / "profiles.yml").read_text())[profile]) <= {"all", *NAMES}


@each_notebook
def test_source_has_no_profile_branch(name):
    assert not re.search(r"\bif\b[^\n]*\bprofile\b", (NOTEBOOKS / f"{name}.py").read_text())


@each_notebook
def test_pair_is_one_notebook(name):
    executed = jupytext.read(NOTEBOOKS / f"{name}.ipynb")
    text = (NOTEBOOKS / f"{name}.py").read_text()
    assert jupytext.writes(executed, fmt="py:percent") == text, "run make words, or make notebooks if code has changed"


@each_notebook
def test_committed_outputs_are_those_of_the_committed_source_and_library(name):
    result = Result(ROOT / "results", name, "book")
    stamp = provenance.read_stamp(result.stamp_file)
    stale = "is stale: run make notebooks"
    assert stamp, f"results/provenance of {name} {stale}"
    assert stamp.inputs == provenance.inputs(read_source(NOTEBOOKS / f"{name}.py"), ROOT), f"{name} {stale}"
    assert stamp.outputs["notebook"] == provenance.sha256((NOTEBOOKS / f"{name}.ipynb").read_bytes()), f"{name} {stale}"
    assert result.claims() == published_claims(nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4)), f"{name} {stale}"
    assert result.claims() == located(result.claims(), name, ROOT), f"lines of {name} have moved: run make words"
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


def publish_module():
    spec = importlib.util.spec_from_file_location("publish", ROOT / "book" / "publish.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_publishing_carries_words_and_refuses_code(project, tmp_path):
    """Book and full profile, chapter and evidence: words reach what is published without a run, code does not."""
    publish, folder = publish_module(), project / "notebooks"
    (folder / "evidence").mkdir()
    shutil.copy(folder / "01_stub.py", folder / "evidence")
    (folder / "profiles.yml").write_text("book: {}\nfull: {}\n")
    names = ["01_stub", "evidence/01_stub"]
    for profile in ("book", "full"):
        reproduce(resolve(names, profile, {}, folder), project, tmp_path / "out", report=lambda said: None)
    said = [f"{name} ({profile})" for name in names for profile in ("book", "full")]
    assert publish.publish(tmp_path / "out", project) == said
    assert publish.renew(project) == []
    published = [Result(project / "results", name, profile) for name in names for profile in ("book", "full")]
    first = {result.stem: (result.claims(), provenance.read_stamp(result.stamp_file)) for result in published}
    for name in names:
        source = folder / f"{name}.py"
        source.write_text("# %% [markdown]\n# Words.\n\n" + source.read_text())
    assert publish.renew(project) == []
    for result in published:
        claims, stamp = first[result.stem]
        assert [claim.code.line for claim in result.claims()] == [claim.code.line + 3 for claim in claims]
        assert provenance.read_stamp(result.stamp_file).date == stamp.date
    for name in names:
        shown = folder / f"{name}.ipynb"
        assert jupytext.read(shown).cells[0].source == "Words."
        assert published_claims(nbformat.read(shown, 4)) == Result(project / "results", name, "book").claims()
        stamp = provenance.read_stamp(Result(project / "results", name, "book").stamp_file)
        assert stamp.outputs["notebook"] == provenance.sha256(shown.read_bytes())
    before = (folder / "01_stub.ipynb").read_bytes()
    (folder / "01_stub.py").write_text((folder / "01_stub.py").read_text().replace("equals=1.0", "equals=2.0"))
    (folder / "evidence" / "01_stub.py").unlink()
    assert publish.renew(project) == said
    assert (folder / "01_stub.ipynb").read_bytes() == before
