"""``rlvr measure``: what the theory says about logged groups of responses, without a model.

A row is a response: ``prompt`` (its name), ``reward``, ``length`` in tokens, and where known ``step`` and ``level`` (of
difficulty; a number where levels are horizons). Rows of one prompt and one step are a group. What varies between
prompts is told from what varies between samples by a beta law for the success rates J, fitted to all groups' counts.
"""

from __future__ import annotations

import json
import math
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
from rlvr_lib.trl.step import Groups

GROUP_SIZES = (2, 4, 8, 16, 32, 64)
REQUIRED, OPTIONAL = ("prompt", "reward", "length"), ("step", "level")
QUANTILES = (np.arange(200) + 0.5) / 200
BEGUN, DONE = 0.1, 0.9


def read_rows(file: Path, threshold: float | None = None) -> pd.DataFrame:
    """Rows of a JSON-lines file, with a column ``success`` of 0 and 1; a line that cannot be used is named."""
    require(Path(file).is_file(), "file", str(file), "a JSON-lines file that exists")
    lines = enumerate(Path(file).read_text().splitlines(), 1)
    rows = [_row(line, f"line {number} of {file}", threshold) for number, line in lines if line.strip()]
    require(bool(rows), "file", f"{file} without rows", "a file with at least one group")
    return pd.DataFrame(rows)


def _row(line: str, where: str, threshold: float | None) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where} must be JSON: {error}") from None
    missing = [name for name in REQUIRED if not isinstance(row, dict) or row.get(name) is None]
    require(not missing, where, f"no {', '.join(missing)}", f"an object with {REQUIRED}")
    prompt, reward, length = (row[name] for name in REQUIRED)
    number = isinstance(reward, int | float) and math.isfinite(reward)
    usable = number and (threshold is not None or reward in (0, 1))
    require(usable, f"reward in {where}", reward, "0 or 1, or used with --threshold")
    whole = isinstance(length, int | float) and 1 <= length < math.inf and length == int(length)
    require(whole, f"length in {where}", length, "a whole number of tokens, at least 1")
    success = float(reward if threshold is None else reward >= threshold)
    name = prompt if isinstance(prompt, str) else json.dumps(prompt)
    kept = {name: row[name] for name in OPTIONAL if row.get(name) is not None}
    return {"prompt": name, "length": int(length), "success": success} | kept


def measure(rows: pd.DataFrame) -> dict[str, Any]:
    """Everything that is printed, as numbers; None for what the rows do not say."""
    keys = ["prompt", *(["step"] if "step" in rows else [])]
    groups = rows.groupby(keys, sort=False, dropna=False).success.agg(["count", "sum"])
    groups = groups[groups["count"] >= 2]
    require(len(groups) > 0, "file", "groups of one response", "a group of at least two, to show a spread")
    count, correct = groups["count"].to_numpy(float), groups["sum"].to_numpy(float)
    mean, variance = success_moments(count, correct)
    size = round(float(np.median(count)))
    named = {"responses": ("success", "size"), "success_rate": ("success", "mean"), "length": ("length", "mean")}
    prompts = rows.groupby("prompt", sort=False).agg(**named)
    rate = prompts.success_rate
    lengths = {"mean": rows.length, "correct": rows.length[rows.success == 1], "wrong": rows.length[rows.success == 0]}
    return Groups(count, correct).values() | {
        "groups": len(groups),
        "responses": int(count.sum()),
        "group_size": size,
        "between_prompts_std": math.sqrt(variance),
        "all_failed": float((correct == 0).mean()),
        "all_solved": float((correct == count).mean()),
        "group_sizes": group_sizes(success_law(mean, variance), sorted({*GROUP_SIZES, size})),
        "length": {name: float(length.mean()) if len(length) else None for name, length in lengths.items()},
        "levels": _levels(rows),
        "prompts": prompts.assign(success_std=np.sqrt(rate * (1 - rate))).reset_index().to_dict("records"),
    }


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


def to_json(report: dict[str, Any]) -> str:
    """The report as JSON."""
    return json.dumps(report, indent=1, default=float)


def to_text(report: dict[str, Any]) -> str:
    """The report as tables of its numbers: those of all rows, then by group size, by level and by prompt."""
    numbers = {name: value for name, value in report.items() if isinstance(value, int | float)}
    numbers |= {f"length, {name}": value for name, value in report["length"].items()}
    known = pd.Series(numbers, dtype=object).dropna()
    prompts = pd.DataFrame(report["prompts"]).sort_values("success_rate")
    tables = {"by group size": pd.DataFrame(report["group_sizes"]), "by prompt, the hardest first": prompts}
    if report["levels"]:
        tables["by level"] = pd.DataFrame(report["levels"])
    said = [f"{report['responses']} responses in {report['groups']} groups of {report['group_size']} (median)"]
    said += [known.to_string(float_format="{:.3f}".format)]
    for name, table in tables.items():
        text = table.to_string(index=False, float_format="{:.3f}".format, max_rows=20, max_colwidth=40)
        said += ["", name, text]
    return "\n".join(said)


def draw(report: dict[str, Any], file: Path) -> None:
    """Draw success over prompts and gain over group sizes."""
    require(file.suffix in (".png", ".pdf", ".svg"), "plot", str(file), "a file name ending in .png, .pdf or .svg")
    import matplotlib as mpl

    mpl.use("agg")
    from rlvr_lib import figures

    figures.set_style()
    figure, axes = figures.panels(columns=2)
    left, right = np.ravel(axes)
    left.hist([row["success_rate"] for row in report["prompts"]], bins=np.linspace(0, 1, 17))
    left.set(xlabel="success rate of a prompt", ylabel="prompts")
    shares = ["grpo_gain", "dr_grpo_gain", "dead_groups"]
    table = pd.DataFrame(report["group_sizes"], dtype=float)
    table.plot("group_size", shares, ax=right, marker="o", xlabel="group size", ylabel="share")
    right.set_xscale("log", base=2)
    right.set_xticks(GROUP_SIZES, GROUP_SIZES)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)
