"""The ladder: tiny rungs are measured, resumed and shared; fits, verdicts and predictions on numbers made up here."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import linregress
from typer.testing import CliRunner

import rlvr_lib
from rlvr_lib import cli
from rlvr_lib.responses import success_rate
from rlvr_lib.studies import scale
from rlvr_lib.studies.scale import FINDINGS, RUNGS, Fit, Plan, Shape, carry_out, collect, measure, predictions, read
from rlvr_lib.studies.threshold.qwen import words
from rlvr_lib.theory.baseline import energy_ratio, gradient_variance, optimal_baseline
from rlvr_lib.theory.curvature import gradient_cosines

SMALL = Plan(("tiny", "wide"), (0, 1), prompts=4, lines=1, steps=2, clean_steps=2, noisy_steps=2)


@pytest.fixture
def tiny_rungs(monkeypatch, tmp_path):
    monkeypatch.setattr(scale, "RUNGS", {"tiny": Shape(8, 1), "wide": Shape(16, 1)})
    monkeypatch.setenv("RLVR_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(("rung", "parameters"), [("20k", 19_136), ("75k", 75_136), ("300k", 297_728)])
def test_a_rung_has_about_the_parameters_of_its_name(rung, parameters):
    width, layers = RUNGS[rung].width, RUNGS[rung].layers
    assert 16 * width + width + layers * (9 * width**2 + 2 * width + width // 2) == parameters


def test_quantities_are_those_of_the_enumerated_responses(tiny_rungs):
    qwen = SMALL.testbed("tiny", 0)
    found = measure(qwen, SMALL, 0)
    each = [qwen.enumerate(prompt) for prompt in words(qwen, 2, 4, 0)]
    J = [success_rate(r) for r in each]
    least = [gradient_variance(r, optimal_baseline(r)) for r in each]
    gradients = np.array([(r.prob * (r.reward - j)) @ r.score for r, j in zip(each, J, strict=True)])
    assert found["success"] == pytest.approx(np.mean(J))
    assert found["energy_ratio"] == pytest.approx(np.median([energy_ratio(r) for r in each]))
    mean = [gradient_variance(r, j) for r, j in zip(each, J, strict=True)]
    assert found["mean_price"] == pytest.approx(np.median(np.divide(mean, least)))
    assert found["zero_price"] == pytest.approx(np.median([gradient_variance(r, 0.0) for r in each] / np.array(least)))
    assert found["noise_scale"] == pytest.approx(np.median(mean / (gradients**2).sum(1)))
    assert found["cosine"] == pytest.approx(np.median(gradient_cosines(gradients)))


def test_times_are_those_of_untrained_rungs(tiny_rungs):
    found = scale.times(("tiny", "wide"))
    assert [each["parameters"] for each in found.values()] == [732, 2616]
    assert all(each["exact_1555"] > 0 and each["grpo_step"] > 0 for each in found.values())


def test_a_file_grows_by_what_it_lacks_whoever_writes_it(tiny_rungs, tmp_path):
    seen = []
    first = carry_out(SMALL, tmp_path / "a.jsonl", (0, 2), seen.append)
    assert list(first) == [("tiny", 0), ("tiny", 1)]
    whole = carry_out(SMALL, tmp_path / "a.jsonl", on_record=seen.append)
    assert list(whole) == [("tiny", 0), ("tiny", 1), ("wide", 0), ("wide", 1)]
    assert len(seen) == 4
    assert [record["parameters"] for record in seen] == [732, 732, 2616, 2616]
    alone = carry_out(SMALL, tmp_path / "b.jsonl")
    for cell, record in alone.items():
        assert record["quantities"] == whole[cell]["quantities"]
    other = Plan(SMALL.rungs, prompts=5, lines=1, steps=2, clean_steps=2, noisy_steps=2)
    with pytest.raises(ValueError, match="line 1 of"):
        read(tmp_path / "a.jsonl", other)
    (tmp_path / "a.jsonl").write_text("no JSON\n")
    with pytest.raises(ValueError, match="line 1 of"):
        read(tmp_path / "a.jsonl", SMALL)


def test_the_command_measures_reports_and_refuses(tiny_rungs, tmp_path, monkeypatch):
    monkeypatch.setattr(scale, "times", lambda: {"tiny": {}})
    monkeypatch.setattr(scale, "measure", lambda qwen, plan, seed: {"success": 0.5, "energy_ratio": float("nan")})
    monkeypatch.setattr(
        Plan, "testbed", lambda plan, rung, seed: scale.rung_testbed(Shape(8), scale.WarmStart(0, 0, 0))
    )
    asked = ["ladder", "--out", str(tmp_path / "a.jsonl"), "--rungs", "tiny", "--checkpoints", "2"]
    said = CliRunner().invoke(cli.app, [*asked, "--report", str(tmp_path / "a.json")], catch_exceptions=False)
    assert "tiny, seed 1: success 0.500" in said.output
    found = json.loads((tmp_path / "a.json").read_text())
    assert [each["quantities"]["energy_ratio"] for each in found["rungs"][0]["checkpoints"]] == [None, None]
    assert found["times"] == {"tiny": {}}
    refused = CliRunner().invoke(cli.app, [*asked, "--part", "3/2"])
    assert isinstance(refused.exception, ValueError)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"rungs": ()}, "rungs"),
        ({"seeds": (0, 0)}, "seeds"),
        ({"prompts": 3}, "prompts"),
        ({"prompts": 37}, "lines"),
        ({"lines": 13}, "lines"),
        ({"steps": 1}, "steps"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(wrong, named):
    with pytest.raises(ValueError, match=f"^{named} must be"):
        Plan(**wrong)


def test_a_fit_is_that_of_scipy():
    rng = np.random.default_rng(0)
    parameters = np.repeat([2e4, 7.5e4, 3e5], 3)
    value = rng.normal(size=9)
    fit, reference = Fit.of(parameters, value), linregress(np.log(parameters), value)
    assert fit.slope == pytest.approx(reference.slope)
    assert fit.half == pytest.approx(reference.stderr * 2.3646242515927844)
    at = fit.at(1e6)
    assert at[0] == pytest.approx(reference.intercept + reference.slope * np.log(1e6))
    assert fit.at(1e6, new=True)[1] < at[1] < at[0] < at[2]


def test_intervals_for_a_new_checkpoint_cover_it():
    rng, parameters, covered = np.random.default_rng(1), np.repeat([2e4, 7.5e4, 3e5], 4), 0
    for _ in range(400):
        fit = Fit.of(parameters, 0.3 * np.log(parameters) + rng.normal(size=12))
        _, low, high = fit.at(1e9, new=True)
        covered += low < 0.3 * np.log(1e9) + rng.normal() < high
    assert 360 < covered < 396


def made_up(line, noise=0.01, rungs=("20k", "75k", "300k"), seeds=4):
    """Records whose energy ratio is exp of a line in decades of parameters, and zigzags about it."""
    sizes = {"20k": 2e4, "75k": 7.5e4, "300k": 3e5, "elsewhere": 6e8}
    return [
        {
            "rung": rung,
            "seed": seed,
            "parameters": sizes[rung],
            "task": "word",
            "settings": {},
            "seconds": {},
            "quantities": {"energy_ratio": float(np.exp(line(np.log10(sizes[rung])) + noise * (-1) ** seed))},
        }
        for rung, seed in itertools.product(rungs, range(seeds))
    ]


@pytest.mark.parametrize(
    ("line", "options", "expected"),
    [
        (lambda x: 2.0, {}, "carries over"),
        (lambda x: x - 3, {}, "carries over"),
        (lambda x: 5.6 - x, {}, "fades"),
        (lambda x: 5.0 - x, {}, "reverses"),
        (lambda x: -1.0, {}, "reverses"),
        (lambda x: 0.01, {"noise": 1.0}, "cannot tell"),
        (lambda x: 2.0, {"seeds": 1}, "cannot tell"),
        (lambda x: 2.0, {"rungs": ("20k", "75k")}, "cannot tell"),
        (lambda x: 2.0, {"rungs": ("20k", "75k", "elsewhere")}, "cannot tell"),
    ],
)
def test_verdicts_follow_the_rule(line, options, expected):
    rows = {row["quantity"]: row for row in predictions(made_up(line, **options))}
    assert rows["energy_ratio"]["verdict"] == expected
    assert rows["crash"]["verdict"] == "cannot tell"
    assert rows["crash"]["low"] is None


def test_a_prediction_follows_the_line():
    row = next(row for row in predictions(made_up(lambda x: x - 3)) if row["quantity"] == "energy_ratio")
    assert row["size"] == pytest.approx(np.exp(np.log10(np.sqrt(0.6e9 * 7e9)) - 3), rel=1e-6)
    assert row["low"] < np.exp(np.log10(0.6e9) - 3) < np.exp(np.log10(7e9) - 3) < row["high"]
    assert row["slope_a_decade"][0] == pytest.approx(1)


def test_the_published_ladder_is_what_its_checkpoints_give():
    path = Path(rlvr_lib.__file__).parent / "data" / "ladder.json"
    assert path.stat().st_size < 10**6
    found = json.loads(path.read_text())
    records = [
        {**each, **{key: rung[key] for key in ("rung", "parameters", "task")}, "settings": found["settings"]}
        for rung in found["rungs"]
        for each in rung["checkpoints"]
    ]
    again = json.loads(json.dumps(collect(records)))
    assert again["rungs"] == found["rungs"]
    assert [row["quantity"] for row in found["predictions"]] == list(FINDINGS)
    for old, new in zip(found["predictions"], again["predictions"], strict=True):
        assert old["verdict"] == new["verdict"]
        for end in ("size", "low", "high"):
            assert old[end] == pytest.approx(new[end], rel=1e-6)
