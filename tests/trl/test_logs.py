"""Logged groups without a model: the numbers, the text, the plot, and what is refused."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from rlvr_lib import cli, group_gain
from rlvr_lib.trl.logs import group_sizes, measure, read_rows, success_law, success_moments
from rlvr_lib.trl.report import draw, to_json, to_text

RNG = np.random.default_rng(0)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_of(counts, size=8, **extra):
    return [
        {"prompt": f"p{number}", "reward": int(sample < correct), "length": 10 + 2 * (sample < correct)} | extra
        for number, correct in enumerate(counts)
        for sample in range(size)
    ]


def test_counts_are_reported_as_they_are(tmp_path):
    report = measure(read_rows(write(tmp_path / "g.jsonl", rows_of([0, 2, 8, 6]))))
    assert (report["groups"], report["responses"], report["group_size"]) == (4, 32, 8)
    assert report["success_rate"] == 0.5
    assert (report["all_failed"], report["all_solved"]) == (0.25, 0.25)
    assert report["success_std"] == pytest.approx(2 * np.sqrt(2 * 6) / 8 / 4)
    assert report["length"] == {"mean": 11.0, "correct": 12.0, "wrong": 10.0}
    assert [row["success_rate"] for row in report["prompts"]] == [0, 0.25, 1, 0.75]
    assert report["levels"] is None
    assert json.loads(to_json(report))["groups"] == 4
    said = to_text(report)
    assert re.search(r"all_failed +0\.25", said)
    assert re.search(r"length, correct +12\.0", said)
    assert said.index(" p0 ") < said.index(" p1 ") < said.index(" p3 ")


def test_groups_are_told_apart_by_step(tmp_path):
    rows = [row | {"step": step} for step in (0, 1) for row in rows_of([0, 4])]
    report = measure(read_rows(write(tmp_path / "g.jsonl", rows)))
    assert (report["groups"], report["group_size"], len(report["prompts"])) == (4, 8, 2)


def test_law_of_success_is_found_without_the_sampling_noise():
    """Mean and variance of J over 20,000 prompts from groups of 4: 6 standard errors, and the naive variance fails."""
    success = RNG.beta(2, 3, 20_000)
    correct = RNG.binomial(4, success).astype(float)
    mean, variance = success_moments(np.full(20_000, 4.0), correct)
    assert mean == pytest.approx(0.4, abs=0.01)
    assert variance == pytest.approx(0.04, abs=0.004)
    assert abs((correct / 4).var() - 0.04) > 0.02
    law = success_law(mean, variance)
    np.testing.assert_allclose([law.mean(), law.var()], [mean, variance], rtol=0.02)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.02, 0.98), st.floats(0, 0.9), st.integers(2, 40))
def test_gain_left_is_a_share_that_grows_with_the_group(mean, share, size):
    law = success_law(mean, share * mean * (1 - mean))
    small, large = group_sizes(law, [size, size + 1])
    assert 0 < small["grpo_gain"] <= large["grpo_gain"] <= 1 + 1e-9
    assert small["dr_grpo_gain"] == pytest.approx(1 - 1 / size)
    assert small["dead_groups"] >= large["dead_groups"]


def test_prompts_all_alike_lose_what_i6_says():
    (row,) = group_sizes(success_law(0.3, 0.0), [4])
    assert row["grpo_gain"] == pytest.approx(group_gain(0.3, 4) / np.sqrt(0.21))
    assert row["dead_groups"] == pytest.approx(0.3**4 + 0.7**4)


def test_the_deviation_that_trl_divides_by_leaves_less_gain():
    """The sample deviation exceeds the population one by sqrt(G / (G - 1)) in every group, whatever J."""
    for row in group_sizes(success_law(0.4, 0.1), [2, 4, 8]):
        size = row["group_size"]
        assert row["grpo_gain_sample_std"] == pytest.approx(row["grpo_gain"] * np.sqrt((size - 1) / size))


def test_gain_left_is_that_of_the_trainers_own_advantages():
    """Mean of A r over sampled groups of 4 with PyTorch's deviation, in units of sigma: 6 standard errors."""
    torch = pytest.importorskip("torch")
    rewards = torch.as_tensor(RNG.random((200_000, 4)) < 0.3, dtype=torch.float64)
    centred = rewards - rewards.mean(1, keepdim=True)
    per_group = torch.nan_to_num((centred / rewards.std(1, keepdim=True) * rewards).mean(1))
    (row,) = group_sizes(success_law(0.3, 0.0), [4])
    error = 6 * float(per_group.std()) / 200_000**0.5 / np.sqrt(0.21)
    assert float(per_group.mean()) / np.sqrt(0.21) == pytest.approx(row["grpo_gain_sample_std"], abs=error)
    assert abs(float(per_group.mean()) / np.sqrt(0.21) - row["grpo_gain"]) > 10 * error


def test_levels_give_ratios_and_hand_off_exponents(tmp_path):
    easy, hard = rows_of([7, 7], level=5), rows_of([1, 2], level=15)
    for row in hard:
        row["prompt"] += " hard"
    report = measure(read_rows(write(tmp_path / "g.jsonl", easy + hard)))
    first, second = report["levels"]
    assert first["ratio"] is None
    assert second["ratio"] == 3
    assert second["handoff"] == pytest.approx(np.log(3 / 16) / np.log(7 / 8))
    assert second["wait_over_rise"] is None
    assert re.search(r"level.*handoff", to_text(report))
    named = [row | {"level": f"level {row['level']}", "success": float(row["reward"])} for row in easy + hard]
    _, second = measure(pd.DataFrame(named))["levels"]
    assert "ratio" not in second
    assert second["handoff"] is not None


