import os
import random
import shutil
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from conftest import PATIENCE, STUB

from rlvr_lib.reproduction import driver as reproduce
from rlvr_lib.reproduction import provenance, results
from rlvr_lib.reproduction.notebooks import resolve

RUN = """
import sys
from pathlib import Path
from rlvr_lib.reproduction.notebooks import resolve
from rlvr_lib.reproduction.driver import reproduce
root, out, pause = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
print(reproduce(resolve([], "book", {"pause": pause}, root / "notebooks"), root, out, jobs=2, report=print))
"""


def run(project, out, profile="book", settings=None, messages=None, **options):
    parameters = resolve([], profile, settings or {}, project / "notebooks")
    report = (messages if messages is not None else []).append
    return reproduce.reproduce(parameters, project, out, report=report, **options)


def finished(out, profile="book"):
    return [name for name in ("01_stub", "02_stub") if results.Result(out, name, profile).stamp()]


@pytest.fixture(scope="module")
def once(make_project, tmp_path_factory):
    """A folder with both stubs finished, made once."""
    folder = tmp_path_factory.mktemp("once")
    assert run(make_project(folder), folder / "out", jobs=2) == {"01_stub": "", "02_stub": ""}
    return folder / "out"


@pytest.fixture
def done(once, tmp_path):
    """A copy of it."""
    return shutil.copytree(once, tmp_path / "out")


def test_results_are_notebook_claims_and_stamp(project, done):
    result = results.Result(done, "01_stub", "book")
    assert [claim.id for claim in result.claims()] == ["1-none-stub"]
    notebook = nbformat.read(result.files["notebook"], 4)
    assert "papermill" not in notebook.metadata
    assert not any("papermill" in cell.metadata for cell in notebook.cells)
    assert len(notebook.cells) == STUB.count("# %%")
    stamp = result.stamp()
    assert stamp.parameters["seed"] == 0
    assert {"source", "requirements", "rlvr_lib.claims"} <= stamp.inputs.keys()
    assert stamp.hardware["threads"] == "1"
    assert {"processor", "instructions", "cores"} <= stamp.hardware.keys()
    leftovers = [path.name for path in (done / ".partial").iterdir() if not path.name.endswith(".lock")]
    assert leftovers == []


def test_profiles_are_injected_and_do_not_disturb_each_other(project, done):
    assert run(project, done, profile="smoke") == {"01_stub": "", "02_stub": ""}
    assert finished(done) == finished(done, "smoke") == ["01_stub", "02_stub"]
    claim = results.Result(done, "02_stub", "smoke").claims()[0]
    assert (claim.profile, claim.seeds) == ("smoke", (3,))


def rerun(project, out):
    messages = []
    run(project, out, messages=messages)
    return sorted(message.split(":")[0] for message in messages if "up to date" not in message)


def test_nothing_runs_again_until_something_it_depends_on_changes(project, done):
    assert rerun(project, done) == []
    source = project / "notebooks" / "02_stub.py"
    source.write_text(source.read_text().replace("one is one", "1 is 1"))
    assert rerun(project, done) == ["02_stub"]
    (project / "rlvr_lib" / "gap.py").write_text("# not imported by the stubs")
    assert rerun(project, done) == []
    module = project / "rlvr_lib" / "claims.py"
    module.write_text(module.read_text() + "\n# edited\n")
    assert rerun(project, done) == []
    module.write_text(module.read_text() + "\nEDITED = True\n")
    assert rerun(project, done) == ["01_stub", "02_stub"]


def test_words_are_carried_into_a_finished_result_without_running_it(project, done):
    """Prose and comments change; the notebook is what a run of the new source would give, line numbers included."""
    source, result = project / "notebooks" / "01_stub.py", results.Result(done, "01_stub", "book")
    before, line = result.stamp(), result.claims()[0].code.line
    text = source.read_text().replace("# %%\nimport time", "# %% [markdown]\n# Words.\n\n# %%\nimport time  # to wait")
    source.write_text(text)
    messages = []
    run(project, done, messages=messages)
    assert messages == ["01_stub: up to date, its words renewed", "02_stub: up to date"]
    carried, stamp = nbformat.read(result.files["notebook"], 4), result.stamp()
    assert (stamp.date, stamp.runtime_s, stamp.inputs) == (before.date, before.runtime_s, before.inputs)
    assert result.claims()[0].code.line == line + 3 == text.splitlines().index("@ledger.claim(") + 1
    assert result.claims() == results.published_claims(carried)
    run(project, done, fresh=True)
    executed = nbformat.read(result.files["notebook"], 4)
    for notebook in (carried, executed):
        notebook.cells[-1].outputs = []  # whose run times differ
    assert carried == executed


