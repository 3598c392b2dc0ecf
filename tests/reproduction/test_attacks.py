"""Attacks that got a wrong result served or published, each as it was made, and what stops it now."""

import importlib.util
import shutil
import threading
import time

import pytest
from conftest import ROOT, STUB

from rlvr_lib.reproduction import driver, provenance, results
from rlvr_lib.reproduction.notebooks import notebook_names, read_source, resolve
from rlvr_lib.reproduction.results import Result

spec = importlib.util.spec_from_file_location("publish", ROOT / "book" / "publish.py")
publish = importlib.util.module_from_spec(spec)
spec.loader.exec_module(publish)

PUBLISHED = results.finished_results(ROOT / "results")


def run(project, out, names=("01_stub",), profile="book", **settings):
    parameters = resolve(names, profile, settings, project / "notebooks")
    return driver.reproduce(parameters, project, out, jobs=2, report=lambda message: None)


@pytest.fixture(scope="module")
def made(make_project, tmp_path_factory):
    """A project and a folder with both stubs finished, made once."""
    folder = tmp_path_factory.mktemp("made")
    project = make_project(folder)
    assert run(project, folder / "out", names=()) == {"01_stub": "", "02_stub": ""}
    return project, folder / "out"


@pytest.fixture
def copies(made, tmp_path):
    """Copies of both."""
    return [shutil.copytree(source, tmp_path / source.name) for source in made]


@pytest.mark.parametrize("put_back", [True, False])
def test_a_module_written_during_a_run_leaves_no_stamp(project, tmp_path, put_back):
    module, out, failures = project / "rlvr_lib" / "claims.py", tmp_path / "out", {}
    original = module.read_text()
    running = threading.Thread(target=lambda: failures.update(run(project, out, pause="2")))
    running.start()
    while not list(out.glob(".partial/*.run-*")):
        time.sleep(0.01)
    module.write_text(original + "\nEDITED = True\n")
    if put_back:
        module.write_text(original)
    running.join()
    assert "written while it ran: rlvr_lib.claims" in failures["01_stub"]
    assert Result(out, "01_stub", "book").stamp() is None
    module.write_text(original)
    assert run(project, out) == {"01_stub": ""}


def test_only_what_the_sources_give_now_is_published(copies):
    project, out = copies
    publish.publish(out, project)
    before = {path: path.read_bytes() for path in project.rglob("*.*") if path.is_file()}
    source = project / "notebooks" / "02_stub.py"
    source.write_text(STUB.replace("one is one", "one is two").replace("time.sleep(pause)", "raise RuntimeError"))
    assert run(project, out, names=())["02_stub"]
    with pytest.raises(SystemExit, match=r"02_stub \(book\) is not published: inputs have changed since: source"):
        publish.publish(out, project)
    after = {path: path.read_bytes() for path in project.rglob("*.*") if path.is_file()}
    assert {path for path in after if after[path] != before.get(path)} == {source}


@pytest.mark.parametrize("target", [("02_stub", "book"), ("01_stub", "full")])
def test_a_result_under_another_name_is_neither_printed_nor_published(copies, target):
    project, out = copies
    one, other = Result(out, "01_stub", "book"), Result(out, *target)
    for source, place in ((one.files[key], other.files[key]) for key in one.files):
        shutil.copy(source, place)
    shutil.copy(one.stamp_file, other.stamp_file)
    assert provenance.read_stamp(other.stamp_file).vouches_for(other.files)
    with pytest.raises(ValueError, match="must match its stamp"):
        other.claims()
    with pytest.raises(SystemExit, match="is not finished"):
        publish.publish(out, project)


def test_other_parameters_are_not_published_as_the_profile(copies):
    project, out = copies
    assert run(project, out, scale="3") == {"01_stub": ""}
    with pytest.raises(SystemExit, match="parameters are not those of the profile: scale"):
        publish.publish(out, project)


