"""``rlvr measure``: what the theory says about logged groups of responses, without a model.

A row is a response, however it was logged (``rlvr_lib.trl.formats``). Rows of one prompt and one step are a group.
Alarms are those of ``rlvr_lib.theory.meter``. What varies between
prompts is told from what varies between samples by a beta law for the success rates J, fitted to all groups' counts.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.optimize import isotonic_regression
from scipy.stats import beta

from rlvr_lib.arguments import require
from rlvr_lib.theory.advantages import group_gain
from rlvr_lib.theory.meter import Rule, alarms
from rlvr_lib.trl.formats import Log, read
from rlvr_lib.trl.report import advice
from rlvr_lib.trl.step import Groups

GROUP_SIZES = (2, 4, 8, 16, 32, 64)
QUANTILES = (np.arange(200) + 0.5) / 200
BEGUN, DONE = 0.1, 0.9


def read_rows(file: Path, threshold: float | None = None) -> pd.DataFrame:
    """Rows of one log, with a column ``success`` of 0 and 1; a line that cannot be used is named."""
    log = read([str(file)], threshold=threshold)
    require(log.rows is not None, "file", f"{file} with a row a step", "a log with a row a response")
    return log.rows


def measure(log: Log | pd.DataFrame, rule: Rule = Rule()) -> dict[str, Any]:  # noqa: B008
    """Everything that is printed, as numbers; None for what the log does not say.

    Args:
        log: from ``rlvr_lib.trl.formats.read``, or rows with prompt, success, and where known step, length, level.
        rule: when to raise an alarm.
    """
    if isinstance(log, pd.DataFrame):
        log = Log("table", rows=log, length_unit="tokens" if "length" in log else None)
    report = {"format": log.format, "notes": log.notes, "unscored": log.unscored, "length_unit": log.length_unit}
    if log.rows is None:
        assert log.steps is not None
        report |= NOTHING | _of_steps(log.steps)
        series = log.steps
    else:
        rows = log.rows.assign(prompt=pd.Categorical(log.rows.prompt))
        groups = _groups(rows)
        report |= _of_rows(rows, groups)
        series = _per_step(rows, groups) if "step" in rows else None
    report["steps"] = None if series is None else len(series)
    timed = series is not None and pd.api.types.is_numeric_dtype(series.step)
    columns = {name: series[name].to_numpy() for name in ("loss", "success", "length") if timed and name in series}
    found = alarms(series.step.to_numpy(), **columns, rule=rule) if columns else []
    report["alarms"] = [asdict(alarm) for alarm in found]
    report["curve"] = _curve(series, rule.window if log.rows is None else 1) if timed else None
    report["advice"] = advice(report)
    return report


NOTHING: dict[str, Any] = {
    **dict.fromkeys(("groups", "responses", "group_size", "success", "success_rate", "dead_groups", "truncated")),
    **dict.fromkeys(("length", "levels", "quarters", "drift")),
    "group_sizes": [],
    "prompts": [],
}


def _groups(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a group of at least two responses: code of its prompt, step, count and correct ones."""
    code = rows.prompt.cat.codes.to_numpy().astype(np.int64)
    step, steps = pd.factorize(rows.step, sort=True) if "step" in rows else (np.zeros(len(rows), dtype=np.int64), None)
    keys, inverse = np.unique(step * (code.max() + 1) + code, return_inverse=True)
    count = np.bincount(inverse).astype(float)
    correct = np.bincount(inverse, rows.success.to_numpy(float))
    table = pd.DataFrame({"prompt": keys % (code.max() + 1), "count": count, "correct": correct})
    if steps is not None:
        table["step"] = np.asarray(steps)[keys // (code.max() + 1)]
    rows.attrs["group"] = inverse
    return table


def _of_rows(rows: pd.DataFrame, every: pd.DataFrame) -> dict[str, Any]:
    groups = every[every["count"] >= 2]
    require(len(groups) > 0, "file", "groups of one response", "a group of at least two, to show a spread")
    count, correct = groups["count"].to_numpy(float), groups["correct"].to_numpy(float)
    mean, variance = success_moments(count, correct)
    size = round(float(np.median(count)))
    code = rows.prompt.cat.codes.to_numpy()
    responses, right = np.bincount(code).astype(float), np.bincount(code, rows.success.to_numpy(float))
    seen = np.flatnonzero(responses)
    rate = right[seen] / responses[seen]
    prompts = {"prompt": rows.prompt.cat.categories[seen].astype(str), "responses": responses[seen].astype(int)}
    prompts["success_rate"], prompts["success_std"] = rate, np.sqrt(rate * (1 - rate))
    lengths = None
    if "length" in rows:
        length = rows.length.to_numpy(float)
        prompts["length"] = np.bincount(code, length)[seen] / responses[seen]
        parts = {"mean": length, "correct": length[rows.success == 1], "wrong": length[rows.success == 0]}
        lengths = {name: float(part.mean()) if len(part) else None for name, part in parts.items()}
    unanimous = ((rate == 0) | (rate == 1)) & (responses[seen] >= 2)
    values = Groups(count, correct).values()
    share, dead = correct / count, (correct == 0) | (correct == count)
    owner = groups.prompt.to_numpy()
    spread = np.sqrt(share * (1 - share))
    errors = {"success_rate": share, "success_std": spread, "dead_groups": dead.astype(float)}
    quarters = _quarters(rows, groups)
    return (
        values
        | {f"{name}_error": _error(value, owner) for name, value in errors.items()}
        | {
            "success": values["success_rate"],
            "groups": len(groups),
            "responses": int(count.sum()),
            "group_size": size,
            "between_prompts_std": math.sqrt(variance),
            "all_failed": float((correct == 0).mean()),
            "all_solved": float((correct == count).mean()),
            "prompts_tried": len(seen),
            "prompts_never": int((unanimous & (rate == 0)).sum()),
            "prompts_always": int((unanimous & (rate == 1)).sum()),
            "share_unanimous": float(responses[seen][unanimous].sum() / responses.sum()),
            "truncated": float(rows.truncated.mean()) if "truncated" in rows and rows.truncated.notna().any() else None,
            "group_sizes": group_sizes(success_law(mean, variance), sorted({*GROUP_SIZES, size, 2 * size})),
            "length": lengths,
            "levels": _levels(rows),
            "quarters": quarters,
            "drift": _drift(quarters),
            "within_quarters_std": _root_mean_square([row["between_prompts_std"] for row in quarters or []]),
            "prompts": pd.DataFrame(prompts).to_dict("records"),
        }
    )


def _of_steps(steps: pd.DataFrame) -> dict[str, Any]:
    """What a row a step says; without a signal are steps whose loss is zero, to rounding."""
    found: dict[str, Any] = {}
    if "success" in steps:
        success = steps.success.dropna()
        found["success"] = found["success_rate"] = float(success.mean())
    if "loss" in steps:
        loss = steps.loss.dropna().abs()
        silent = float((loss <= 1e-6).mean())
        found["dead_groups"] = silent if silent > 0 else None
        found["loss_median"] = float(loss[loss > 1e-6].median()) if silent < 1 else None
    if "length" in steps:
        found["length"] = {"mean": float(steps.length.mean()), "correct": None, "wrong": None}
    if "truncated" in steps:
        found["truncated"] = float(steps.truncated.mean())
    return found


def _error(value: Float[np.ndarray, " G"], owner: np.ndarray) -> float | None:
    """Standard error of a mean over groups, whose groups of one prompt are not independent."""
    _, code = np.unique(owner, return_inverse=True)
    sums = np.bincount(code, value - value.mean())
    n = len(sums)
    return float(np.sqrt((sums**2).sum() * n / (n - 1)) / len(value)) if n > 1 else None


def _root_mean_square(values: list[float]) -> float | None:
    return float(np.sqrt(np.mean(np.square(values)))) if values else None


def _quarters(rows: pd.DataFrame, groups: pd.DataFrame) -> list[dict[str, Any]] | None:
    """Four parts of the steps, so that a drift of all prompts is not taken for a spread between them."""
    if "step" not in groups or not pd.api.types.is_numeric_dtype(groups.step):
        return None
    steps = np.unique(groups.step)
    if len(steps) < 4:
        return None
    found = []
    for part in np.array_split(steps, 4):
        inside = groups[groups.step.between(part[0], part[-1])]
        count, correct = inside["count"].to_numpy(float), inside.correct.to_numpy(float)
        share, owner = correct / count, inside.prompt.to_numpy()
        quarter = {
            "from": part[0], "to": part[-1], "groups": len(inside), "success_rate": float(share.mean()),
            "error": _error(share, owner), "dead_groups": float(((share == 0) | (share == 1)).mean()),
            "between_prompts_std": math.sqrt(success_moments(count, correct)[1]),
        }  # fmt: skip
        mine = rows.step.between(part[0], part[-1])
        for name in ("length", "truncated"):
            if name in rows:
                quarter[name] = float(rows[name][mine].mean())
        found.append(quarter)
    return found


def _drift(quarters: list[dict[str, Any]] | None) -> dict[str, float | None] | None:
    if not quarters:
        return None
    first, last = quarters[0], quarters[-1]
    known = first["error"] is not None and last["error"] is not None
    error = math.hypot(first["error"], last["error"]) if known else None
    return {"change": last["success_rate"] - first["success_rate"], "error": error}


def _per_step(rows: pd.DataFrame, groups: pd.DataFrame) -> pd.DataFrame:
    """A row a step: success with its error, length, and where log-probabilities are known the loss of GRPO."""
    share = groups.assign(success=groups.correct / groups["count"]).groupby("step").success
    table = share.agg(success="mean", success_error="sem")
    if "length" in rows:
        table["length"] = rows.groupby("step").length.mean()
    if "log_prob" in rows and rows.log_prob.notna().all():
        group = rows.attrs["group"]
        mean = (groups.correct / groups["count"]).to_numpy()[group]
        sigma = np.sqrt(mean * (1 - mean))
        advantage = np.divide(rows.success - mean, sigma, out=np.zeros(len(rows)), where=sigma > 0)
        table["loss"] = -(advantage * rows.log_prob).groupby(rows.step).mean()
    return table.reset_index()


def _curve(series: pd.DataFrame, window: int) -> dict[str, list] | None:
    """At most 120 points of what is drawn over the steps."""
    blocks = np.array_split(np.arange(len(series)), min(len(series), max(len(series) // window, 1), 120))
    found: dict[str, list] = {"step": [], "success": []}
    for block in blocks:
        part = series.iloc[block]
        found["step"].append(part.step.iloc[-1].item())
        found["success"].append(float(part.success.mean()) if "success" in part else math.nan)
        if "loss" in part:
            size = part.loss.abs()
            found.setdefault("loss", []).append(float(size[size > 1e-6].median()))
        if "success_error" in part and len(series) <= 120:
            found.setdefault("success_error", []).append(float(part.success_error.iloc[0]))
    return found


def success_moments(count: Float[np.ndarray, " P"], correct: Float[np.ndarray, " P"]) -> tuple[float, float]:
    """Mean of J over prompts, and its variance without that of sampling, by unbiased moments.

    J^2 of a group is estimated by the share of its pairs of responses that are both correct.
    """
    mean = float((correct / count).mean())
    square = float((correct * (correct - 1) / (count * (count - 1))).mean())
    other = mean**2 - float((correct / count).var()) / max(len(count) - 1, 1)
    return mean, min(max(square - other, 0.0), mean * (1 - mean))


def success_law(mean: float, variance: float) -> Float[np.ndarray, " n"]:
    """200 equally likely values of J, by the beta law of that mean and variance over prompts."""
    limit = mean * (1 - mean)
    if variance <= 1e-9 * max(limit, 1e-300):
        return np.full(len(QUANTILES), mean)
    concentration = limit / min(variance, 0.999 * limit) - 1
    return beta.ppf(QUANTILES, mean * concentration, (1 - mean) * concentration)


def group_sizes(success: Float[np.ndarray, " n"], sizes: list[int]) -> list[dict[str, float | int | None]]:
    """For every group size: dead groups, and the share of the gain of infinite groups that is left (I6, chapter 4).

    ``grpo_gain`` and ``dr_grpo_gain`` are the mean gain over prompts, over that of infinite groups; ``grpo_gain``
    divides by the population deviation, ``grpo_gain_sample_std`` by the one with G - 1 below the squares, as TRL does.
    """
    spread = np.sqrt(success * (1 - success))

    def left(gain: np.ndarray, of_infinite: np.ndarray) -> float | None:
        return float(gain.mean() / of_infinite.mean()) if spread.any() else None

    return [
        {
            "group_size": size,
            "dead_groups": float((success**size + (1 - success) ** size).mean()),
            "grpo_gain": left(group_gain(success, size), spread),
            "grpo_gain_sample_std": left(group_gain(success, size, bessel=True), spread),
            "dr_grpo_gain": left(group_gain(success, size, normalize=False), spread**2),
            "std_boost": left(group_gain(success, size), group_gain(success, size, normalize=False)),
        }
        for size in sizes
    ]


def _levels(rows: pd.DataFrame) -> list[dict[str, Any]] | None:
    """Success of each level, its horizon over the one before, the hand-off exponent and the wait (chapter 3).

    The exponent kappa of y_harder = y_easier^kappa is that of all rows together, so it is meant for the rows of one
    moment. The wait needs those of a run. Both are of success as it is, because chance is not known here.
    """
    if "level" not in rows:
        return None
    table = rows.groupby("level").success.agg(responses="count", success_rate="mean").reset_index()
    log = np.log(table.success_rate.where(table.success_rate.between(0, 1, inclusive="neither")))
    if pd.api.types.is_numeric_dtype(table.level):
        table["ratio"] = (table.level / table.level.shift()).where(table.level.shift() > 0)
    table["handoff"] = log / log.shift()
    table["wait_over_rise"] = [math.nan, *(_wait_over_rise(rows, *pair) for pair in pairwise(table.level))]
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _wait_over_rise(rows: pd.DataFrame, easier: object, harder: object) -> float:
    """Steps from success 0.9 of one level to 0.1 of the next, over those from 0.1 to 0.9 of the next.

    Negative where the next level begins before this one is done. NaN where one of the three is not passed in the rows.
    """
    if "step" not in rows or not pd.api.types.is_numeric_dtype(rows.step):
        return math.nan
    done, begun, ended = (_passing(rows, *at) for at in ((easier, DONE), (harder, BEGUN), (harder, DONE)))
    return (begun - done) / (ended - begun) if ended > begun else math.nan


def _passing(rows: pd.DataFrame, level: object, success: float) -> float:
    """The step at which a level passes a success rate, in the rising curve that fits its rows best."""
    by_step = rows[rows.level == level].groupby("step").success.agg(["mean", "count"])
    if by_step.empty:
        return math.nan
    rising = isotonic_regression(by_step["mean"].to_numpy(), weights=by_step["count"].to_numpy(float)).x
    passes = rising[0] < success <= rising[-1]
    return float(by_step.index[np.argmax(rising >= success)]) if passes else math.nan
