"""Does a pooled critical rate see the cliff that a single logged one does not? Runs around it, on the text model.

For each optimizer and each checkpoint a pilot at a tiny rate logs critical rates, whose median is the pooled one; then
runs at multiples of it are followed on held-out prompts, and those far above are also run with the rate lowered by the
measurements. What makes a run is passed in, so that this module needs no trainer: ``rlvr_lib.trl.text_runs.run_text``
makes it on the measured trainer. Each finished run is one line of a file, which the same call goes on from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from rlvr_lib.arguments import integer, positive, require
from rlvr_lib.files import write_whole

Record = dict[str, Any]
PILOT_RATES = {"sgd": 1e-4, "adamw": 1e-6}
"""Learning rates of the pilots, far below what moves a success rate, by optimizer."""


@dataclass(frozen=True)
class Plan:
    """What is run.

    Attributes:
        optimizers: any of ``sgd`` and ``adamw``.
        checkpoints: seeds of the warm starts, the unit of all that is said: one pilot and one run of a kind for each.
        pilot_steps, pilot_rates: logged rates of a pilot, and the learning rate of it for each optimizer.
        multiples: of the pooled rate, at which runs are made.
        rescued: those of them that are also run with the rate lowered by the measurements.
        steps, prompts, group_size: of a run.
        evaluate_every, evaluation_prompts: steps between evaluations on that many held-out prompts, one response each.
        lost: a run has died where its last success is below this share of the first.
    """

    optimizers: tuple[str, ...] = tuple(PILOT_RATES)
    checkpoints: tuple[int, ...] = tuple(range(8))
    pilot_steps: int = 24
    pilot_rates: tuple[float, ...] = tuple(PILOT_RATES.values())
    multiples: tuple[float, ...] = (0.125, 0.5, 1.0, 4.0, 16.0)
    rescued: tuple[float, ...] = (4.0, 16.0)
    steps: int = 100
    prompts: int = 16
    group_size: int = 8
    evaluate_every: int = 25
    evaluation_prompts: int = 400
    lost: float = 0.5

    def __post_init__(self) -> None:
        known = 0 < len(self.optimizers) == len(set(self.optimizers)) and set(self.optimizers) <= set(PILOT_RATES)
        require(known, "optimizers", self.optimizers, f"some of {', '.join(PILOT_RATES)}, none of them twice")
        paired = len(self.pilot_rates) == len(self.optimizers)
        require(paired, "pilot_rates", self.pilot_rates, f"one for each of {', '.join(self.optimizers)}")
        for name in ("checkpoints", "multiples"):
            values = getattr(self, name)
            require(0 < len(values) == len(set(values)), name, values, "at least one, none of them twice")
        for rate in (*self.pilot_rates, *self.multiples):
            positive("rate", rate)
        among = set(self.rescued) <= set(self.multiples)
        require(among, "rescued", self.rescued, f"some of the multiples {self.multiples}")
        for name in ("pilot_steps", "steps", "prompts", "evaluate_every"):
            integer(name, getattr(self, name), low=1)
        for name in ("group_size", "evaluation_prompts"):
            integer(name, getattr(self, name), low=2)


@dataclass(frozen=True)
class Run:
    """One run: of a pilot the multiple is 0."""

    optimizer: str
    checkpoint: int
    multiple: float = 0.0
    rescued: bool = False

    @property
    def pilot(self) -> bool:
        """Whether this is a pilot."""
        return self.multiple == 0


Execute = Callable[..., Mapping[str, Any]]
"""Makes a run, given the keyword arguments of ``rlvr_lib.trl.text_runs.run_text``.

It returns at least ``critical``, the logged critical rates (None where one is undefined), and ``success``, the rates on
held-out prompts from the first evaluation to the last.
"""


def runs(plan: Plan) -> Iterator[Run]:
    """All runs of a plan, a checkpoint's pilots before its others."""
    for checkpoint in plan.checkpoints:
        for optimizer in plan.optimizers:
            yield Run(optimizer, checkpoint)
            for multiple in plan.multiples:
                yield Run(optimizer, checkpoint, multiple)
            for multiple in plan.rescued:
                yield Run(optimizer, checkpoint, multiple, True)


def read(file: Path, plan: Plan) -> dict[Run, Record]:
    """The finished runs in a file; a ValueError names a line that is not a run of this plan."""
    found: dict[Run, Record] = {}
    lines = file.read_text().splitlines() if file.is_file() else []
    settings = json.loads(json.dumps(_settings(plan)))
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            run, same = Run(**record["run"]), record["settings"] == settings
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"line {number} of {file} must be a finished run, got {error!r}") from None
        require(same, f"line {number} of {file}", record["settings"], f"a run with the settings {settings}")
        found[run] = record
    return found


def _settings(plan: Plan) -> Record:
    """What every run of a plan depends on; which runs there are is left out, so that a plan can grow."""
    which = ("optimizers", "checkpoints", "multiples", "rescued", "pilot_rates", "lost")
    rates = dict(zip(plan.optimizers, plan.pilot_rates, strict=True))
    return {name: value for name, value in asdict(plan).items() if name not in which} | {"pilot_rates": rates}


