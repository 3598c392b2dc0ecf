"""P2's experiment: the head, the update against an exact gradient, checkpoints, the report and the command."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from rlvr_lib.cli import app
from rlvr_lib.studies import published_relay as z96
from rlvr_lib.testbeds.checkpoint import save_tensors

SMALL = z96.Settings(
    horizons=(2, 4), group="Z6", names=4, batch=64, hidden=32, head_steps=150, evaluate_every=3, evaluation_prompts=200
)
HEAD = z96.pretrain_head(SMALL, 0)


def sharp(permutation):
    run = z96.Run(SMALL, 0, HEAD)
    with torch.no_grad():
        run.query[torch.arange(4), torch.tensor(permutation)] = 60.0
    return run


def test_the_right_clause_map_earns_every_reward():
    found = sharp([0, 1, 2, 3]).evaluate()
    assert found["greedy"] == found["right_paths"] == found["right_steps"] == found["permutations"] == [1.0, 1.0]


def test_a_permuted_clause_map_earns_the_reward_with_wrong_steps():
    found = sharp([1, 0, 3, 2]).evaluate()  # the four names of the long chains are all there
    assert found["greedy"][1] == found["permutations"][1] == 1.0
    assert found["right_steps"][1] == 0.0  # elements of a chain are distinct, so every swapped step is wrong


def test_a_clause_used_twice_is_no_permutation():
    found = sharp([1, 1, 2, 3]).evaluate()
    assert found["permutations"][1] == found["greedy"][1] == 0.0  # another sum, since the elements are distinct


def test_off_abelian_groups_a_permuted_clause_map_fails():
    settings = dataclasses.replace(SMALL, group="S3")
    run = z96.Run(settings, 0, z96.pretrain_head(settings, 0))
    for permutation, order_counts in (([0, 1, 2, 3], True), ([1, 0, 3, 2], False)):
        with torch.no_grad():
            run.query.zero_()[torch.arange(4), torch.tensor(permutation)] = 60.0
        found = run.evaluate()
        assert found["permutations"][1] == 1.0
        assert (found["greedy"][1] == found["right_paths"][1] == 1.0) == order_counts
        assert order_counts or found["greedy"][1] < 0.5


def laws(query, chains):
    """Law of the running product before each step and after the last, and each step's law given it, [b, x, y]."""
    read, _ = z96.attend(query, HEAD, chains)
    before = [torch.nn.functional.one_hot(chains.start, SMALL.order).float()]
    onward = []
    for step in range(read.shape[1]):
        onward.append((torch.relu(read[:, step, None] + HEAD["running"]) @ HEAD["output"]).softmax(-1))
        before.append(torch.einsum("bx,bxy->by", before[-1], onward[-1]))
    return before, onward


def exact_success(query, chains):
    return laws(query, chains)[0][-1].gather(1, chains.target[:, None])[:, 0]


def exact_entropy(query, chains):
    """Mean entropy of a step, the law of getting there held fixed: that is what the bonus differentiates."""
    before, onward = laws(query, chains)
    steps = [-(x.detach() * (law * law.log()).sum(-1)).sum(1) for x, law in zip(before[:-1], onward, strict=True)]
    return sum(steps) / len(steps)


def test_sampled_responses_follow_the_law():
    generator = torch.Generator().manual_seed(1)
    chains = z96.draw_chains(SMALL, 20_000, 2, generator)
    query = torch.randn(4, 4, generator=generator)
    success = exact_success(query, chains)
    with torch.no_grad():
        products = z96.respond(z96.attend(query, HEAD, chains)[0], HEAD, chains, generator)
    z = float(((products[:, -1] == chains.target).float() - success).sum() / (success * (1 - success)).sum().sqrt())
    assert abs(z) < 5.5  # false alarm below 1e-7


@pytest.mark.parametrize("entropy_bonus", [0.0, 0.5])
def test_the_mean_update_is_the_gradient_of_success_and_entropy(entropy_bonus):
    settings = dataclasses.replace(SMALL, horizons=(2,), batch=4000, entropy_bonus=entropy_bonus)
    start = torch.randn(4, 4, generator=torch.Generator().manual_seed(2))
    gradients = []
    for seed in range(40):
        run = z96.Run(settings, seed, HEAD)
        run.baseline = 0.3
        with torch.no_grad():
            run.query.copy_(start)
        run.update()
        gradients.append(-run.query.grad)
    chains = z96.draw_chains(settings, 40_000, 2, torch.Generator().manual_seed(3))
    query = start.clone().requires_grad_(True)
    value = exact_success(query, chains) + entropy_bonus * exact_entropy(query, chains)
    (expected,) = torch.autograd.grad(value.mean(), query)
    measured, spread = torch.stack(gradients).mean(0), torch.stack(gradients).std(0) / 40**0.5
    assert float(((measured - expected) / (spread + 5e-4)).abs().max()) < 6
    assert float(expected.abs().max()) > 10 * float(spread.max())


