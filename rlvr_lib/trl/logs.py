"""``rlvr measure``: what the theory says about logged groups of responses, without a model.

A row is a response: ``prompt`` (its name), ``reward``, ``length`` in tokens, and where known ``step``, ``log_prob`` (of
the whole response, nats) and ``level`` (of difficulty; a number where levels are horizons). Rows of one prompt and one
step are a group. What varies between prompts is told apart from what varies between samples by a beta law for the
success rates J, fitted to the counts of all groups.
"""

from __future__ import annotations

import json
import math
import string
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.optimize import isotonic_regression
from scipy.stats import beta

from rlvr_lib.arguments import require
from rlvr_lib.theory.advantages import group_gain, power_gain
from rlvr_lib.theory.relay import handoff_exponent
from rlvr_lib.trl.step import Groups

GROUP_SIZES = (2, 4, 8, 16, 32, 64)
REQUIRED, OPTIONAL = ("prompt", "reward", "length"), ("step", "log_prob", "level")
QUANTILES = (np.arange(200) + 0.5) / 200
LABELS = {"grpo_gain": "GRPO", "dr_grpo_gain": "Dr.GRPO", "dead_groups": "dead groups"}
BEGUN, DONE = 0.1, 0.9
RELAY_LIMIT = math.log(BEGUN) / math.log(DONE)
TEXT = """\
{responses} responses in {groups} groups of {group_size} (median)
success rate {success_rate:.3f}; standard deviation within groups {success_std:.3f}, \
between prompts {between_prompts_std:.3f}
dead groups: {all_failed:.1%} all failed, {all_solved:.1%} all solved
gain left at this group size, of infinite groups: GRPO {here[grpo_gain_sample_std]:.1%} with the sample deviation \
(TRL's), {here[grpo_gain]:.1%} with the population one, Dr.GRPO {here[dr_grpo_gain]:.1%}
std: {std}
mean length {length[mean]:.1f} tokens: {length[correct]:.1f} of correct, {length[wrong]:.1f} of wrong responses \
(weights 1/length bend the direction where these differ)
"""
ENTROPY = """\
entropy of the correct responses {correct_entropy:.2f} nats \
(near 0 the price of the mean baseline grows as 1/(1 - J) when J nears 1)
"""


@dataclass(frozen=True)
class SuccessLaw:
    """The law of success rates over prompts.

    Attributes:
        mean: of J.
        variance: of J over prompts, without the sampling noise; 0 for prompts that are all alike.
    """

    mean: float
    variance: float

    @property
    def success(self) -> Float[np.ndarray, " n"]:
        """200 equally likely values of J."""
        limit = self.mean * (1 - self.mean)
        if self.variance <= 1e-9 * max(limit, 1e-300):
            return np.full(len(QUANTILES), self.mean)
        concentration = limit / min(self.variance, 0.999 * limit) - 1
        return beta.ppf(QUANTILES, self.mean * concentration, (1 - self.mean) * concentration)


def read_rows(file: Path, threshold: float | None = None) -> pd.DataFrame:
    """Rows of a JSON-lines file, with a column ``success`` of 0 and 1.

    Raises:
        ValueError: no such file, or the number of a line that cannot be used, and why.
    """
    require(Path(file).is_file(), "file", str(file), "a JSON-lines file that exists")
    rows = []
    for number, line in enumerate(Path(file).read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number} of {file} must be JSON: {error}") from None
        missing = [name for name in REQUIRED if not isinstance(row, dict) or row.get(name) is None]
        require(not missing, f"line {number} of {file}", f"no {', '.join(missing)}", f"an object with {REQUIRED}")
        rows.append(_checked(row, f"line {number} of {file}", threshold))
    require(bool(rows), "file", f"{file} without rows", "a file with at least one group")
    return pd.DataFrame(rows)