def test_injected_parameters_stay_where_words_are_carried(project, done):
    run(project, done, profile="smoke")
    result, source = results.Result(done, "02_stub", "smoke"), project / "notebooks" / "02_stub.py"
    source.write_text("# %% [markdown]\n# Words.\n\n" + source.read_text())
    run(project, done, profile="smoke")
    cells = nbformat.read(result.files["notebook"], 4).cells
    assert [cell.metadata.get("tags", []) for cell in cells[:3]] == [[], ["parameters"], ["injected-parameters"]]
    assert cells[3].execution_count == 3


EVIDENCE = STUB.replace("1-none-stub", "1-none-evidence").replace("[seed])", '[seed], lane="evidence")')


def test_evidence_is_a_notebook_of_its_own_beside_the_chapter(project, tmp_path):
    (project / "notebooks" / "evidence").mkdir()
    (project / "notebooks" / "evidence" / "01_stub.py").write_text(EVIDENCE)
    names, out = ["01_stub", "evidence/01_stub", "02_stub"], tmp_path / "out"
    assert list(resolve([], "book", {}, project / "notebooks")) == names
    assert run(project, out) == dict.fromkeys(sorted(names), "")
    found = results.finished_results(out)
    assert [result.name for result in found] == names
    assert [claim.lane for result in found for claim in result.claims()] == ["chapter", "evidence", "chapter"]
    assert (out / "evidence" / "01_stub.book.json").is_file()
    assert results.Result(out, "evidence/01_stub", "book").claims()[0].code.module == "notebooks/evidence/01_stub.py"
    assert rerun(project, out) == []


CLAIM = """
def double(factor=2.0):
    return factor


@ledger.claim(
    "1-none-claim", headline="Twice.", statement="two", testbed="none", equals=2.0, sabotages={"x": {"factor": 3.0}}
)
def double(factor=2.0):  # the second of its name, which the claim decorates
    return factor


ledger.claim(
    "1-none-library", headline="Own.", statement="own", testbed="none", equals=2.0, sabotages={"y": {"factor": 1.0}}
)(FUNCTION)
"""
LIBRARY = "\n\ndef constant(factor=2.0):\n    return factor\n"


def with_claims(project, function):
    (project / "rlvr_lib" / "extra.py").write_text(LIBRARY)
    source = project / "notebooks" / "01_stub.py"
    own = f"import sys; sys.path.insert(0, {str(project)!r})\n"  # the library is the project's own, not the installed
    source.write_text(STUB.replace("import time\n", own + "import time\n").replace(
        "# %%\nledger.publish", "# %%" + CLAIM.replace("FUNCTION", function) + "\n# %%\nledger.publish"))  # fmt: skip
    return source.read_text().splitlines()


def test_code_leads_to_the_line_of_a_cell_or_of_the_library(project, tmp_path):
    lines = with_claims(project, '__import__("rlvr_lib.extra").extra.constant')
    assert run(project, tmp_path / "out")["01_stub"] == ""
    result = results.Result(tmp_path / "out", "01_stub", "book")
    own, claim, library = (found.code for found in result.claims())
    assert (own.module, own.function, lines[own.line - 1]) == ("notebooks/01_stub.py", "one", "@ledger.claim(")
    assert (claim.function, lines[claim.line - 1]) == ("double", "@ledger.claim(")
    assert (library.module, library.function, library.line) == ("rlvr_lib/extra.py", "constant", 3)


def test_code_that_is_nowhere_fails_the_run(project, tmp_path):
    with_claims(project, "double")
    assert "code must be one place" in run(project, tmp_path / "out")["01_stub"]
    assert finished(tmp_path / "out") == ["02_stub"]


def test_a_moved_library_function_is_found_again_and_a_lost_one_is_named(project, tmp_path):
    with_claims(project, '__import__("rlvr_lib.extra").extra.constant')
    run(project, tmp_path / "out")
    claims = results.Result(tmp_path / "out", "01_stub", "book").claims()
    file = project / "rlvr_lib" / "extra.py"
    file.write_text("# moved\n" + LIBRARY)
    assert results.located(claims, "01_stub", project)[2].code.line == 4
    for broken in (LIBRARY * 2, "", None):
        file.unlink() if broken is None else file.write_text(broken)
        with pytest.raises(results.NotebookFailed, match="1-none-library: code must be one place of rlvr_lib/extra.py"):
            results.located(claims, "01_stub", project)


