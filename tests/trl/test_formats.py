"""Every format of every trainer, as its code writes it; what is refused; that nothing else happens than a refusal."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from rlvr_lib import cli
from rlvr_lib.trl.formats import read
from rlvr_lib.trl.logs import measure
from rlvr_lib.trl.report import to_html, to_json, to_text

STEPS, PROMPTS, SIZE = 4, 3, 4


def right(step, prompt, sample):
    return int(sample < (step + prompt) % (SIZE + 1))


def responses():
    return [(s, p, k, right(s, p, k)) for s in range(STEPS) for p in range(PROMPTS) for k in range(SIZE)]


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def ours(folder):
    lines(
        folder / "g.jsonl", [{"prompt": f"p{p}", "step": s, "reward": r, "length": 5 + r} for s, p, _, r in responses()]
    )


def verl(folder):
    for s in range(STEPS):
        lines(
            folder / f"{s}.jsonl",
            [
                {"input": f"p{p}", "output": "x" * (5 + r), "gts": "7", "score": 2.0 * r - 1, "step": s, "acc": bool(r)}
                for step, p, _, r in responses()
                if step == s
            ],
        )


def verl_of_scores(folder):
    rows = [{"input": f"p{p}", "output": "x" * (5 + r), "score": 2.0 * r - 1, "step": s} for s, p, _, r in responses()]
    lines(folder / "1.jsonl", rows)


def trl(folder):
    pytest.importorskip("pyarrow")
    import pandas as pd

    (folder / "completions").mkdir()
    for s in range(STEPS):
        table = [
            {
                "step": s,
                "prompt": [{"role": "user", "content": f"p{p}"}],
                "completion": [{"role": "assistant", "content": "x" * (5 + r)}],
                "accuracy": float(r),
                "advantage": 0.5,
            }
            for step, p, _, r in responses()
            if step == s
        ]
        pd.DataFrame(table).to_parquet(folder / "completions" / f"completions_{s:05d}.parquet")


def swift(folder):
    rows = []
    for s in range(STEPS):
        part = [(p, r) for step, p, _, r in responses() if step == s]
        texts = ["x" * (5 + r) for _, r in part]
        rows.append({"step": [f"{s}/{STEPS}"] * len(part), "prompt": [f"p{p}" for p, _ in part], "completion": texts,
                     "accuracy": [float(r) for _, r in part], "advantages": [0.1] * len(part)})  # fmt: skip
    lines(folder / "completions.jsonl", rows)


def nemo(folder):
    for s in range(STEPS):
        lines(
            folder / f"train_data_step{s}.jsonl",
            [
                {"content": ["…"], "rewards": [float(r)], "input_lengths": [7 + r], "token_ids": [[p, 1] + [9] * (5 + r)],  # noqa: E501
                 "token_loss_mask": [[0, 0] + [1] * (5 + r)], "generation_logprobs": [[0, 0] + [-0.5] * (5 + r)], "idx": k}  # noqa: E501
                for step, p, k, r in responses()
                if step == s
            ],
        )  # fmt: skip


def prime(folder):
    for s in range(STEPS):
        traces = [
            {"traces": [{"rewards": {"right": {"score": float(r), "weight": 1.0}}, "task": {"data": {"idx": p}},
                         "agent": {"trainable": True}, "completion": "x" * (5 + r)},
                        {"rewards": {}, "task": {"data": {"idx": p}}, "agent": {"trainable": False}}]}
            for step, p, _, r in responses()
            if step == s
        ]  # fmt: skip
        lines(folder / f"rollouts/step_{s}/train/all/traces.jsonl", traces)
        lines(folder / f"rollouts/step_{s}/train/effective/traces.jsonl", traces[:2])
        lines(folder / f"rollouts/step_{s}/eval/all/traces.jsonl", traces[:2])


def open_instruct(folder):
    rows = [
        {"step": s, "prompt_idx": p, "response_tokens": [1] * (5 + r), "reward": 10.0 * r, "finish_reason": "stop",
         "logprobs": [-0.5] * (5 + r)}
        for s, p, _, r in responses()
    ]  # fmt: skip
    lines(folder / "run_rollouts_000000.jsonl", rows)


MADE = {"ours": ours, "verl": verl, "trl": trl, "ms-swift": swift, "nemo-rl": nemo, "prime-rl": prime}
MADE |= {"open-instruct": open_instruct, "verl, scores": verl_of_scores}


@pytest.mark.parametrize("name", MADE)
def test_every_format_says_the_same(tmp_path, name):
    MADE[name](tmp_path)
    log = read([str(tmp_path)])
    report = measure(log)
    assert log.format == name.split(",")[0]
    share = np.array([[right(s, p, 0) + right(s, p, 1) + right(s, p, 2) + right(s, p, 3) for p in range(PROMPTS)]
                      for s in range(STEPS)]) / SIZE  # fmt: skip
    assert (report["groups"], report["responses"], report["group_size"]) == (
        STEPS * PROMPTS,
        STEPS * PROMPTS * SIZE,
        SIZE,
    )
    assert report["success"] == pytest.approx(share.mean())
    assert report["dead_groups"] == pytest.approx(np.mean((share == 0) | (share == 1)))
    assert report["length"]["wrong"] == 5
    assert report["length"]["correct"] == 6
    assert report["length_unit"] == ("tokens" if name in ("ours", "nemo-rl", "open-instruct") else "characters")
    assert [row["success_rate"] for row in report["quarters"]] == pytest.approx(share.mean(1))
    if name in ("nemo-rl", "open-instruct"):  # log-probability is -length / 2, so the loss of a group is sigma / 2
        spread = np.sqrt(share * (1 - share)).mean(1)
        assert report["curve"]["loss"] == pytest.approx(np.where(spread > 0, spread / 2, np.nan), nan_ok=True)


def test_several_rewards_are_combined_by_name_or_refused(tmp_path):
    rows = [{"prompt": "a", "completion": "x", "step": 0, "right": k % 2, "form": 1.0} for k in range(4)]
    lines(tmp_path / "c.jsonl", rows)
    with pytest.raises(ValueError, match="rewards in line 1 of .* must be one column, or chosen with --reward"):
        read([str(tmp_path)])
    assert measure(read([str(tmp_path)], rewards=["right"]))["success"] == 0.5
    assert measure(read([str(tmp_path)], rewards=["right", "form=0.1"], threshold=1))["success"] == 0.5
    with pytest.raises(ValueError, match="with the column none"):
        read([str(tmp_path)], rewards=["none"])
    with pytest.raises(ValueError, match="--reward must be NAME or NAME=WEIGHT"):
        read([str(tmp_path)], rewards=["right=x"])


def test_null_rewards_are_unscored(tmp_path):
    rows = [{"prompt": "a", "reward": value, "length": 3} for value in (None, 0, 1, None, 1)]
    lines(tmp_path / "g.jsonl", rows)
    report = measure(read([str(tmp_path)]))
    assert (report["unscored"], report["responses"], report["success"]) == (2, 3, pytest.approx(2 / 3))
    assert any("2 responses have no reward" in note for note in report["notes"])


def test_pickles_are_never_loaded(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was loaded",))

    import pickle

    (tmp_path / "a.pkl").write_bytes(pickle.dumps(Trap()))
    for place in (tmp_path, tmp_path / "a.pkl", tmp_path / "*.pkl"):
        with pytest.raises(ValueError, match="pickle, which is never loaded"):
            read([str(place)])
    (tmp_path / "a.jsonl").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="line 1 of .* must be JSON"):
        read([str(tmp_path)])


def test_a_log_with_a_row_a_step_raises_an_alarm(tmp_path):
    rng = np.random.default_rng(0)
    table = ["step,loss,reward_avg,avg_response_len"]
    for step in range(200):
        size = 5.0 if step < 120 else 50.0
        table.append(f"{step},{size * rng.lognormal(0, 0.5)},{0.7 if step < 160 else 0.1},100")
    (tmp_path / "log.csv").write_text("\n".join(table))
    report = json.loads(to_json(measure(read([str(tmp_path / "log.csv")]))))
    first = {alarm["kind"]: alarm["step"] for alarm in reversed(report["alarms"])}
    assert set(first) == {"loss", "success"}
    assert 120 < first["loss"] <= 140
    assert 160 < first["success"] <= 185
    assert "halve" in report["advice"][0]
    calm = [row for row in table if not row[0].isdigit() or int(row.split(",")[0]) < 120]
    (tmp_path / "log.csv").write_text("\n".join(calm))
    assert measure(read([str(tmp_path / "log.csv")]))["alarms"] == []


def test_page_is_escaped_and_stands_alone(tmp_path):
    rows = [{"prompt": "<script>alert(1)</script> & \x1b[31m$x_{", "reward": k % 2, "length": 3} for k in range(4)]
    lines(tmp_path / "g.jsonl", rows)
    out = tmp_path / "a.html"
    run = CliRunner().invoke(cli.app, ["measure", str(tmp_path / "g.jsonl"), "--html", str(out)])
    assert run.exit_code == 0
    assert "\x1b" not in run.output
    page = out.read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert 'src="' not in page


def test_lines_end_where_json_lines_end(tmp_path):
    (tmp_path / "g.jsonl").write_text('{"prompt": "a\u2028b\x85", "reward": 1, "length": 3}\n' * 2, encoding="utf-8")
    assert measure(read([str(tmp_path / "g.jsonl")]))["groups"] == 1


BAD = [
    '{"prompt": "a", "reward": 1, "length": 1e400}',
    '{"prompt": "a", "reward": 1, "length": 1' + "0" * 400 + "}",
    '{"prompt": "a", "reward": 1' + "0" * 400 + ', "length": 1}',
    "[" * 5000,
    '{"prompt": "a", "reward": 1, "length": 3, "step": [1]}',
    '{"prompt": "a", "reward": 1, "length": 3, "level": [1]}',
    '{"prompt": "a", "reward": 1, "length": 3, "level": 1}\n{"prompt": "a", "reward": 1, "length": 3, "level": "x"}',
    '{"prompt": "a", "reward": 1, "length": 3, "log_prob": "x"}',
    '{"prompt": "a", "reward": 1, "length": 3, "log_prob": -1e400}',
    '{"prompt": "a", "reward": 1, "length": 3, "step": 1}\n{"prompt": "a", "reward": 1, "length": 3}',
    '{"prompt": "a", "reward": null, "length": 3}',
    '{"prompt": ["a"], "completion": [1, 2]}',
    "\xff\xfe",
]


def invoke(path, *options):
    """Through ``main``'s rule: a ValueError is one line and exit code 2; anything else is a failure of the test."""
    run = CliRunner().invoke(cli.app, ["measure", str(path), *options])
    if isinstance(run.exception, ValueError):
        assert "\n" not in str(run.exception)
        return 2
    if run.exception is not None and not isinstance(run.exception, SystemExit):
        raise run.exception
    return run.exit_code