def _checked(row: dict, where: str, threshold: float | None) -> dict:
    reward, length = row["reward"], row["length"]
    number = isinstance(reward, int | float) and math.isfinite(reward)
    allowed = "0 or 1, or used with --threshold"
    require(number and (threshold is not None or reward in (0, 1)), f"reward in {where}", reward, allowed)
    whole = isinstance(length, int | float) and 1 <= length < math.inf and length == int(length)
    require(whole, f"length in {where}", length, "a whole number of tokens, at least 1")
    success = float(reward) if threshold is None else float(reward >= threshold)
    name = row["prompt"] if isinstance(row["prompt"], str) else json.dumps(row["prompt"])
    kept = {name: row[name] for name in OPTIONAL if row.get(name) is not None}
    return {"prompt": name, "length": int(length), "success": success} | kept


def measure(rows: pd.DataFrame) -> dict[str, Any]:
    """Everything that is printed, as numbers; None for what the rows do not say."""
    keys = ["prompt", *(["step"] if "step" in rows else [])]
    groups = rows.groupby(keys, sort=False, dropna=False).success.agg(["count", "sum"])
    groups = groups[groups["count"] >= 2]
    allowed = "a group of at least two: one response shows neither spread nor gap"
    require(len(groups) > 0, "file", "groups of one response", allowed)
    count, correct = groups["count"].to_numpy(float), groups["sum"].to_numpy(float)
    law, size = success_law(count, correct), round(float(np.median(count)))
    return Groups(count, correct).values() | {
        "groups": len(groups),
        "responses": int(count.sum()),
        "group_size": size,
        "between_prompts_std": math.sqrt(law.variance),
        "all_failed": float((correct == 0).mean()),
        "all_solved": float((correct == count).mean()),
        "group_sizes": group_sizes(law, sorted({*GROUP_SIZES, size})),
        "length": _lengths(rows),
        "correct_entropy": _correct_entropy(rows),
        "levels": _levels(rows),
        "prompts": _prompts(rows),
    }


def success_law(count: np.ndarray, correct: np.ndarray) -> SuccessLaw:
    """Mean of J over prompts, and its variance without that of sampling, by unbiased moments.

    J^2 of a group is estimated by the share of its pairs of responses that are both correct.
    """
    mean = float((correct / count).mean())
    square = float((correct * (correct - 1) / (count * (count - 1))).mean())
    other = (mean**2 - float((correct / count).var()) / max(len(count) - 1, 1)) if len(count) > 1 else mean**2
    return SuccessLaw(mean, min(max(square - other, 0.0), mean * (1 - mean)))


def group_sizes(law: SuccessLaw, sizes: list[int]) -> list[dict[str, float | int | None]]:
    """For every group size: dead groups, and the share of the gain of infinite groups that is left (I6, chapter 4).

    ``grpo_gain`` and ``dr_grpo_gain`` are the mean gain over prompts, over that of infinite groups; ``grpo_gain``
    divides by the population deviation, ``grpo_gain_sample_std`` by the one with G - 1 below the squares, as TRL does.
    ``std_boost`` is how much more weight, against dividing by nothing, the standard deviation gives a prompt at the
    edge (the most extreme twentieth of J) than a prompt in the middle (J = 1/2 or the nearest there is): 1 where std
    is no more than another learning rate, as for groups of 2 and 3. It is the same for both deviations.
    """
    success = law.success
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
            "std_boost": _boost(success, size),
        }
        for size in sizes
    ]


def _boost(success: np.ndarray, size: int) -> float | None:
    edge = np.sort(np.abs(success - 0.5))
    places = np.array([0.5 - edge[round(0.95 * (len(edge) - 1))], 0.5 - edge[0]])
    if (places <= 0).any():
        return None
    weight = power_gain(places, 1.0, size) / power_gain(places, 0.0, size)
    return float(weight[0] / weight[1])


def _lengths(rows: pd.DataFrame) -> dict[str, float | None]:
    found = {"mean": rows.length, "correct": rows.length[rows.success == 1], "wrong": rows.length[rows.success == 0]}
    return {name: float(length.mean()) if len(length) else None for name, length in found.items()}