def test_parameters_pins_and_fresh_force_a_run(project, done):
    messages = []
    run(project, done, settings={"seed": "1"}, messages=messages)
    assert all("finished" in message for message in messages)
    (project / "requirements.txt").write_text("numpy==9\n")
    messages.clear()
    run(project, done, settings={"seed": "1"}, messages=messages)
    assert all("finished" in message for message in messages)
    messages.clear()
    run(project, done, settings={"seed": "1"}, messages=messages, fresh=True)
    assert all("finished" in message for message in messages)


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "foreign", "delete"])
@pytest.mark.parametrize("file", ["notebook", "claims", "stamp"])
def test_damaged_results_are_recomputed_and_never_served(project, done, damage, file):
    result = results.Result(done, "01_stub", "book")
    path = result.stamp_file if file == "stamp" else result.files[file]
    content = path.read_bytes()
    half = len(content) // 2
    path.write_bytes(
        {
            "truncate": content[:half],
            "flip": content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :],
            "empty": b"",
            "foreign": b'{"someone": "else"}',
            "delete": b"",
        }[damage]
    )
    if damage == "delete":
        path.unlink()
    parameters = resolve(["01_stub"], "book", {}, project / "notebooks")
    assert result.stamp() is None
    if file != "notebook":
        with pytest.raises(ValueError, match="damaged or unfinished"):
            result.claims()
    reproduce.reproduce(parameters, project, done, report=lambda message: None)
    assert result.stamp()


def test_claims_of_another_version_are_named_in_one_line(done):
    result = results.Result(done, "01_stub", "book")
    old = result.files["claims"].read_text().replace('"outcome": "holds"', '"verdict": "holds"').encode()
    result.files["claims"].write_bytes(old)
    stamp = provenance.read_stamp(result.stamp_file)
    result.stamp_file.write_bytes(
        stamp.model_copy(update={"outputs": {**stamp.outputs, "claims": provenance.sha256(old)}}).sealed()
    )
    with pytest.raises(ValueError, match="01_stub.book.json must hold claims in the form of this version") as error:
        result.claims()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("moment", [0, 4_000_000_000])
def test_clocks_play_no_part(project, done, moment):
    """Files from the past or from the future, as a clock that jumps leaves them."""
    for path in [*done.rglob("*.*"), *(project / "rlvr_lib").rglob("*.py"), *(project / "notebooks").iterdir()]:
        os.utime(path, (moment, moment))
    assert rerun(project, done) == []


def test_a_clock_that_jumps_back_during_a_run_does_no_harm(project, done, monkeypatch):
    clock = iter(range(4_000_000_000, 0, -1_000_000))
    monkeypatch.setattr(time, "time", lambda: next(clock))
    monkeypatch.setattr(provenance, "today", lambda: "1970-01-01")
    assert run(project, done, fresh=True) == {"01_stub": "", "02_stub": ""}
    monkeypatch.undo()
    assert all(results.Result(done, name, "book").stamp().runtime_s > 0 for name in finished(done))
    assert rerun(project, done) == []


def test_failures_are_named_and_leave_nothing_finished(project, tmp_path):
    source = project / "notebooks" / "01_stub.py"
    source.write_text(STUB.replace("time.sleep(pause)", "raise RuntimeError('the reason')"))
    out = tmp_path / "out"
    failures = run(project, out, jobs=2)
    assert "the reason" in failures["01_stub"]
    assert failures["02_stub"] == ""
    assert finished(out) == ["02_stub"]
    source.write_text(STUB.replace("ledger.publish()", "pass"))
    assert "published 0 ledgers" in run(project, out)["01_stub"]
    assert finished(out) == ["02_stub"]


def test_a_failed_rerun_keeps_no_stale_result(project, done):
    source = project / "notebooks" / "01_stub.py"
    source.write_text(STUB.replace("time.sleep(pause)", "raise RuntimeError"))
    run(project, done)
    stamp = results.Result(done, "01_stub", "book").stamp()
    assert stamp is None or stamp.inputs != provenance.inputs(reproduce.read_source(source), project)


