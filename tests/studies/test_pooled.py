"""The study of the pooled critical rate: order, resumption, shared files, outcomes; its runs are made up here."""

import json
import threading

import pytest

from rlvr_lib.studies.pooled import Outcome, Plan, Run, carry_out, misjudged, outcomes, pooled_rate, read, runs, table

PLAN = Plan(checkpoints=(0, 1, 2), pilot_steps=5, steps=7)
CRITICAL = {"sgd": 0.02, "adamw": 1e-4}


class Made:
    """Runs that die above twice their optimizer's critical rate unless it is lowered."""

    def __init__(self, stop_after=10**6):
        self.asked, self.stop_after = [], stop_after

    def __call__(self, **asked):
        if len(self.asked) == self.stop_after:
            raise KeyboardInterrupt
        self.asked.append(asked)
        critical = CRITICAL[asked["optimizer"]] * (1 + asked["checkpoint"])
        dead = asked["learning_rate"] > 2 * critical and not asked["lowered"]
        logged = [critical, None, critical / 10, critical * 10, critical][: asked["steps"]]
        return {"critical": logged, "success": [0.4, 0.1 if dead else 0.38, 0.0 if dead else 0.41]}


def test_a_plan_makes_each_run_once_at_multiples_of_its_own_pooled_rate(tmp_path):
    made = Made()
    found = carry_out(PLAN, tmp_path / "runs.jsonl", made)
    assert list(found) == list(runs(PLAN))
    assert len(found) == 3 * 2 * (1 + 5 + 2)
    for run, record in found.items():
        critical = CRITICAL[run.optimizer] * (1 + run.checkpoint)
        rate = {"sgd": 1e-4, "adamw": 1e-6}[run.optimizer] if run.pilot else run.multiple * critical
        assert record["learning_rate"] == pytest.approx(rate)
    for asked, run in zip(made.asked, found, strict=True):
        assert asked["steps"] == (5 if run.pilot else 7)
        assert asked["measured"] == (run.pilot or run.rescued)
        assert asked["lowered"] == run.rescued
        assert (asked["prompts"], asked["group_size"], asked["evaluation_prompts"]) == (16, 8, 400)


@pytest.mark.parametrize("stop_after", [0, 1, 20])
def test_an_interrupted_study_goes_on_where_it_was(tmp_path, stop_after):
    whole, file = tmp_path / "whole.jsonl", tmp_path / "runs.jsonl"
    carry_out(PLAN, whole, Made())
    with pytest.raises(KeyboardInterrupt):
        carry_out(PLAN, file, Made(stop_after))
    assert len(read(file, PLAN)) == stop_after
    rest = Made()
    carry_out(PLAN, file, rest)
    assert len(rest.asked) == 48 - stop_after
    assert file.read_bytes() == whole.read_bytes()
    assert carry_out(PLAN, file, Made(0)) == read(whole, PLAN)


def test_processes_share_a_file(tmp_path):
    file, errors = tmp_path / "runs.jsonl", []

    def work(index):
        try:
            carry_out(PLAN, file, Made(), (index, 2))
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert errors == []
    assert set(read(file, PLAN)) == set(runs(PLAN))
    assert len(file.read_text().splitlines()) == 48
    with pytest.raises(ValueError, match="part must be"):
        carry_out(PLAN, file, Made(), (2, 2))


def test_a_plan_may_grow_and_not_change(tmp_path):
    file = tmp_path / "runs.jsonl"
    carry_out(PLAN, file, Made())
    more = Made()
    carry_out(Plan(checkpoints=(0, 1, 2, 3), pilot_steps=5, steps=7), file, more)
    assert {asked["checkpoint"] for asked in more.asked} == {3}
    with pytest.raises(ValueError, match="line 1 of .* must be a run with the settings"):
        carry_out(Plan(checkpoints=(0,), pilot_steps=5, steps=8), file, Made())
    file.write_text("no run\n")
    with pytest.raises(ValueError, match="line 1 of .* must be a finished run"):
        carry_out(PLAN, file, Made())


def test_outcomes_say_which_runs_died(tmp_path):
    found = outcomes(carry_out(PLAN, tmp_path / "runs.jsonl", Made()), PLAN)
    by_kind = {(each.optimizer, each.multiple, each.rescued): each for each in found}
    assert len(by_kind) == 2 * 7
    for (_, multiple, rescued), each in by_kind.items():
        assert each.died == (multiple > 2 and not rescued,) * 3
        assert each.first == (0.4,) * 3
        assert each.lowest == ((0.0,) * 3 if each.died[0] else (0.38,) * 3)
    assert table(found).splitlines()[6].split() == ["sgd", "4", "yes", "3", "0", "0.410", "0.410", "0.410"]
    few = outcomes({Run("sgd", 1, 4.0): {"success": [0.4, 0.2]}, Run("sgd", 9, 1.0): {"success": [0.4]}}, PLAN)
    assert few == [Outcome("sgd", 4.0, False, (0.4,), (0.2,), (0.2,), (False,))]


def test_pooled_rate_is_the_median_and_single_rates_misjudge():
    logged = [1.0, None, 8.0, 0.2, 1.5]
    assert pooled_rate(logged) == 1.25
    assert misjudged(logged) == (0.2, 0.2)
    with pytest.raises(ValueError, match="critical must be such that more than half .* got '?1 of 2 rates"):
        pooled_rate([1.0, None])


@pytest.mark.parametrize(
    ("arguments", "name"),
    [({"optimizers": ("lion",)}, "optimizers"), ({"optimizers": ("sgd",)}, "pilot_rates"),
     ({"checkpoints": ()}, "checkpoints"), ({"multiples": (1.0, 1.0)}, "multiples"), ({"multiples": (-1.0,)}, "rate"),
     ({"rescued": (2.0,)}, "rescued"), ({"group_size": 1}, "group_size"), ({"steps": 0}, "steps")],
)  # fmt: skip
def test_bad_plans_are_named(arguments, name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        Plan(**arguments)


def test_the_file_is_json_lines(tmp_path):
    file = tmp_path / "runs.jsonl"
    carry_out(PLAN, file, Made())
    first = json.loads(file.read_text().splitlines()[0])
    assert first["run"] == {"optimizer": "sgd", "checkpoint": 0, "multiple": 0.0, "rescued": False}
    assert first["critical"][1] is None