def _correct_entropy(rows: pd.DataFrame) -> float | None:
    """Mean over prompts of the entropy of the correct responses, nats: - E+[log pi] + log J, J from all their rows."""
    if "log_prob" not in rows:
        return None
    known = rows.dropna(subset="log_prob")
    success = known.groupby("prompt").success.mean()
    entropy = np.log(success[success > 0]) - known[known.success == 1].groupby("prompt").log_prob.mean()
    return float(entropy.mean()) if len(entropy) else None


def _levels(rows: pd.DataFrame) -> list[dict[str, Any]] | None:
    """Success of each level, its horizon over the one before, the hand-off exponent and the wait (chapter 3).

    The exponent is that of all rows together, so it is meant for the rows of one moment. The wait needs those of a run.
    Both are of success as it is, because chance is not known here.
    """
    if "level" not in rows:
        return None
    success = rows.dropna(subset="level").groupby("level").success.agg(["mean", "count"]).sort_index()
    table: list[dict[str, Any]] = []
    before: Any = None
    for level, mean, count in success.itertuples():
        numeric = isinstance(level, int | float) and isinstance(before, int | float) and before > 0
        ratio = level / before if numeric else None
        table.append(
            {
                "level": level,
                "responses": int(count),
                "success_rate": float(mean),
                "ratio": ratio,
                "handoff": _handoff(table[-1]["success_rate"], mean) if table else None,
                "handoff_dilute": float(handoff_exponent(ratio, before)) if ratio and before > 1 else None,
                "wait_over_rise": _wait_over_rise(rows, before, level) if table else None,
            }
        )
        before = level
    return table


def _handoff(easier: float, harder: float) -> float | None:
    """kappa in y_harder = y_easier^kappa."""
    return math.log(harder) / math.log(easier) if 0 < easier < 1 and 0 < harder < 1 else None


def _wait_over_rise(rows: pd.DataFrame, easier: object, harder: object) -> float | None:
    """Steps from success 0.9 of one level to 0.1 of the next, over those from 0.1 to 0.9 of the next.

    Negative where the next level begins before this one is done. None without steps, or where one of the three is not
    passed within the rows.
    """
    if "step" not in rows or not pd.api.types.is_numeric_dtype(rows.step):
        return None
    done = _passing(rows, easier, DONE)
    begun, ended = (_passing(rows, harder, success) for success in (BEGUN, DONE))
    if done is None or begun is None or ended is None or ended <= begun:
        return None
    return (begun - done) / (ended - begun)


def _passing(rows: pd.DataFrame, level: object, success: float) -> float | None:
    """The step at which a level passes a success rate, in the rising curve that fits its rows best."""
    by_step = rows[rows.level == level].groupby("step").success.agg(["mean", "count"]).sort_index()
    if by_step.empty:
        return None
    rising = isotonic_regression(by_step["mean"].to_numpy(), weights=by_step["count"].to_numpy(float)).x
    passes = rising[0] < success <= rising[-1]
    return float(by_step.index[np.argmax(rising >= success)]) if passes else None


def _prompts(rows: pd.DataFrame) -> list[dict[str, Any]]:
    table = rows.groupby("prompt", sort=False).agg(
        responses=("success", "size"), success_rate=("success", "mean"), length=("length", "mean")
    )
    table["success_std"] = np.sqrt(table.success_rate * (1 - table.success_rate))
    return [{"prompt": name} | values for name, values in table.to_dict("index").items()]


def to_json(report: dict[str, Any]) -> str:
    """The report as JSON."""
    return json.dumps(report, indent=1, default=float)


class _Text(string.Formatter):
    def format_field(self, value: object, format_spec: str) -> str:
        return "undefined" if value is None else super().format_field(value, format_spec)