@pytest.mark.parametrize("text", BAD)
def test_bad_lines_are_refused_in_one_line(tmp_path, text):
    (tmp_path / "g.jsonl").write_bytes(text.encode("latin-1"))
    assert invoke(tmp_path / "g.jsonl") == 2


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.json"])
@pytest.mark.parametrize("data", [b"", b"\x00\xff", b"a,b\n1,2\n", b"{}", b"[1]"])
def test_bad_files_are_refused_in_one_line(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    assert invoke(tmp_path / name) == 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    ["prompt", "reward", "length", "step", "level", "input", "output", "score", "acc", "completion", "rewards", "task",
     "token_ids", "token_loss_mask", "traces", "response_tokens", "log_prob", "loss", "finish_reason", "logprobs"]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.dictionaries(NAMES, JSON, max_size=6), min_size=1, max_size=4))
def test_any_row_is_read_or_refused(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("fuzz") / "g.jsonl"
    lines(path, rows)
    try:
        report = measure(read([str(path)]))
    except ValueError as error:
        if "\n" in str(error):
            raise AssertionError(str(error)) from None
        return
    json.loads(to_json(report))
    assert to_text(report)


def test_a_page_of_a_log_with_steps(tmp_path):
    ours(tmp_path)
    assert "<svg" in to_html(measure(read([str(tmp_path)])))
