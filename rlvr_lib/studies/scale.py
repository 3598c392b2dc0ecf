"""Does it carry over? The quantities that the chapters headline, on Qwens of 20 thousand to 4.7 million parameters.

A rung is a shape of Qwen3, or a model by its name; a checkpoint of a rung is a warm start of its own seed. Success,
gradients, energies and curvatures are exact, over all responses to words of two elements of S3. Every measured
checkpoint is one line of a file, which the same call goes on from.

The rule of the verdicts was written before the first rung was measured. Each finding is a sentence about one number a
checkpoint, on a scale where 0 is "no effect" and the sentence says on which side the number lies: the logarithm of a
ratio, a correlation, or a difference of shares. A least-squares line of it on the logarithm of the number of
parameters, checkpoints being the units, gives the fit at both ends of the ladder, its slope, and intervals at 95%. Of
these the first that applies is the verdict:

- ``cannot tell``: fewer than three rungs or six checkpoints;
- ``reverses``: the interval of the fit at the largest rung lies on the other side of 0 than the sentence says;
- ``fades``: the fit at the smallest rung lies on the side of the sentence, the interval of the slope on the other, and
  the fit at the largest rung is less than half of that at the smallest;
- ``carries over``: the interval of the fit at the largest rung lies on the side of the sentence;
- ``cannot tell`` in all other cases.

One sentence got its side from the first three checkpoints: chapter 2 does not say on which side of the predicted step
success returns, only that the prediction is no guarantee.

A prediction is the least-squares interval, at 95%, for one new checkpoint of 0.6 to 7 billion parameters: the lowest
and the highest of its ends over that range. It is honest about scatter, but it trusts the line over three decades.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Float
from scipy.stats import t as student

from rlvr_lib.arguments import integer, require
from rlvr_lib.files import write_whole
from rlvr_lib.studies.baseline.qwen import STAND_INS, point
from rlvr_lib.studies.curvature.qwen import Batch
from rlvr_lib.studies.threshold.qwen import Line, ends, exact_run, words
from rlvr_lib.testbeds import grpo
from rlvr_lib.testbeds.group_tasks import builtin_task
from rlvr_lib.testbeds.qwen import QwenTestbed, WarmStart
from rlvr_lib.testbeds.qwen.forward import MOST_POSITIONS, PlainQwen
from rlvr_lib.testbeds.qwen.warm_start import warm_started
from rlvr_lib.theory.curvature import gradient_cosines

Record = dict[str, Any]


class Shape(NamedTuple):
    """Width and layers of a Qwen3 with four heads on two key-value heads, and the rate of its warm start."""

    width: int
    layers: int = 2
    warm_rate: float = 3e-3


RUNGS = {
    "20k": Shape(32),
    "75k": Shape(64),
    "300k": Shape(128, warm_rate=2e-3),
    "1.2M": Shape(256, warm_rate=1e-3),
    "4.7M": Shape(512, warm_rate=5e-4),
}
"""By about how many parameters they have."""


def rung_testbed(shape: Shape, warm_start: WarmStart) -> QwenTestbed:
    """A new Qwen3 of a shape on the word problem, warm-started or from the cache, in float64."""
    from transformers import AutoConfig, AutoModelForCausalLM

    task = builtin_task("word")
    config = AutoConfig.for_model(
        "qwen3", vocab_size=len(task.symbols), hidden_size=shape.width, intermediate_size=2 * shape.width,
        num_hidden_layers=shape.layers, num_attention_heads=4, num_key_value_heads=2, head_dim=shape.width // 4,
        tie_word_embeddings=True, max_position_embeddings=MOST_POSITIONS, pad_token_id=0, bos_token_id=None,
        eos_token_id=1,
    )  # fmt: skip
    qwen = QwenTestbed.__new__(QwenTestbed)
    qwen.task, qwen.tokenizer = task, task.tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(warm_start.seed)
        qwen.model = AutoModelForCausalLM.from_config(config).eval()
    qwen.plain = PlainQwen(qwen.model, None, task.answers)
    warm_started(qwen.model, qwen.plain, task, warm_start)
    qwen.model.to(torch.float64)
    qwen.named = dict(qwen.model.named_parameters())
    return qwen


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        rungs: names of ``RUNGS``, or checkpoints: folders, or names on the hub, which are samples of one.
        seeds: of the warm starts, the unit of all that is said.
        noise: of the teacher, which sets the success that the warm starts reach.
        prompts: words of which energies, curvatures and gradients are taken.
        lines: how many of them are followed along their gap, and trained on.
        steps: of an exact run, whose first step is half of the measured one.
        clean_steps, noisy_steps: of the warm start.
    """

    rungs: tuple[str, ...] = ("20k", "75k", "300k")
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    noise: float = 0.25
    prompts: int = 12
    lines: int = 4
    steps: int = 30
    clean_steps: int = 150
    noisy_steps: int = 150

    def __post_init__(self) -> None:
        for name in ("rungs", "seeds"):
            values = getattr(self, name)
            require(0 < len(values) == len(set(values)), name, values, "at least one, none of them twice")
        integer("prompts", self.prompts, low=4)
        require(
            1 <= self.lines <= self.prompts <= 36, "lines", self.lines, f"1 to the {self.prompts} prompts, up to 36"
        )
        integer("steps", self.steps, low=2)

    def cells(self) -> Iterator[tuple[str, int]]:
        """Rung and seed of every checkpoint, seed by seed, so that a file cut short has them all alike."""
        for seed in self.seeds:
            for rung in self.rungs:
                if rung in RUNGS or seed == self.seeds[0]:
                    yield rung, seed

    def settings(self) -> Record:
        """What every measurement depends on; which there are is left out, so that a plan can grow."""
        return {name: value for name, value in asdict(self).items() if name not in ("rungs", "seeds")}

    def testbed(self, rung: str, seed: int) -> QwenTestbed:
        """The policy of a checkpoint."""
        if rung not in RUNGS:
            return QwenTestbed(model=rung, dtype=torch.float64)
        shape = RUNGS[rung]
        return rung_testbed(
            shape, WarmStart(seed, self.clean_steps, self.noisy_steps, self.noise, learning_rate=shape.warm_rate)
        )


