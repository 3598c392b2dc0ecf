"""What a clipped probability ratio lets through when a batch is used more than once.

The clipped surrogate of a response is min(ratio A, clip(ratio) A); it has the gradient ratio A s while the ratio is on
the near side of its bound, and none beyond. On the first pass every ratio is 1, so clipping changes nothing: it limits
passes and not steps. Source: the surrogate of PPO, as in GRPO; what follows is derived here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from rlvr_lib.arguments import Reals, open_unit, positive, real_array


def clipped_weights(
    advantage: ArrayLike, log_ratio: ArrayLike, clip: float | None = 0.2, high: float | None = None
) -> Reals:
    """What the score of a response is multiplied with in the gradient of its clipped surrogate, elementwise.

    Args:
        advantage: A, any shape.
        log_ratio: log pi - log pi when it was sampled, nats.
        clip: the ratio counts above 1 - clip for A < 0, and below 1 + clip for A > 0; None clips nothing.
        high: in place of clip for A > 0, positive (DAPO's clip-higher).
    """
    advantage, log_ratio = real_array("advantage", advantage), real_array("log_ratio", log_ratio)
    weight = advantage * np.exp(log_ratio)
    if clip is None:
        return weight[()]
    low = np.log1p(-open_unit("clip", clip))
    top = np.log1p(positive("high", clip if high is None else high))
    cut = np.where(advantage > 0, log_ratio > top, log_ratio < low)
    return np.where(cut, 0.0, weight)[()]
