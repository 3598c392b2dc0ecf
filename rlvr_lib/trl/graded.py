"""Graded rewards in a measured run: what counts as success in part, and how GRPO's divisor differs from the coin's.

By the coin lemma (``rlvr_lib.theory.graded``) a reward in [0, 1] may stand wherever the theory has success: in the
success rate, the gap, the curvature along an update and the optimal baseline. It may not where a formula squares it,
because r^2 is not r: the standard deviation of a group, and the second moment of a gradient.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from rlvr_lib.arguments import integer, require
from rlvr_lib.trl.step import Values


def coin_success(reward: Float[torch.Tensor, " N"], low: float = 0.0, high: float = 1.0) -> Float[torch.Tensor, " N"]:
    """(r - low) / (high - low) in float64, the probability of success of each response's coin; NaN for no reward.

    Args:
        reward: summed with their weights; NaN where there is none.
        low, high: what no reward falls below, and what none exceeds.
    """
    require(bool(np.isfinite([low, high]).all()) and low < high, "high", high, f"a finite number above low = {low}")
    outside = reward[~reward.isnan() & ~((reward >= low) & (reward <= high))]
    require(len(outside) == 0, "reward", outside[:1].tolist(), f"in [{low}, {high}], the range that was given")
    return (reward.double() - low) / (high - low)


def graded_spread(success: Float[torch.Tensor, " N"], group_size: int) -> Values:
    """What the groups of graded success say, over the groups with two responses or more that have one; None for none.

    ``success_rate``; ``success_std``, the mean population deviation of a group, which GRPO divides by; ``coin_std``,
    the mean of sqrt(J (1 - J)), which the theory has; ``dead_groups``, the share of groups without a difference;
    ``stretch``, coin_std over success_std where there is a difference: so many times longer than for right and wrong
    answers of the same success is GRPO's step in large groups, 1 for binary rewards.

    Args:
        success: in [0, 1], group after group; NaN where there is none.
        group_size: G, a divisor of N.
    """
    G = integer("group_size", group_size, low=2)
    require(len(success) % G == 0, "success", f"{len(success)} of them", f"a multiple of {G}, group after group")
    each = success.double().view(-1, G)
    each = each[(~each.isnan()).sum(1) >= 2]
    if len(each) == 0:
        return dict.fromkeys(("success_rate", "success_std", "coin_std", "dead_groups", "stretch"))
    inside = each[~each.isnan()]
    require(bool(((inside >= 0) & (inside <= 1)).all()), "success", inside[:1].tolist(), "in [0, 1]")
    mean = each.nanmean(1)
    real = (each - mean[:, None]).square().nanmean(1).sqrt()
    # Equal rewards whose mean has been rounded are equal all the same.
    same = each.nan_to_num(2.0).amin(1) == each.nan_to_num(-1.0).amax(1)
    real, coin = torch.where(same, 0.0, real), (mean * (1 - mean)).clamp(min=0).sqrt()
    alive = ~same
    return {
        "success_rate": float(mean.mean()),
        "success_std": float(real.mean()),
        "coin_std": float(coin.mean()),
        "dead_groups": float(same.double().mean()),
        "stretch": float(coin[alive].mean() / real[alive].mean()) if bool(alive.any()) else None,
    }