def measure(qwen: QwenTestbed, plan: Plan, seed: int) -> dict[str, float]:
    """The quantities of one checkpoint: medians over prompts unless said otherwise; NaN where one is undefined.

    ``energy_ratio`` e-/e+; ``mean_price`` and ``<stand-in>_excess``, variance with that baseline over that with b*;
    ``noise_scale``, variance of one response under the mean over |grad J|^2; ``cosine`` of two prompts' gradients and
    the share of ``opposed`` pairs; ``curvature_rank``, Pearson's correlation of log |curvature| and log variance across
    prompts, and ``curvature_exponent``, the slope; ``std_direction``, best gain along std's mean update over that of
    none; ``step_ratio``, measured over predicted critical step; ``crash_grpo`` and ``crash_reinforce``, shares of runs.
    """
    chosen = words(qwen, 2, plan.prompts, seed)
    batch = Batch(qwen, tuple(chosen))
    J, gradient = batch.success, batch.gradient
    points = [point(qwen, prompt, STAND_INS) for prompt in chosen]
    found = {
        "success": float(J.mean()),
        "energy_ratio": _median([each.ratio for each in points]),
        "mean_price": _median([each.excess(each.success) for each in points]),
        "zero_price": _median([each.excess(0.0) for each in points]),
        "noise_scale": _median([each.variance(each.success) / each.signal for each in points]),
    }
    for kind in STAND_INS:
        found[kind.replace(" ", "_") + "_excess"] = _median([each.excess(each.best[kind]) for each in points])
    cosines = gradient_cosines(gradient)
    found |= {"cosine": _median(cosines), "opposed": float((cosines < 0).mean())}
    curvature, variance = np.log(np.maximum(batch.curvature(), 1e-300)), np.log(J * (1 - J))
    found["curvature_rank"] = float(np.corrcoef(variance, curvature)[0, 1])
    found["curvature_exponent"] = float(np.polyfit(variance, curvature, 1)[0])
    found["std_direction"] = float(batch.line_search_advantage())
    followed = [Line.of(qwen, prompt) for prompt in chosen[: plan.lines]]
    ratios = [
        line.measured / line.predicted() for line in followed if np.isfinite([line.measured, line.predicted()]).all()
    ]
    found["step_ratio"] = _median(ratios)
    found["returning"] = float(np.mean([np.isfinite(line.measured) for line in followed]))
    returning = [line for line in followed if np.isfinite(line.measured)]
    for estimator in ("reinforce", "grpo"):
        crashed = [ends(exact_run(line, 0.5, estimator, plan.steps)).crashes for line in returning]
        found["crash_" + estimator] = float(np.mean(crashed)) if crashed else np.nan
    return found