def test_a_full_disk_fails_the_notebook_and_keeps_the_old_result(project, done, monkeypatch):
    before = [results.Result(done, name, "book").stamp() for name in finished(done)]
    synced = []

    def fills_up(descriptor):
        synced.append(descriptor)
        if len(synced) % 3 == 0:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fills_up)
    monkeypatch.setattr(reproduce, "require_writable", lambda out: None)
    failures = run(project, done, fresh=True)
    assert all("No space left" in message for message in failures.values())
    assert [results.Result(done, name, "book").stamp() for name in finished(done)] == before
    assert not [path for path in done.rglob(".*.*") if path.parent.name != ".partial"]


@pytest.mark.parametrize("moves", range(4))
def test_a_run_ended_between_two_renames_leaves_the_old_or_the_new_result(project, done, monkeypatch, moves):
    """Random moments hardly ever fall here, see the attack ``kills``; this hits each gap between renames once."""
    result, rename, count = results.Result(done, "01_stub", "book"), os.replace, iter(range(100))
    old = result.stamp()

    class Ended(BaseException):
        pass

    def end(source, target):
        if next(count) == 3 + moves:  # after the three files, whose temporary names are renamed too
            raise Ended
        rename(source, target)

    executed = nbformat.read(result.files["notebook"], 4)
    executed.metadata["mark"] = "new"
    monkeypatch.setattr(os, "replace", end)
    with pytest.raises(Ended):
        results.store(result, executed, old)
    monkeypatch.undo()
    assert result.stamp() == (old if moves < 2 else None)
    messages = []
    run(project, done, messages=messages)
    assert messages == ["01_stub: up to date", "02_stub: up to date"]
    new = nbformat.read(result.files["notebook"], 4).metadata.get("mark") == "new"
    assert new == (moves > 0)
    assert result.claims()


def test_unwritable_folders_and_missing_kernels_are_bad_input(project, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match="^out must be a folder"):
        run(project, tmp_path / "file")
    monkeypatch.setattr(reproduce, "LAUNCHER", "no_such_kernel")
    with pytest.raises(ValueError, match="^kernel must be installed"):
        run(project, tmp_path / "out")


def start(project, out, pause, stdout=subprocess.DEVNULL):
    command = [sys.executable, "-c", RUN, str(project), str(out), str(pause)]
    return subprocess.Popen(command, stdout=stdout, stderr=subprocess.DEVNULL)


def test_two_runs_in_one_folder_wait_for_each_other(project, tmp_path):
    out = tmp_path / "out"
    runs = [start(project, out, 0.5, stdout=subprocess.PIPE) for _ in range(2)]
    said = "".join(child.communicate(timeout=PATIENCE)[0].decode() for child in runs)
    assert finished(out) == ["01_stub", "02_stub"]
    assert said.count("finished in") == said.count("up to date") == 2


def test_killed_runs_leave_whole_results_and_resume(project, tmp_path):
    """Kill -9 at random moments of a run of a few seconds; whatever has a stamp is whole, and a last run finishes."""
    out, moments = tmp_path / "out", random.Random(0)
    kept = {}
    for _ in range(6):
        child = start(project, out, 0.3)
        time.sleep(moments.uniform(0.2, 4.0))
        child.send_signal(signal.SIGKILL)
        child.wait()
        for name in ("01_stub", "02_stub"):
            result = results.Result(out, name, "book")
            if result.stamp_file.exists():
                assert result.stamp(), "a stamp vouches for files that are not whole"
                stamp = result.stamp_file.read_bytes()
                assert kept.setdefault(name, stamp) == stamp, "finished work was done again"
    run(project, out, settings={"pause": "0.3"}, jobs=2)
    assert finished(out) == ["01_stub", "02_stub"]
    assert all(results.Result(out, name, "book").claims() for name in kept)


def test_an_interrupt_ends_the_children(project, tmp_path):
    child, children, deadline = start(project, tmp_path / "out", 60), [], time.monotonic() + 120
    while len(children) < 2 and time.monotonic() < deadline:
        time.sleep(0.5)
        children = subprocess.run(["pgrep", "-P", str(child.pid)], capture_output=True, text=True).stdout.split()
    assert len(children) == 2
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=PATIENCE) != 0
    assert finished(tmp_path / "out") == []
    for pid in children:
        assert not os.path.exists(f"/proc/{pid}")


def test_comparison_counts_claims_and_names_outcomes_that_differ(project, done, tmp_path):
    result = results.Result(done, "01_stub", "book")
    assert results.compare(result, result) == (1, 1, [])
    other = tmp_path / "other"
    run(project, other, settings={"scale": "2"})
    changed = results.Result(other, "01_stub", "book")
    assert results.compare(changed, result) == (0, 1, ["1-none-stub: fails, published holds"])
