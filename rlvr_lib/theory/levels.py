"""The next level of a curriculum, from pass rates at the present ones (theorem 3, 3e).

Success above chance falls as a power of itself, y_next = y^kappa, with kappa the ratio of the levels at least, so that
a measured level says how far the next one may lie. Over a mixture of prompts the power is taken prompt by prompt,
because the mean of y^kappa is at least the mean to the power kappa: the pooled rate gives a level that is safe, the
rates of single prompts one that lies as far or farther.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from rlvr_lib.arguments import closed_interval, open_unit, positive, require


@dataclass(frozen=True)
class NextLevel:
    """Where to go on from: levels in the units of the given ones, success above chance as ``y``.

    ``safe`` is the farthest level whose predicted mean y is at least ``visible`` however the prompts differ; ``reach``
    is the farthest by the prompts' own rates, at least ``safe``, and infinite where enough prompts are never wrong.
    Both take kappa = R^``bend``. ``mixture`` has equal shares, as the runs of chapter 3, of every level that can be
    seen and of ``safe``; where a visible level is at most half solved, none is added. ``push`` is -e y ln y of the
    mean: at most 1, at y = 1/e.
    """

    base: float
    safe: float
    reach: float
    bend: float
    y: dict[float, float]
    push: dict[float, float]
    mixture: dict[float, float]


def next_level(success: Mapping[float, ArrayLike], chance: float = 0.0, visible: float = 0.1) -> NextLevel:
    """The next level and a mixture, from the pass rates of prompts at each level. Source: derived here (3e).

    One level alone is taken for that of a linear head in a fixed context, kappa = R. A head that saturates, or a
    context that grows with the chain, has a larger one; so a second level, the next easier or the next harder, raises
    ``bend`` above 1 where success fell by more. No answer lies beyond a harder level that was measured and not seen.
    Rates estimated from few responses a prompt are spread by noise, and ``reach`` takes the noise for a spread of the
    prompts; ``safe`` does not.

    >>> alike, mixed = next_level({5: [0.8, 0.8]}), next_level({5: [0.65, 0.95]})
    >>> round(alike.safe, 1), round(alike.reach, 1), round(mixed.safe, 1), round(mixed.reach, 1)
    (51.6, 51.6, 51.6, 156.9)
    >>> round(next_level({5: 0.8, 20: 0.05}).safe, 1)
    17.4

    Args:
        success: for each level, a positive number such as the length of a chain, the pass rates in [0, 1] of its
            prompts, all of the same weight; one number is a pooled rate.
        chance: pass rate of a blind guess, in [0, 1).
        visible: mean y that the next level should have, strictly between 0 and 1.

    Raises:
        ValueError: no level has a mean y from ``visible`` up to, and without, 1, so that there is nothing to go on.
    """
    require(len(success) > 0, "success", dict(success), "at least one level")
    blind = float(closed_interval("chance", chance, 0, 1))
    require(blind < 1, "chance", blind, "below 1")
    least = float(open_unit("visible", visible))
    prompts = {}
    for level in sorted(success):
        positive("level", level)
        rates = np.atleast_1d(closed_interval("success", success[level], 0, 1))
        require(rates.ndim == 1 and rates.size > 0, "success", f"shape {rates.shape}", "a list of rates a level")
        prompts[float(level)] = (rates - blind) / (1 - blind)
    y = {level: float(rates.mean()) for level, rates in prompts.items()}
    known = [level for level, mean in y.items() if least <= mean < 1]
    require(bool(known), "success", y, f"a level with a mean above chance from {least:g} up to, and without, 1")
    base = known[-1]
    bend = max([1.0, *(_bend(y, *pair) for pair in pairwise(sorted(y)) if base in pair)])
    beyond = min((level for level in y if level > base and y[level] < least), default=np.inf)
    safe = base * (np.log(least) / np.log(y[base])) ** (1 / bend)
    if safe >= beyond:  # its success is not above chance, which says no more than that it is too far
        safe = np.sqrt(base * beyond)
    reach = min(base * _exponent(prompts[base], least) ** (1 / bend), beyond)
    seen = [level for level, mean in y.items() if mean >= least]
    shares = seen if any(y[level] <= 0.5 for level in seen) else [*seen, float(safe)]
    return NextLevel(
        base=base,
        safe=float(safe),
        reach=float(max(safe, reach)),
        bend=bend,
        y=y,
        push={level: float(-np.e * mean * np.log(mean)) if mean > 0 else 0.0 for level, mean in y.items()},
        mixture={level: 1 / len(shares) for level in shares},
    )


def _bend(y: Mapping[float, float], easier: float, harder: float) -> float:
    """ln kappa / ln R between two levels; 1 where one of them has no y strictly between 0 and 1, or y does not fall."""
    if not 0 < y[harder] < y[easier] < 1:
        return 1.0
    return float(np.log(np.log(y[harder]) / np.log(y[easier])) / np.log(harder / easier))


def _exponent(y: np.ndarray, visible: float) -> float:
    """The kappa at which the mean of y^kappa falls to ``visible``; a rate below chance counts as chance."""
    y = np.clip(y, 0, 1)
    if (y == 1).mean() >= visible:
        return np.inf
    high = 2.0
    while (y**high).mean() > visible:
        high *= 2
    return float(brentq(lambda kappa: (y**kappa).mean() - visible, 0, high))