def _median(values: Sequence[float] | Float[np.ndarray, " n"]) -> float:
    return float(np.median(values)) if len(values) else np.nan


def times(rungs: Sequence[str] = tuple(RUNGS)) -> dict[str, dict[str, float]]:
    """Processor seconds of exact success and gradient over 1,555 responses, and of a GRPO step, for untrained rungs.

    A step is one of 8 groups of 16 in float32; the best of two exact answers, and the mean of four steps.
    """
    found = {}
    for rung in rungs:
        qwen, seconds = rung_testbed(RUNGS[rung], WarmStart(0, 0, 0)), []
        word = words(qwen, 3, 8, 0)
        for _ in range(2):
            start = time.process_time()
            qwen.exact(word[0])
            seconds.append(time.process_time() - start)
        qwen.model.to(torch.float32)
        qwen.named = dict(qwen.model.named_parameters())
        start = time.process_time()
        grpo.train(qwen, word, grpo.GRPO(16, learning_rate=1e-6), 4, 0)
        step = (time.process_time() - start) / 4
        found[rung] = {"parameters": len(qwen.theta), "exact_1555": min(seconds), "grpo_step": step}
    return found


def read(file: Path, plan: Plan) -> dict[tuple[str, int], Record]:
    """The measured checkpoints of a plan's settings in a file; a ValueError names a line that is not one."""
    found: dict[tuple[str, int], Record] = {}
    lines = file.read_text().splitlines() if file.is_file() else []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            cell, same = (record["rung"], record["seed"]), record["settings"] == plan.settings()
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"line {number} of {file} must be a measured checkpoint, got {error!r}") from None
        require(same, f"line {number} of {file}", record["settings"], f"one with the settings {plan.settings()}")
        found[cell] = record
    return found


