import json
import signal
import subprocess
import sys
import time
from importlib.metadata import version

import pytest
from conftest import PATIENCE, ROOT
from typer.testing import CliRunner

from rlvr_lib import cli
from rlvr_lib.claims import UNSAMPLED, to_json
from rlvr_lib.files import sha256
from rlvr_lib.reproduction import notebooks, results
from rlvr_lib.reproduction.provenance import read_stamp
from rlvr_lib.reproduction.results import Result

FIRST = "01_gap_alignment"
SOME = [FIRST, f"evidence/{FIRST}"]


def rlvr(*arguments):
    command = [sys.executable, "-m", "rlvr_lib", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A chapter and its evidence under the smoke profile, through the command line."""
    out = tmp_path_factory.mktemp("smoke")
    ran = rlvr("reproduce", *SOME, "--profile", "smoke", "--jobs", 2, "--out", out)
    assert ran.returncode == 0, ran.stderr
    return out


def test_the_smoke_profile_judges_nothing_that_is_sampled(smoke):
    finished_and_unjudged(smoke, SOME)


@pytest.mark.slow
def test_smoke_profile_runs_every_notebook_end_to_end(tmp_path):
    ran = rlvr("reproduce", "--profile", "smoke", "--jobs", 2, "--out", tmp_path)
    assert ran.returncode == 0, ran.stderr
    finished_and_unjudged(tmp_path, notebooks.notebook_names(ROOT / "notebooks"))


def finished_and_unjudged(out, names):
    assert [result.name for result in results.finished_results(out)] == names
    for name in names:
        claims = Result(out, name, "smoke").claims()
        assert all(claim.outcome == "not-judged" for claim in claims if claim.kind not in UNSAMPLED)
        assert all(claim.profile == "smoke" for claim in claims)


def test_a_second_run_does_nothing(smoke):
    ran = rlvr("reproduce", *SOME, "--profile", "smoke", "--out", smoke)
    assert ran.returncode == 0
    assert "finished" not in ran.stdout
    assert f"{FIRST}: up to date" in ran.stdout


def test_claims_prints_the_published_ledger_and_any_other(smoke):
    published = rlvr("claims", "--json")
    claims = json.loads(published.stdout)
    assert {claim["profile"] for claim in claims} >= {"book"}
    assert len(json.loads(rlvr("claims", "--json", "--out", smoke).stdout)) <= len(claims)
    assert rlvr("claims").stdout.count("rejected:") >= len(claims)


def publish(smoke, root, **changes):
    """A project root whose published first claim reads differently from the smoke run's."""
    source, target = Result(smoke, FIRST, "smoke"), Result(root / "results", FIRST, "smoke")
    claims = source.claims()
    text = to_json([claims[0].model_copy(update=changes), *claims[1:]]).encode()
    target.stamp_file.parent.mkdir(parents=True)
    target.files["claims"].write_bytes(text)
    stamp = read_stamp(source.stamp_file)
    target.stamp_file.write_bytes(stamp.model_copy(update={"outputs": {"claims": sha256(text)}}).sealed())
    for name in ("notebooks", "rlvr_lib", "requirements.txt"):
        (root / name).symlink_to(ROOT / name)
    return root


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({}, 0, "agrees with the published results: {n} of {n}"),
        ({"outcome": "fails"}, 1, "holds, published fails"),
        ({"measured": 0.5}, 0, "agrees with the published results: {fewer} of {n}"),
    ],
)
def test_the_fresh_claims_are_compared_with_the_published_ones(smoke, tmp_path, monkeypatch, changes, code, said):
    root = publish(smoke, tmp_path, **changes)
    monkeypatch.setattr(notebooks, "project_root", lambda: root)
    ran = CliRunner().invoke(cli.app, ["reproduce", FIRST, "--profile", "smoke", "--out", str(smoke)])
    n = len(Result(smoke, FIRST, "smoke").claims())
    assert ran.exit_code == code, ran.output
    assert said.format(n=n, fewer=n - 1) in ran.output