@pytest.mark.parametrize("result", PUBLISHED, ids=lambda result: result.stem)
def test_every_published_result_is_what_the_sources_give(result):
    """Of every profile: name, profile, parameters and freshness."""
    assert results.why_not_publishable(result, ROOT) == []


def test_foreign_kernels_and_startup_files_play_no_part(project, tmp_path, monkeypatch):
    startup = tmp_path / "ipython" / "profile_default" / "startup" / "0.py"
    startup.parent.mkdir(parents=True)
    startup.write_text("import rlvr_lib.claims as c; c.passes = lambda *a: True")
    (tmp_path / "startup.py").write_text(startup.read_text())
    kernel = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text('{"argv": ["false"], "display_name": "Python 3", "language": "python"}')
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "startup.py"))
    assert run(project, tmp_path / "out", scale="2") == {"01_stub": ""}
    assert [claim.outcome for claim in Result(tmp_path / "out", "01_stub", "book").claims()] == ["fails"]


@pytest.mark.parametrize("place", ["results", "results/new", "notebooks", "link"])
def test_results_are_not_written_over_the_published_ones(project, tmp_path, place):
    (project / "results").mkdir()
    (project / "link").symlink_to(project / "results")
    with pytest.raises(ValueError, match="^out must be outside of"):
        run(project, project / place)
    assert list((project / "results").iterdir()) == []


def test_relative_imports_are_in_the_closure(project):
    folder = project / "rlvr_lib" / "theory"
    (folder / "extra.py").write_text("from . import gap\nfrom ..responses import Responses\nfrom .levels import x\n")
    closure = provenance.import_closure("from rlvr_lib.theory import extra", project)
    expected = {"rlvr_lib.theory.extra", "rlvr_lib.theory.gap", "rlvr_lib.responses", "rlvr_lib.theory.levels"}
    assert expected <= closure.keys()


@pytest.mark.parametrize(
    "source",
    [
        "import importlib\nimportlib.import_module('rlvr_lib.theory.gap')",
        "from importlib import import_module as load\nload('rlvr_lib.theory.gap')\nimport_module('x')",
        "__import__('rlvr_lib.theory.gap')",
        "import rlvr_lib as r\nr.gradient_gap",
        "import rlvr_lib\nrlvr_lib.gradient_gap",
        "import rlvr_lib.claims\nrlvr_lib.theory",
    ],
)
def test_imports_that_cannot_be_followed_are_found(source):
    assert provenance.unseen_imports(source)


@pytest.mark.parametrize("name", notebook_names(ROOT / "notebooks"))
def test_no_notebook_has_imports_that_cannot_be_followed(name):
    """Nor has a module of its closure; but for the lazy names of packages, which the closure knows."""
    notebook = read_source(ROOT / "notebooks" / f"{name}.py")
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    modules = provenance.import_closure(code, ROOT).keys() - {"rlvr_lib"}
    texts = [code, *(provenance.module_file(module, ROOT).read_text() for module in modules)]
    assert [found for text in texts for found in provenance.unseen_imports(text)] == []


def test_stray_files_and_folders_among_stamps_are_no_stamps(copies):
    _, out = copies
    (out / "provenance" / "notes.json").write_text("{}")
    assert [result.name for result in results.finished_results(out)] == ["01_stub", "02_stub"]
    file = Result(out, "01_stub", "book").stamp_file
    file.write_text("[" * 100_000)
    assert provenance.read_stamp(file) is None
    file.unlink()
    file.mkdir()
    assert provenance.read_stamp(file) is None


def test_a_command_to_the_notebook_is_one_line_of_bad_input(project, tmp_path):
    (project / "notebooks" / "01_stub.py").write_text(STUB + "\n# %%\n!ls\n")
    with pytest.raises(ValueError, match="code must be Python without commands"):
        run(project, tmp_path / "out")


def test_a_folder_among_the_data_is_no_input(project):
    (project / "rlvr_lib" / "data" / "one").mkdir()
    notebook = read_source(project / "notebooks" / "01_stub.py")
    assert "data/one" not in provenance.inputs(notebook, project)
