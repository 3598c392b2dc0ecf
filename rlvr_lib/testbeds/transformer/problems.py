"""Chains of group elements: the prompts of the synthetic transformer, and dynamic programming along them.

A prompt holds clauses, "name m carries the group element g", and a list of h names. The task is to multiply the
elements of those names in that order; a response is the h running products, and only the last one is verified.
Running products grow on the right, x_l = x_{l-1} g_l with x_0 the identity. A step that multiplies by k_l in place of
g_l therefore makes the error (right)^-1 (done) = g_l^-1 k_l, whatever x_{l-1} is, and the clauses still to come
conjugate it: x_h = (g_1 .. g_h) times the product over l of (g_{l+1} .. g_h)^-1 e_l (g_{l+1} .. g_h).

Laws of the element a step multiplies by are tensors [..., T, order, P]; leading axes are independent runs.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from rlvr_lib.arguments import integer, probability_law, require
from rlvr_lib.theory.groups import FiniteGroup

ABSENT = -1
CACHED_ENTRIES = 2**17

Laws = Float[torch.Tensor, "*#runs T order P"]
PerPrompt = Float[torch.Tensor, "*runs P"]


@dataclass(frozen=True, eq=False)
class WordProblems:
    """P prompts over one group, ordered by horizon so that the chains still running are always the last ones.

    Attributes:
        group: its ``table`` multiplies.
        horizon: steps of each chain, not decreasing; T is the last and largest.
        name: which name each step needs, one that has a clause; ignored beyond the horizon.
        element: the element that the clause of each name carries; -1 where there is no such clause.
    """

    group: FiniteGroup
    horizon: Int[torch.Tensor, " P"]
    name: Int[torch.Tensor, "*runs P T"]
    element: Int[torch.Tensor, "*runs P N"]

    def __post_init__(self) -> None:
        for field in ("horizon", "name", "element"):
            value = torch.as_tensor(getattr(self, field))
            require(not (value.is_floating_point() or value.is_complex()), field, value.dtype, "integers")
            object.__setattr__(self, field, value.long())
        ordered = self.horizon.ndim == 1 and len(self.horizon) > 0 and bool((self.horizon.diff() >= 0).all())
        require(ordered and bool(self.horizon[0] >= 1), "horizon", self.horizon, "positive and in increasing order")
        width = (len(self.horizon), int(self.horizon[-1]))
        require(self.name.shape[-2:] == width, "name", f"shape {tuple(self.name.shape)}", f"[..., {width}]")
        rows, shape = tuple(self.name.shape[:-1]), tuple(self.element.shape)
        require(shape[:-1] == rows, "element", f"shape {shape}", f"[{rows}, names] here")
        known = (self.name >= 0) & (self.name < self.element.shape[-1])
        require(bool(known.all()), "name", self.name[~known][:1], f"between 0 and {self.element.shape[-1] - 1}")
        inside = (self.element >= ABSENT) & (self.element < self.group.order)
        require(bool(inside.all()), "element", self.element[~inside][:1], f"-1 or below {self.group.order}")
        needed = torch.arange(width[1]) < self.horizon[:, None]
        present = self.element.gather(-1, self.name) != ABSENT
        require(bool((present | ~needed).all()), "name", "a step whose clause is absent", "names with a clause")

    def __len__(self) -> int:
        return len(self.horizon)

    @functools.cached_property
    def horizons(self) -> tuple[int, ...]:
        """The H different horizons, increasing."""
        return tuple(self.horizon.unique().tolist())

    @functools.cached_property
    def starts(self) -> list[int]:
        """[T], the first prompt whose chain reaches each step."""
        return torch.searchsorted(self.horizon, torch.arange(1, self.name.shape[-1] + 1)).tolist()

    @functools.cached_property
    def horizon_mean(self) -> Float[torch.Tensor, "H P"]:
        """Weights that average a quantity of the prompts over those of each horizon."""
        same = (self.horizon == torch.tensor(self.horizons)[:, None]).double()
        return same / same.sum(1, keepdim=True)

    @functools.cached_property
    def step_name(self) -> Int[torch.Tensor, "*runs T P"]:
        """``name`` with prompts last."""
        return self.name.transpose(-1, -2).contiguous()

    @functools.cached_property
    def right(self) -> Int[torch.Tensor, "*runs T P"]:
        """The element each step should multiply by; the identity beyond the horizon."""
        element = self.element.gather(-1, self.name).transpose(-1, -2)
        running = torch.arange(element.shape[-2])[:, None] < self.horizon
        return torch.where(running, element, 0)

    @functools.cached_property
    def target(self) -> Int[torch.Tensor, "*runs P"]:
        """The right last product."""
        return running_products(self.group, self.right.movedim(-2, -1))[..., -1]

    @functools.cached_property
    def values(self) -> Float[torch.Tensor, "*runs N order P"]:
        """The values attention reads: the one-hot element of every clause, zero where a clause is absent."""
        one_hot = torch.nn.functional.one_hot(self.element + 1, self.group.order + 1)[..., 1:]
        return one_hot.movedim(-3, -1).double().contiguous()

    def select(self, prompts: Sequence[int]) -> WordProblems:
        """The prompts with these indices (in increasing order, no run axis needed), cut to their longest horizon."""
        index = torch.as_tensor(prompts)
        horizon = self.horizon[index]
        name, element = self.name[..., index, : int(horizon.max())], self.element[..., index, :]
        return WordProblems(self.group, horizon, name, element)


def draw_problems(
    group: FiniteGroup,
    horizons: Sequence[int],
    per_horizon: int,
    seed: int | Sequence[int | Sequence[int]],
    names: int = 45,
    context: str = "fixed",
    consecutive: bool = False,
    law: ArrayLike | None = None,
) -> WordProblems:
    """Random prompts: ``per_horizon`` of each horizon, elements independent, names without repetition in a chain.

    Args:
        horizons, per_horizon: different chain lengths of at most ``names``, and the prompts of each.
        seed: one seed, or a list of them (numbers or lists of numbers) for a leading axis of runs, each of which
            depends on its own only.
        names: N.
        context: ``fixed``, a clause for every name whatever the horizon, or ``chain``, only those the chain needs.
        consecutive: a chain is a stretch of consecutive names (positions), as the relative variant needs.
        law: [order], law of the elements; uniform when not given.
    """
    names, per_horizon = integer("names", names, low=1), integer("per_horizon", per_horizon, low=1)
    require(len(horizons) > 0, "horizons", horizons, "at least one chain length")
    horizons = sorted(integer("horizons", horizon, low=1) for horizon in horizons)
    distinct = len(set(horizons)) == len(horizons) and horizons[-1] <= names
    require(distinct, "horizons", horizons, f"different lengths of at most {names} names")
    require(context in ("fixed", "chain"), "context", context, "fixed or chain")
    law = None if law is None else probability_law("law", law, (group.order,))
    horizon, steps = np.repeat(horizons, per_horizon), np.arange(horizons[-1])
    seeds = [seed] if isinstance(seed, int | np.integer) else seed
    runs = []
    for rng in map(np.random.default_rng, seeds):
        if consecutive:
            start = rng.integers(0, names - horizon + 1)
            name = np.minimum(start[:, None] + steps, names - 1)
        else:
            name = rng.permuted(np.tile(np.arange(names), (len(horizon), 1)), axis=1)[:, : len(steps)]
        element = rng.choice(group.order, size=(len(horizon), names), p=law)
        if context == "chain":
            needed = np.zeros((len(horizon), names + 1), dtype=bool)
            np.put_along_axis(needed, np.where(steps < horizon[:, None], name, names), True, axis=1)
            element[~needed[:, :-1]] = ABSENT
        runs.append((name, element))
    name, element = (np.stack(rows) if seeds is seed else rows[0] for rows in zip(*runs, strict=True))
    return WordProblems(group, torch.as_tensor(horizon), torch.as_tensor(name), torch.as_tensor(element))


@functools.cache
def _tables(group: FiniteGroup) -> tuple[Int[torch.Tensor, "order order"], Int[torch.Tensor, "order order"]]:
    """The products, and the quotients [y, x] = x^-1 y, the element that leads from x to y."""
    products = torch.tensor(group.table)
    return products, products[products.argmin(1)].T.contiguous()


def quotients(group: FiniteGroup, start: torch.Tensor, stop: torch.Tensor) -> torch.Tensor:
    """start^-1 stop, elementwise."""
    return _tables(group)[1][stop, start]


def running_products(group: FiniteGroup, factors: Int[torch.Tensor, "*#batch T"]) -> Int[torch.Tensor, "*batch T"]:
    """x_l = x_{l-1} k_l along the last axis, from the identity."""
    flat = _tables(group)[0].flatten()
    steps = itertools.accumulate(factors.unbind(-1), lambda product, factor: flat[product * group.order + factor])
    return torch.stack(list(steps), -1)


def _permuted(rows: torch.Tensor, index: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """rows[..., index, :], [..., order, order, P], in slices of the first index axis that stay in the cache."""
    height = max(1, CACHED_ENTRIES // max(rows.numel(), 1))
    for top in range(0, len(index), height):
        block = index[top : top + height]
        yield slice(top, top + height), rows.index_select(-2, block.flatten()).unflatten(-2, block.shape)


def running_laws(law: Laws, problems: WordProblems) -> tuple[list[torch.Tensor], Float[torch.Tensor, "*runs order P"]]:
    """Forward pass: the law of x_{l-1} before every step, for chains still running, and the law of the last product.

    One step is y -> sum over x of law(x^-1 y) p(x); differentiable to any order.
    """
    quotient = _tables(problems.group)[1]
    current = torch.zeros_like(law[..., 0, :, :])
    current[..., 0, :] = 1
    before, finished, first = [], [], 0
    for step, start in enumerate(problems.starts):
        finished.append(current[..., : start - first])
        current, first = current[..., start - first :], start
        before.append(current)
        moved = _permuted(law[..., step, :, start:], quotient)
        current = torch.cat([(block * current[..., None, :, :]).sum(-2) for _, block in moved], -2)
    return before, torch.cat([*finished, current], -1)


def success_probability(law: Laws, problems: WordProblems) -> PerPrompt:
    """Probability that the last product is right, differentiable in the law."""
    last = running_laws(law, problems)[1]
    return last.gather(-2, problems.target.expand(last.shape[:-2] + last.shape[-1:])[..., None, :])[..., 0, :]


def success_and_sensitivity(law: Laws, problems: WordProblems) -> tuple[PerPrompt, Laws]:
    """Success probability and its derivative by the law, in about half the time of differentiating the former."""
    before, last = running_laws(law, problems)
    target = problems.target.expand(last.shape[:-2] + last.shape[-1:])[..., None, :]
    goal = torch.zeros_like(last).scatter_(-2, target, 1.0)
    sensitivity = torch.zeros_like(law)
    first = problems.starts[-1]
    value = goal[..., first:]  # probability to end right, given the running product
    for step in reversed(range(len(before))):
        start = problems.starts[step]
        value, first = torch.cat([goal[..., start:first], value], -1), start
        shares = []
        for factors, onward in _permuted(value, _tables(problems.group)[0].T):  # [k, x] = value(x k)
            sensitivity[..., step, factors, start:] = (onward * before[step][..., None, :, :]).sum(-2)
            shares.append((onward * law[..., step, factors, None, start:]).sum(-3))
        value = functools.reduce(torch.add, shares)
    return last.gather(-2, target)[..., 0, :], sensitivity


def step_mean(quantity: Float[torch.Tensor, "*#runs T P"], problems: WordProblems) -> Float[torch.Tensor, "*runs H"]:
    """A quantity of the steps averaged over the steps of every chain, then over the prompts of each horizon."""
    running = torch.arange(quantity.shape[-2])[:, None] < problems.horizon
    return (quantity * running / problems.horizon).sum(-2) @ problems.horizon_mean.T


def step_errors(law: Laws, problems: WordProblems) -> Float[torch.Tensor, "*runs H order"]:
    """Mean law of the one-step error e = (right)^-1 (done) over the steps and prompts of each horizon; 0 is none."""
    errors = []
    for done in _tables(problems.group)[0][problems.right].unbind(-1):  # right e, for every error e
        index = done.expand(law.shape[:-2] + law.shape[-1:])[..., None, :]
        errors.append(step_mean(law.gather(-2, index)[..., 0, :], problems))
    return torch.stack(errors, -1)