def test_an_accepted_sabotage_is_exit_code_one(smoke, monkeypatch):
    monkeypatch.setattr(results, "accepted_sabotages", lambda result: ["1-x: accepted the sabotage 'y'"])
    ran = CliRunner().invoke(cli.app, ["reproduce", FIRST, "--profile", "smoke", "--out", str(smoke)])
    assert ran.exit_code == 1
    assert "accepted the sabotage" in ran.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_exit_code_130(tmp_path, number):
    command = [sys.executable, "-m", "rlvr_lib", "reproduce", "--profile", "smoke", "--out", str(tmp_path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while child.poll() is None and not list(tmp_path.glob(".partial/*.run-*")):
        time.sleep(0.1)
    child.send_signal(number)
    _, said = child.communicate(timeout=PATIENCE)
    assert child.returncode == 130
    assert "interrupted" in said
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["reproduce", "nothing"], "notebook must be one of"),
        (["reproduce", "--profile", "gpu"], "profile must be one of"),
        (["reproduce", FIRST, "--set", "steps=0"], "parameter steps must be int in"),
        (["reproduce", FIRST, "--set", "steps"], "--set must be name=value"),
        (["reproduce", "--set", "nothing=1"], "parameter must be one that"),
        (["reproduce", "--jobs", "0"], "--jobs"),
        (["reproduce", "--out", "/dev/null"], "out must be a folder"),
        (["claims", "--out", "/nowhere"], "out must be a folder of finished results"),
        (["train", "--steps", "2", "--out", "/dev/null/x"], "out must be a folder"),
        (["train", "--steps", "2", "--out", "{tmp}", "--engine", "gpu"], "engine must be"),
        (["train", "--steps", "2", "--out", "{tmp}", "--task", "chess"], "task must be word or many"),
        (["train", "--steps", "2", "--out", "{tmp}", "--estimator", "ppo"], "estimator must be one of"),
        (["train", "--steps", "2", "--out", "{tmp}", "--model", "no such place"], "model must be a folder"),
        (["train", "--steps", "2", "--out", "{tmp}", "--model", "/etc"], "model must be a readable checkpoint"),
        (["train", "--steps", "0", "--out", "{tmp}"], "--steps"),
        (["dance"], "No such command"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_two(arguments, named, tmp_path):
    ran = rlvr(*(argument.format(tmp=tmp_path) for argument in arguments))
    assert ran.returncode == 2
    assert named in ran.stderr
    assert "Traceback" not in ran.stderr


def test_train_writes_a_line_a_step_and_resumes_after_an_interrupt(tmp_path):
    ran = rlvr("train", "--steps", 3, "--out", tmp_path)
    assert ran.returncode == 0, ran.stderr
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2]
    names = {"success_rate", "gap_alignment", "gradient_snr", "critical_learning_rate", "optimal_baseline"}
    assert all(names <= line.keys() for line in lines)
    assert [line.get("world_size") for line in lines] == [1, None, None]
    again = rlvr("train", "--steps", 3, "--out", tmp_path, "--model", tmp_path / "model")
    assert again.returncode == 0, again.stderr


def test_doctor_says_what_is_installed():
    said = rlvr("doctor").stdout
    assert version("torch") in said
    for name in ("cores", "gpu", "kernel", "browser"):
        assert f"{name}: " in said


def test_import_is_quick_and_loads_no_torch():
    names = "Responses, gradient_gap, half_gain_step, group_gain"
    # Processor time, which a busy machine does not stretch as it stretches the clock's.
    probe = f"import sys, time; t = time.process_time(); from rlvr_lib import {names}; s = time.process_time() - t"
    command = [sys.executable, "-c", f"{probe}; print(s, any(m in sys.modules for m in ('torch', 'transformers')))"]
    best = []
    for _ in range(5):
        seconds, heavy = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        assert heavy == "False"
        best.append(float(seconds))
    assert min(best) < 0.5


def test_every_public_name_is_there():
    import rlvr_lib

    assert set(rlvr_lib.__all__) <= set(dir(rlvr_lib))
    for name in rlvr_lib.__all__:
        assert getattr(rlvr_lib, name).__doc__
    with pytest.raises(AttributeError, match="no_such_name"):
        getattr(rlvr_lib, "no_such_" + "name")