def test_a_resumed_run_takes_the_same_steps(tmp_path):
    z96.train(SMALL, 3, 9, tmp_path / "whole", progress=False)
    z96.train(SMALL, 3, 6, tmp_path / "parts", progress=False)
    report = z96.train(SMALL, 3, 9, tmp_path / "parts", progress=False)
    for name in (z96.CHECKPOINT, z96.METRICS, z96.REPORT):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    assert report["updates"] == 9
    rows = (tmp_path / "parts" / z96.METRICS).read_text().splitlines()
    assert [json.loads(row)["updates"] for row in rows] == [0, 3, 6, 9]


def test_another_seed_takes_other_steps(tmp_path):
    reports = [z96.train(SMALL, seed, 3, tmp_path / str(seed), progress=False) for seed in (0, 1)]
    assert reports[0]["curves"] != reports[1]["curves"]


def test_checkpoints_that_do_not_fit_are_refused(tmp_path):
    z96.train(SMALL, 0, 3, tmp_path, progress=False)
    for settings, seed in ((dataclasses.replace(SMALL, batch=65), 0), (SMALL, 1)):
        with pytest.raises(ValueError, match="must be a checkpoint of"):
            z96.train(settings, seed, 6, tmp_path, progress=False)
    with pytest.raises(ValueError, match="updates must be at least the 3 of the checkpoint"):
        z96.train(SMALL, 0, 2, tmp_path, progress=False)
    path = tmp_path / z96.CHECKPOINT
    save_tensors(tmp_path / "other" / z96.CHECKPOINT, {}, {"settings": {"batch": 64}})
    with pytest.raises(ValueError, match="must be a checkpoint of this command"):
        z96.train(SMALL, 0, 6, tmp_path / "other", progress=False)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match="content"):
        z96.train(SMALL, 0, 6, tmp_path, progress=False)
    path.write_bytes(bytes(data[:100]))
    with pytest.raises(ValueError, match="damaged"):
        z96.train(SMALL, 0, 6, tmp_path, progress=False)


def test_it_learns_two_step_chains():
    settings = dataclasses.replace(SMALL, horizons=(2,), batch=256, learning_rate=0.05)
    run = z96.Run(settings, 0, HEAD)
    for _ in range(150):
        run.update()
    found = run.evaluate()
    assert found["greedy"][0] > 0.9 > 0.6 > z96.Run(settings, 0, HEAD).evaluate()["greedy"][0]


def test_the_report_names_the_first_evaluation_that_is_visible_and_mastered():
    records = [
        {"updates": t, "greedy": [g], "sampled": [g], "right_paths": [0.0], "right_steps": [g]}
        for t, g in ((0, 0.005), (10, 0.012), (20, 0.2), (30, 0.995), (40, 0.98))
    ]
    report = z96.summarise(z96.Settings(horizons=(5,)), 0, records)
    assert report["visible"] == [10]
    assert report["visible_above_chance"] == [20]
    assert report["mastered"] == [30]
    assert z96.summarise(z96.Settings(horizons=(5,)), 0, records[:2])["mastered"] == [None]


def test_a_head_that_did_not_learn_is_refused():
    with pytest.raises(ValueError, match="head_steps must be enough"):
        z96.pretrain_head(dataclasses.replace(SMALL, head_steps=1), 0)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"horizons": ()}, "horizons"),
        ({"horizons": (5, 5)}, "horizons"),
        ({"horizons": (0,)}, "horizons"),
        ({"group": "Z3"}, "order"),
        ({"group": "Q8"}, "group"),
        ({"group": "Z"}, "group"),
        ({"names": 3}, "names"),
        ({"batch": 0}, "batch"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"baseline_decay": 1.5}, "baseline_decay"),
        ({"entropy_bonus": -1.0}, "entropy_bonus"),
        ({"evaluate_every": 0}, "evaluate_every"),
    ],
)
def test_bad_settings(changes, name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        dataclasses.replace(SMALL, **changes)


def test_chains_are_drawn_without_repetition():
    chains = z96.draw_chains(SMALL, 500, 4, torch.Generator().manual_seed(0))
    for drawn in (chains.name, chains.element):
        assert (np.diff(np.sort(drawn.numpy(), axis=1), axis=1) > 0).all()
    assert ((chains.start + chains.element.sum(1)) % 6 == chains.target).all()


def test_the_command_starts_and_resumes(tmp_path):
    command = ["z96", "--out", str(tmp_path), "--horizons", "2,3", "--batch", "8"]
    for updates in ("1", "2"):
        done = CliRunner().invoke(app, [*command, "--updates", updates])
        assert done.exit_code == 0, done.output
        assert f"{updates} updates" in done.output
    assert json.loads((tmp_path / z96.REPORT).read_text())["updates"] == 2


def test_unfinished_runs_are_collected(tmp_path):
    for seed in (0, 1):
        z96.train(SMALL, seed, 3, tmp_path / str(seed), progress=False)
    (tmp_path / "1" / z96.REPORT).unlink()
    done = CliRunner().invoke(app, ["z96-report", str(tmp_path / "0"), str(tmp_path / "1")])
    assert done.exit_code == 0
    runs = json.loads(done.output)["runs"]
    assert [run["seed"] for run in runs] == [0, 1]
    report = json.loads((tmp_path / "0" / z96.REPORT).read_text())
    assert {name: runs[0][name] for name in report} == report
    assert z96.Settings(**runs[1]["settings"]) == SMALL