def saturating_head(lengths, sharpness, order=96):
    """Success of each length over the flow of one shared logit, with the softmax head of P2 (v1, Lemma A.7)."""
    logit = np.linspace(0.2, 12, 20_001)
    success, velocity = {}, 0.0
    for length in lengths:
        attention = 1 / (1 + (length - 1) * np.exp(-logit))
        right = order ** (sharpness * attention)
        others = (length - 1) * order ** (sharpness * (1 - attention) / (length - 1)) + order - length
        success[length] = ((order * right / (right + others) - 1) / (order - 1)) ** length
        velocity = velocity + np.gradient(success[length], logit) / length
    return np.concatenate([[0], np.cumsum(np.diff(logit) * 2 / (velocity[1:] + velocity[:-1]))]), success


def run_of(time, success, responses=500, steps=400):
    """Rows of a logged run from the first rise to the end of the last, with responses drawn at every step."""
    first, last = (time[np.searchsorted(success[n], y)] for n, y in ((min(success), 0.05), (max(success), 0.95)))
    grid, rng = np.linspace(first, last, steps), np.random.default_rng(0)
    return pd.DataFrame(
        {"prompt": f"{level} {step}", "step": step, "level": level, "length": level, "success": float(right)}
        for level, curve in success.items()
        for step, rate in enumerate(np.interp(grid, time, curve))
        for right in rng.random(responses) < rate
    )


def test_the_relay_of_p2_is_not_called_a_plateau():
    """With its own head, ratio 3 hands on at once and ratio 7 does not, though both exponents are beyond the limit."""
    relay = measure(run_of(*saturating_head((5, 15), 3.0)))
    plateau = measure(run_of(*saturating_head((5, 35), 5.0)))
    time, success = saturating_head((5, 15), 3.0)
    done, begun, ended = (time[np.searchsorted(success[n], y)] for n, y in ((5, 0.9), (15, 0.1), (15, 0.9)))
    wait = relay["levels"][1]["wait_over_rise"]
    assert wait == pytest.approx((begun - done) / (ended - begun), abs=0.15)  # 3 standard deviations over draws
    assert plateau["levels"][1]["wait_over_rise"] > 20
    assert f"{wait:.3f}" in to_text(relay)
    here = np.searchsorted(success[5], 0.9)
    assert np.log(success[15][here]) / np.log(success[5][here]) > 100


def test_a_wait_needs_all_of_its_passings():
    rows = run_of(*saturating_head((5, 15), 3.0), responses=200, steps=60)
    assert measure(rows[rows.step < 30])["levels"][1]["wait_over_rise"] is None
    assert measure(rows.drop(columns="step"))["levels"][1]["wait_over_rise"] is None
    assert measure(rows.assign(step=rows.step.astype(str)))["levels"][1]["wait_over_rise"] is None
    swapped = rows.assign(level=rows.level.map({5: 15, 15: 5}))
    assert measure(swapped)["levels"][1]["wait_over_rise"] < 0


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_plot_is_written(tmp_path, suffix):
    report = measure(read_rows(write(tmp_path / "g.jsonl", rows_of([1, 5, 8], level=3))))
    draw(report, tmp_path / "plots" / f"a{suffix}")
    assert (tmp_path / "plots" / f"a{suffix}").stat().st_size > 5000
    with pytest.raises(ValueError, match="plot must be"):
        draw(report, tmp_path / "a.txt")


def test_command_line(tmp_path):
    file = write(tmp_path / "g.jsonl", rows_of([0, 8]))
    run = CliRunner().invoke(cli.app, ["measure", str(file), "--plot", str(tmp_path / "g.png")])
    assert run.exit_code == 0
    assert "2 groups of 8" in run.output
    report = json.loads(CliRunner().invoke(cli.app, ["measure", str(file), "--json"]).output)
    assert report["group_sizes"][0]["grpo_gain"] is not None or report["between_prompts_std"] > 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "without rows"),
        ("not json", "line 1 of .* must be JSON"),
        ("[1, 2]", "no prompt, reward, length"),
        ('{"prompt": "a", "reward": 1}', "no length"),
        ('{"prompt": "a", "reward": 0.5, "length": 3}', "reward in line 1 of .* must be 0 or 1, or used with"),
        ('{"prompt": "a", "reward": NaN, "length": 3}', "reward in line 1"),
        ('{"prompt": "a", "reward": 1, "length": 0}', "length in line 1"),
        ('{"prompt": "a", "reward": 1, "length": Infinity}', "length in line 1"),
        ('{"prompt": "a", "reward": 1, "length": 3}', "groups of one response"),
    ],
)
def test_bad_files_are_refused(tmp_path, text, said):
    file = tmp_path / "g.jsonl"
    file.write_text(text)
    with pytest.raises(ValueError, match=said):
        measure(read_rows(file))
    with pytest.raises(ValueError, match="file that exists"):
        read_rows(tmp_path / "none.jsonl")


def test_partial_credit_needs_a_threshold(tmp_path):
    rows = [{"prompt": "a", "reward": 0.1 * k, "length": 5} for k in range(10)]
    report = measure(read_rows(write(tmp_path / "g.jsonl", rows), threshold=0.5))
    assert report["success_rate"] == 0.5
