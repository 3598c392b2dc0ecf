"""The text model under TRL: its task, one run followed on held-out prompts, and the command."""

import json

import numpy as np
import pytest
import torch
from text_policies import BRIEF, SHORT, SMALL
from typer.testing import CliRunner

from rlvr_lib import cli
from rlvr_lib.testbeds.text import Sums, TextTestbed
from rlvr_lib.trl import run as trl_run
from rlvr_lib.trl import tasks
from rlvr_lib.trl.tasks import text_task
from rlvr_lib.trl.text_runs import run_text

# What peft and trl call, and transformers has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

RUN = {"optimizer": "sgd", "checkpoint": 0, "learning_rate": 0.01, "steps": 3, "measured": False, "lowered": False,
       "prompts": 2, "group_size": 4, "evaluate_every": 2, "evaluation_prompts": 20, "task": SHORT, "shape": SMALL,
       "warm_start": BRIEF}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLVR_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def test_task_has_no_held_out_problem_and_judges_like_the_testbed():
    task = text_task(SHORT, rows=50)
    assert not any(map(SHORT.held_out, task.data["prompt_number"]))
    assert task.data["prompt"][0] == SHORT.question(task.data["prompt_number"][0])
    tokens, mask = SHORT.demonstrations(task.data["prompt_number"], 0.5, torch.Generator().manual_seed(0))
    ids = [row[kept].tolist() for row, kept in zip(tokens, mask, strict=True)]
    rewards = task.reward(completion_ids=ids, prompt_number=task.data["prompt_number"])
    reward = SHORT.reward(task.data["prompt_number"], tokens[:, None], mask.sum(1)[:, None])
    assert rewards == reward[:, 0].double().tolist()
    assert 0 < sum(rewards) < 50


@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.01), ("adamw", 1e-3)])
def test_a_run_is_followed_on_held_out_prompts(optimizer, rate):
    found = run_text(**RUN | {"optimizer": optimizer, "learning_rate": rate, "measured": True})
    again = run_text(**RUN | {"optimizer": optimizer, "learning_rate": rate, "measured": True})
    assert {**found, "seconds": 0} == {**again, "seconds": 0}
    assert len(found["success"]) == 3  # before, after two steps, after all three
    assert len(found["critical"]) == 3
    assert len(found["logged"]["success_rate"]) == 3
    testbed = TextTestbed(SHORT, warm_start=BRIEF, shape=SMALL)
    assert found["success"][0] == testbed.held_out_success(20, 2**31 - 1).rate
    assert found["parameters"] == len(testbed.theta)
    json.dumps(found)


def test_without_measurements_only_the_first_step_is_measured(monkeypatch):
    """With a verifier that looks at the length, so that there is something to measure."""
    monkeypatch.setattr(Sums, "judge", lambda self, prompt, ids: len(ids) % 2 == 0)
    single, every = run_text(**RUN), run_text(**RUN | {"measured": True, "lowered": True})
    assert [rate is not None for rate in single["critical"]][1:] == [False, False]
    assert every["logged"]["warnings"][-1] is not None
    assert single["logged"]["rate_factor"] == [1.0, None, None]


def test_unknown_optimizer_is_named():
    with pytest.raises(ValueError, match="optimizer must be one of sgd, adamw, got 'lion'"):
        run_text(**RUN | {"optimizer": "lion"})


def test_command_line_trains_the_text_task(tmp_path, monkeypatch):
    def small(*arguments, **options):
        return TextTestbed(Sums(longest=12), warm_start=None, shape=SMALL)

    monkeypatch.setattr(trl_run, "TextTestbed", small)
    monkeypatch.setattr(tasks, "Sums", lambda: Sums(longest=12))
    options = ["--engine", "trl", "--steps", "2", "--group-size", "4", "--prompts", "2", "--report_to", "none"]
    ran = CliRunner().invoke(cli.app, ["train", "--task", "text", "--out", str(tmp_path), *options])
    assert ran.exit_code == 0, ran.output
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [0, 1]
    trained = TextTestbed(Sums(longest=12), model=str(tmp_path / "model"))
    assert np.isfinite(trained.theta).all()


def test_a_model_with_another_tokenizer_is_refused(tmp_path, monkeypatch):
    from rlvr_lib.testbeds.qwen import QwenTestbed

    QwenTestbed(warm_start=None).save(tmp_path / "model")
    ran = CliRunner().invoke(
        cli.app, ["train", "--engine", "trl", "--task", "text", "--model", str(tmp_path / "model"), "--steps", "1",
                  "--out", str(tmp_path / "out")],
    )  # fmt: skip
    assert isinstance(ran.exception, ValueError)
    assert "one with the tokenizer of the task text" in str(ran.exception)