def carry_out(
    plan: Plan, file: Path, part: tuple[int, int] = (0, 1), on_record: Callable[[Record], None] | None = None
) -> dict[tuple[str, int], Record]:
    """Measure the checkpoints that a file lacks, and add each when it is finished; returns all of the file.

    Args:
        plan: what is measured.
        file: JSON lines. Killed at any moment it is whole, and lacks the checkpoint that was being measured.
        part: (k, n): the k-th of n processes, each with its own checkpoints, that may write to one file at once.
        on_record: sees the record of each checkpoint when it is in the file.
    """
    index, parts = integer("part", part[0], low=0), integer("part", part[1], low=1)
    require(index < parts, "part", part, "(k, n) with k below n")
    finished = read(file, plan)
    for rung, seed in [cell for cell in list(plan.cells())[index::parts] if cell not in finished]:
        start = time.perf_counter()
        qwen = plan.testbed(rung, seed)
        warm = time.perf_counter() - start
        quantities = measure(qwen, plan, seed)
        record = {
            "rung": rung,
            "seed": seed,
            "settings": plan.settings(),
            "parameters": len(qwen.theta),
            "task": "word",
            "quantities": {name: value if np.isfinite(value) else None for name, value in quantities.items()},
            "seconds": {"warm_start": warm, "measured": time.perf_counter() - start},
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            before = file.read_bytes() if file.is_file() else b""
            write_whole(file, before + (json.dumps(record, sort_keys=True) + "\n").encode())
        if on_record is not None:
            on_record(record)
    return read(file, plan)


Numbers = Mapping[str, float | None]


def _value(q: Numbers, name: str) -> float:
    value = q.get(name)
    return np.nan if value is None else value


def _log(name: str, over: str | None = None) -> Callable[[Numbers], float]:
    def ratio(q: Numbers) -> float:
        value = _value(q, name) / (1.0 if over is None else _value(q, over))
        return float(np.log(value)) if value > 0 else np.nan

    return ratio


def _excess(name: str) -> Callable[[Numbers], float]:
    """What a stand-in costs over b*, over what the mean costs over it."""

    def ratio(q: Numbers) -> float:
        own, mean = _value(q, name) - 1, _value(q, "mean_price") - 1
        return float(np.log(own / mean)) if own > 0 and mean > 0 else np.nan

    return ratio


def _plain(name: str, less: str | None = None) -> Callable[[Numbers], float]:
    return lambda q: _value(q, name) - (0.0 if less is None else _value(q, less))


class Finding(NamedTuple):
    """What is followed over the ladder: a sentence, its number on a scale where 0 is no effect, and the way back."""

    says: str
    chapter: int
    side: int
    scale: Callable[[Numbers], float]
    ratio: bool = True

    def shown(self, value: float) -> float:
        """A value of the scale as a reader knows it: a ratio, or the number itself, between -1 and 1."""
        if self.ratio:
            return float(np.exp(np.clip(value, -200, 200)))
        return float(np.clip(value, -1, 1))


FINDINGS = {
    "energy_ratio": Finding("Wrong responses have more score energy than right ones", 5, 1, _log("energy_ratio")),
    "mean_price": Finding("The mean baseline is noisier than b*", 5, 1, _log("mean_price")),
    "mean_over_zero": Finding("The mean baseline is noisier than none", 5, 1, _log("mean_price", "zero_price")),
    "last_layer": Finding("b* from the last layer costs less than the mean", 5, -1, _excess("last_layer_excess")),
    "output_head": Finding("b* from the output head costs less than the mean", 5, -1, _excess("output_head_excess")),
    "token_proxy": Finding("b* from the token proxy costs less than the mean", 5, -1, _excess("token_proxy_excess")),
    "noise_scale": Finding("One response is more noise than signal", 5, 1, _log("noise_scale")),
    "curvature_rank": Finding(
        "Curvature is larger where the variance is, across prompts", 4, 1, _plain("curvature_rank"), False
    ),
    "cosine": Finding("The gradients of two prompts point the same way", 4, 1, _plain("cosine"), False),
    "std_direction": Finding("Division by std gains less in one step at the warm start", 4, -1, _log("std_direction")),
    "step_ratio": Finding("Success returns after the predicted critical step", 2, 1, _log("step_ratio")),
    "crash": Finding(
        "From matched first steps GRPO crashes more often than REINFORCE",
        2,
        1,
        _plain("crash_grpo", "crash_reinforce"),
        False,
    ),
}
LARGE = (0.6e9, 7e9)
"""Parameters of the models that are predicted."""
COMMAND = "rlvr ladder --out large.jsonl --rungs Qwen/Qwen3-0.6B --prompts 4"


class Fit(NamedTuple):
    """A line of a number on the natural logarithm of the parameters, over checkpoints.

    Attributes:
        slope, half: change a unit of the logarithm, and half of its interval at 95%.
        centre, middle: mean of the logarithms, and of the number.
        spread: sum of squared distances of the logarithms from their mean.
        deviation, checkpoints: residual standard deviation, and how many there are.
    """

    slope: float
    centre: float
    middle: float
    spread: float
    deviation: float
    checkpoints: int

    @classmethod
    def of(cls, parameters: Float[np.ndarray, " n"], value: Float[np.ndarray, " n"]) -> Fit:
        """By least squares; at least three points, not all of the same size."""
        x, n = np.log(parameters), len(value)
        require(n >= 3 and np.ptp(x) > 0, "parameters", parameters, "three or more, not all the same")
        spread = float(((x - x.mean()) ** 2).sum())
        slope = float((x - x.mean()) @ value / spread)
        residual = value - value.mean() - slope * (x - x.mean())
        return cls(
            slope, float(x.mean()), float(value.mean()), spread, float(np.sqrt(residual @ residual / (n - 2))), n
        )

    @property
    def half(self) -> float:
        """Half of the slope's interval."""
        return self._t * self.deviation / np.sqrt(self.spread)

    @property
    def _t(self) -> float:
        return float(student.ppf(0.975, self.checkpoints - 2))

    def at(self, parameters: float, new: bool = False) -> tuple[float, float, float]:
        """The fit there, and both ends of its interval; ``new``: of the interval for one new checkpoint."""
        away = np.log(parameters) - self.centre
        value = self.middle + self.slope * away
        half = self._t * self.deviation * np.sqrt(new + 1 / self.checkpoints + away**2 / self.spread)
        return float(value), float(value - half), float(value + half)


def verdict(fit: Fit | None, side: int, smallest: float, largest: float, rungs: int) -> str:
    """The rule at the head of this module."""
    if fit is None or rungs < 3 or fit.checkpoints < 6:
        return "cannot tell"
    first, (last, *reach) = side * fit.at(smallest)[0], fit.at(largest)
    last, low, high = side * last, min(side * end for end in reach), max(side * end for end in reach)
    if high < 0:
        return "reverses"
    if first > 0 and side * fit.slope + fit.half < 0 and last < first / 2:
        return "fades"
    return "carries over" if low > 0 else "cannot tell"


def predictions(records: Sequence[Record]) -> list[Record]:
    """For every finding its verdict and what it would be at 0.6 to 7 billion parameters, from ladder records."""
    own = [record for record in records if record["rung"] in RUNGS]
    made = []
    for name, finding in FINDINGS.items():
        pairs = [(record["parameters"], finding.scale(record["quantities"])) for record in own]
        pairs = [pair for pair in pairs if np.isfinite(pair[1])]
        sizes = sorted({size for size, _ in pairs})
        fit = Fit.of(*np.array(pairs, float).T) if len(pairs) > 2 and len(sizes) > 1 else None
        row: Record = {"finding": finding.says, "quantity": name, "chapter": finding.chapter, "command": COMMAND}
        row |= {"verdict": verdict(fit, finding.side, sizes[0] if sizes else 1, sizes[-1] if sizes else 1, len(sizes))}
        row |= {"checkpoints": len(pairs), "size": None, "low": None, "high": None}
        if fit is not None:
            reach = [fit.at(size, new=True) for size in LARGE]
            ends_ = {end: [finding.shown(v) for v in fit.at(sizes[i])] for i, end in ((0, "smallest"), (-1, "largest"))}
            middle = fit.at(float(np.sqrt(np.prod(LARGE))))[0]
            row |= {"size": finding.shown(middle), "low": finding.shown(min(low for _, low, _ in reach))}
            row |= {"high": finding.shown(max(high for *_, high in reach)), **ends_}
            row |= {"slope_a_decade": [k * np.log(10) for k in (fit.slope, fit.slope - fit.half, fit.slope + fit.half)]}
        made.append(row)
    return made


def collect(records: Sequence[Record]) -> Record:
    """The JSON of the library's ``data/ladder.json``: ``rungs``, ``predictions``, and the ``settings``."""
    rungs: list[Record] = []
    for name in dict.fromkeys(record["rung"] for record in records):
        mine = sorted((record for record in records if record["rung"] == name), key=lambda record: record["seed"])
        numbers = {
            key: _median([v for r in mine if (v := r["quantities"][key]) is not None]) for key in mine[0]["quantities"]
        }
        each = [{key: r[key] for key in ("seed", "quantities", "seconds")} for r in mine]
        row = {"rung": name, "parameters": mine[0]["parameters"], "task": mine[0]["task"], "checkpoints": each}
        rungs.append(row | {"quantities": {key: v if np.isfinite(v) else None for key, v in numbers.items()}})
    rungs.sort(key=lambda rung: rung["parameters"])
    settings = records[0]["settings"] if records else {}
    return {"rungs": rungs, "predictions": predictions(records), "settings": settings}


def table(found: Record) -> str:
    """Verdicts and predictions as text, a line each."""
    rows = [f"{'finding':68} {'verdict':13} {'smallest':>9} {'largest':>9}   0.6B to 7B"]
    for row in found["predictions"]:
        numbers = (
            [row["smallest"][0], row["largest"][0], row["low"], row["high"]] if "smallest" in row else [np.nan] * 4
        )
        shown = "{:9.3g} {:9.3g}   {:.2g} to {:.2g}".format(*numbers)
        rows.append(f"{row['finding']:68} {row['verdict']:13} {shown}")
    return "\n".join(rows)
