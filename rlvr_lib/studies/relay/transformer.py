"""The runs of chapter 3 on the synthetic transformer: relays over 45 names, clause maps, and P2's own experiment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.lib.stride_tricks import sliding_window_view

from rlvr_lib.arguments import integer
from rlvr_lib.studies.relay.bandit import Relay
from rlvr_lib.testbeds.transformer import AttentionPolicy, draw_problems
from rlvr_lib.testbeds.transformer.ensemble import draw_multipliers, train
from rlvr_lib.testbeds.transformer.problems import running_products
from rlvr_lib.theory.groups import FiniteGroup, symmetric_group
from rlvr_lib.theory.readings import all_permutations, reading_success
from rlvr_lib.theory.relay import normalized_success

NAMES = 45
SHARP = 0.99
"""Attention above which a clause map counts as settled."""


def relay(
    horizons: Sequence[int],
    dilute: bool,
    sharpness: float | None,
    start: float,
    duration: float,
    seeds: int,
    seed: int,
    rate: float = 0.5,
    chains: int = 6,
    smooth: int = 4,
) -> Relay:
    """Expected updates of all 2,025 logits on chains over S3, fresh prompts at every update.

    Args:
        dilute: the context is the chain; otherwise every prompt shows all 45 clauses.
        sharpness: of the softmax head, None for the linear one.
        start: logit of every right clause at the start, all others at 0.
        duration, rate: in the time of the one-logit flow; the learning rate is 45 times the rate, because a prompt
            trains the names it shows.
        seeds: runs side by side, each with prompts of its own.
        chains: of each length an update.
        smooth: success is that on these few prompts, averaged over so many updates before and after.
    """
    policy, group = AttentionPolicy(NAMES, sharpness=sharpness), symmetric_group(3)
    own = [(seed, k) for k in range(integer("seeds", seeds, low=1))]
    context = "chain" if dilute else "fixed"
    record = train(
        policy,
        np.tile(policy.initial(start).numpy(), (seeds, 1)),
        lambda k: draw_problems(group, horizons, chains, [(*one, k) for one in own], NAMES, context),
        max(2, round(duration / rate)),
        rate * NAMES,
    )
    y = (group.order * record.success - 1) / (group.order - 1)
    y = np.pad(y, ((smooth, smooth), (0, 0), (0, 0)), mode="edge")
    y = sliding_window_view(y, 2 * smooth + 1, axis=0).mean(-1)
    return Relay(np.tile(rate * record.iteration[:, None], (1, seeds)), y)


class Maps(NamedTuple):
    """Where runs from uniform attention end, each with its success on fresh prompts.

    Attributes:
        y: success above chance.
        right: mean attention on the right clause.
        attention: of every name on every name, all present.
    """

    y: Float[np.ndarray, " runs"]
    right: Float[np.ndarray, " runs"]
    attention: Float[np.ndarray, "runs names names"]

    @property
    def map(self) -> Int[np.ndarray, "runs names"]:
        """The clause that each name attends to most."""
        return self.attention.argmax(-1)

    @property
    def wrong(self) -> Bool[np.ndarray, " runs"]:
        """Runs in which some name attends most to another one."""
        return (self.map != np.arange(self.map.shape[1])).any(1)

    @property
    def settled(self) -> Bool[np.ndarray, " runs"]:
        """Runs whose attention is a permutation of the names, all above ``SHARP``."""
        whole = (np.sort(self.map, 1) == np.arange(self.map.shape[1])).all(1)
        return whole & (self.attention.max(-1).min(-1) > SHARP)


def clause_maps(
    group: FiniteGroup, names: int, runs: int, iterations: int, seed: int, horizon: int = 5, prompts: int = 8
) -> Maps:
    """Sampled GRPO in groups of eight from uniform attention, linear head; every run has prompts and draws of its own.

    With as many names as the chain has steps the context is *closed*, any map of names to names is available; with more
    it is *open*, and the clause that a wrong map wants may be absent.
    """
    policy = AttentionPolicy(names)
    own = [(seed, k) for k in range(integer("runs", runs, low=1))]
    record = train(
        policy,
        np.zeros((runs, policy.size)),
        lambda k: draw_problems(group, (horizon,), prompts, [(*one, k) for one in own], names, "chain"),
        iterations,
        2.0,
        estimator="grpo",
        group_size=8,
        seeds=[seed + k for k in range(runs)],
        record_every=iterations,
    )
    theta = torch.tensor(record.theta)
    problems = draw_problems(group, (horizon,), max(20, 6_000 // group.order), seed + 1, names, "chain")
    with torch.no_grad():
        right = policy.attend(theta, problems.step_name, problems.values)[1].mean((-1, -2)).numpy()
        success = policy.success(theta, problems).mean(-1).numpy()
    attention = torch.softmax(theta.reshape(runs, names, names), -1).numpy()
    return Maps((group.order * success - 1) / (group.order - 1), right, attention)


def caught_at(group: FiniteGroup, clause_map: Int[np.ndarray, " names"]) -> float:
    """y of a settled clause map, chains as long as the table of names, over all orders in which names are asked for."""
    orders = all_permutations(len(clause_map))
    readings = np.take_along_axis(orders.argsort(1), clause_map[orders], 1)
    return float(normalized_success(reading_success(group, readings).mean(), group.order))


def right_answers(
    group: FiniteGroup,
    attention: float,
    horizons: Sequence[int],
    prompts: int,
    seed: int,
    law: Float[np.ndarray, " order"] | None = None,
) -> Int[np.ndarray, " H"]:
    """Right answers to so many prompts of each length, one sampled response each, at a given attention (linear head).

    ``law`` is that of the clauses, uniform by default; all 45 clauses are in the context.
    """
    policy = AttentionPolicy(NAMES)
    theta = policy.initial(float(np.log(attention / (1 - attention)) + np.log(NAMES - 1)))
    problems = draw_problems(group, horizons, prompts, seed, NAMES, law=law)
    with torch.no_grad():
        step_law = policy.step_law(theta, problems)[None]
    drawn = draw_multipliers(step_law, problems, 1, [torch.Generator().manual_seed(seed)])[0, :, 0]
    right = running_products(group, drawn)[:, -1] == problems.target
    return (problems.horizon_mean @ right.double() * prompts).round().long().numpy()


def published() -> list[dict[str, Any]]:
    """The committed runs of P2's experiment, as ``rlvr z96`` reported them."""
    return json.loads(files("rlvr_lib").joinpath("data", "z96.json").read_text())["runs"]


def greedy_answers(group: str, kind: str, lengths: slice = slice(None), horizons: int | None = None) -> int:
    """Greedy responses of a kind at the end of a group's committed runs, at all lengths or some.

    Args:
        kind: ``greedy`` (right), ``right_paths`` (every step too), ``permutations`` (every clause used once), ``all``.
        lengths: which of a run's lengths, shortest first.
        horizons: only runs with so many lengths.
    """
    runs = [r for r in published() if r["group"] == group and horizons in (None, len(r["horizons"]))]
    each = [(r["settings"]["evaluation_prompts"], r["final"].get(kind, [1.0] * len(r["horizons"]))) for r in runs]
    return sum(round(prompts * share) for prompts, shares in each for share in shares[lengths])