def to_text(report: dict[str, Any]) -> str:
    """The report for a reader."""
    size = report["group_size"]
    here = next(row for row in report["group_sizes"] if row["group_size"] == size)
    text = TEXT if report["correct_entropy"] is None else TEXT + ENTROPY
    lines = [_Text().format(text, **report, here=here, std=_std_verdict(size, here["std_boost"]))]
    lines += [_table(report["group_sizes"])]
    if report["levels"]:
        lines += ["", _table(report["levels"], "{:.3g}"), *_relay_verdict(report["levels"])]
    hardest = sorted(report["prompts"], key=lambda row: row["success_rate"])
    shown = hardest if len(hardest) <= 20 else [*hardest[:10], *hardest[-10:]]
    of = "" if shown is hardest else f" (10 hardest and 10 easiest of {len(hardest)})"
    last = ("success_rate", "success_std", "responses", "length", "prompt")
    rows = [{name: row[name] for name in last} | {"prompt": str(row["prompt"])[:40]} for row in shown]
    return "\n".join([*lines, "", f"prompts{of}", _table(rows)])


def _table(rows: list[dict[str, Any]], form: str = "{:.3f}") -> str:
    return pd.DataFrame(rows).to_string(index=False, float_format=form.format)


def _std_verdict(size: int, boost: float | None) -> str:
    if size <= 3:
        return f"groups of {size} have one non-zero spread, so dividing by it is only another learning rate"
    if boost is None:
        return "no spread between the groups to judge it by"
    return (
        f"gives prompts at the edge {boost:.2f} times the weight of middling ones; it can help where this is well"
        " above 1, prompts interfere little and groups are large against the noise (chapter 4)"
    )


def _relay_verdict(levels: list[dict[str, Any]]) -> list[str]:
    """A line for every wait that was seen, or one for the largest hand-off exponent.

    The exponent says whether two levels overlap and not how long the second waits: with the saturating head of P2 it is
    far above the limit for levels that follow each other at once.
    """
    pairs = [(easy["level"], hard) for easy, hard in pairwise(levels)]
    waits = [
        (easy, hard["level"], hard["wait_over_rise"]) for easy, hard in pairs if hard["wait_over_rise"] is not None
    ]
    exponents = [(hard["handoff"], easy, hard["level"]) for easy, hard in pairs if hard["handoff"]]
    if waits or not exponents:
        return [
            f"level {hard} passed {BEGUN} {abs(wait):.1f} times its own rise {'after' if wait >= 0 else 'before'}"
            f" level {easy} passed {DONE} (chapter 3)"
            for easy, hard, wait in waits
        ]
    exponent, easy, hard = max(exponents)
    said = f"if it stays so, level {hard} passes {BEGUN} before level {easy} passes {DONE}"
    if exponent > RELAY_LIMIT:
        said = (
            f"level {hard} waits until level {easy} is above {DONE}; how long depends on the head, and takes the steps"
            " of a run to see"
        )
    return [f"largest hand-off exponent of all rows {exponent:.1f} (limit {RELAY_LIMIT:.1f}): {said} (chapter 3)"]


def draw(report: dict[str, Any], file: Path) -> None:
    """Draw success over prompts, gain over group sizes and, where there are levels, success over levels."""
    require(file.suffix in (".png", ".pdf", ".svg"), "plot", str(file), "a file name ending in .png, .pdf or .svg")
    import matplotlib as mpl

    mpl.use("agg")
    from rlvr_lib import figures

    axes: Any
    figures.set_style()
    levels = report["levels"]
    figure, axes = figures.panels(columns=3 if levels else 2)
    axes[0].hist([row["success_rate"] for row in report["prompts"]], bins=np.linspace(0, 1, 17))
    axes[0].set(xlabel="success rate of a prompt", ylabel="prompts")
    table = pd.DataFrame(report["group_sizes"], dtype=float)
    for name, style in {"grpo_gain": "o-", "dr_grpo_gain": "s-", "dead_groups": "^-"}.items():
        axes[1].plot(table.group_size, table[name], style, label=LABELS[name])
    axes[1].axvline(report["group_size"], **figures.PREDICTION)
    axes[1].set_xscale("log", base=2)
    axes[1].set_xticks(GROUP_SIZES, GROUP_SIZES)
    axes[1].set(xlabel="group size", ylabel="share")
    axes[1].legend()
    if levels:
        names = [str(row["level"]) for row in levels]
        axes[2].bar(names, [row["success_rate"] for row in levels])
        axes[2].set(xlabel="level", ylabel="success rate", ylim=(0, 1))
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)