def carry_out(
    plan: Plan,
    file: Path,
    execute: Execute,
    part: tuple[int, int] = (0, 1),
    on_run: Callable[[Record], None] | None = None,
) -> dict[Run, Record]:
    """Make the runs that a file lacks, and add each to it when it is finished; returns all runs of the file.

    Args:
        plan, execute: what is run, and by what.
        file: JSON lines. Killed at any moment it is whole, and lacks the run that was going on.
        part: (k, n): the k-th of n processes, each with its own checkpoints, that may write to one file at once.
        on_run: sees the record of each run when it is in the file.
    """
    index, parts = integer("part", part[0], low=0), integer("part", part[1], low=1)
    require(index < parts, "part", part, "(k, n) with k below n")
    mine = set(plan.checkpoints[index::parts])
    finished = read(file, plan)
    for run in (run for run in runs(plan) if run.checkpoint in mine and run not in finished):
        rate = plan.pilot_rates[plan.optimizers.index(run.optimizer)]
        if not run.pilot:
            pooled = pooled_rate(finished[Run(run.optimizer, run.checkpoint)]["critical"])
            rate = pooled * run.multiple
        record = {
            "run": asdict(run),
            "settings": _settings(plan),
            "learning_rate": rate,
            **execute(**_asked(run, plan, rate)),
        }
        finished[run] = json.loads(json.dumps(record))
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            before = file.read_bytes() if file.is_file() else b""
            write_whole(file, before + (json.dumps(record, sort_keys=True) + "\n").encode())
        if on_run is not None:
            on_run(record)
    return read(file, plan)


def _asked(run: Run, plan: Plan, rate: float) -> Record:
    """The arguments of a run."""
    shared = ("prompts", "group_size", "evaluate_every", "evaluation_prompts")
    return {name: getattr(plan, name) for name in shared} | {
        "optimizer": run.optimizer,
        "checkpoint": run.checkpoint,
        "learning_rate": rate,
        "steps": plan.pilot_steps if run.pilot else plan.steps,
        "measured": run.pilot or run.rescued,
        "lowered": run.rescued,
    }


def pooled_rate(critical: Sequence[float | None]) -> float:
    """Median of the logged critical rates that are defined; a ValueError where half of them or more are not."""
    defined = [rate for rate in critical if rate is not None]
    allowed = "such that more than half of the logged rates are defined"
    require(2 * len(defined) > len(critical), "critical", f"{len(defined)} of {len(critical)} rates", allowed)
    return float(np.median(defined))


@dataclass(frozen=True)
class Outcome:
    """What became of the runs of one kind, one entry a checkpoint.

    Attributes:
        optimizer, multiple, rescued: the kind.
        first, last, lowest: success on held-out prompts at the start, at the end, and the lowest of all evaluations.
        died: whether the last is below the plan's share of the first.
    """

    optimizer: str
    multiple: float
    rescued: bool
    first: tuple[float, ...]
    last: tuple[float, ...]
    lowest: tuple[float, ...]
    died: tuple[bool, ...]


def outcomes(finished: Mapping[Run, Record], plan: Plan) -> list[Outcome]:
    """The finished runs by kind, those of the plan only; a kind without any is left out."""
    found = []
    kinds = dict.fromkeys((run.optimizer, run.multiple, run.rescued) for run in runs(plan) if not run.pilot)
    for optimizer, multiple, rescued in kinds:
        keys = [Run(optimizer, checkpoint, multiple, rescued) for checkpoint in plan.checkpoints]
        curves = [finished[key]["success"] for key in keys if key in finished]
        if curves:
            first, last, lowest = (tuple(take(curve) for curve in curves) for take in (_first, _last, min))
            died = tuple(end < plan.lost * start for start, end in zip(first, last, strict=True))
            found.append(Outcome(optimizer, multiple, rescued, first, last, lowest, died))
    return found


def _first(curve: Sequence[float]) -> float:
    return curve[0]


def _last(curve: Sequence[float]) -> float:
    return curve[-1]


def misjudged(critical: Sequence[float | None], healthy: float = 0.5, doomed: float = 4.0) -> tuple[float, float]:
    """What a single logged rate would say of two rates, given as multiples of the pooled one.

    Returns the share of logged rates that are below the healthy one, and so call it too high, and the share that are
    above the doomed one, and so call it low enough. An undefined rate calls nothing.
    """
    pooled, n = pooled_rate(critical), len(critical)
    defined = np.array([rate for rate in critical if rate is not None])
    return float((defined < healthy * pooled).sum() / n), float((defined > doomed * pooled).sum() / n)


def table(found: Sequence[Outcome]) -> str:
    """Outcomes as lines of text, one a kind."""
    lines = ["optimizer  multiple  rescued  runs  died  success at the end"]
    for each in found:
        ends, rescued = " ".join(f"{rate:.3f}" for rate in each.last), "yes" if each.rescued else "no"
        kind = f"{each.optimizer:9}  {each.multiple:8g}  {rescued:7}"
        lines.append(f"{kind}  {len(each.died):4}  {sum(each.died):4}  {ends}")
    return "\n".join(lines)
