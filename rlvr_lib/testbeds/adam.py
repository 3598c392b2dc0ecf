"""Adam on arrays of any shape, for testbeds whose gradients are no torch tensors."""

from __future__ import annotations

import numpy as np

from rlvr_lib.arguments import Reals, open_unit


class Adam:
    """Adam with torch's defaults, no weight decay, on arrays of any shape: what a gradient becomes, at rate one.

    ``second`` is the weight of the past in the mean of the squares, whose memory is 1 / (1 - second) steps.
    """

    first, epsilon = 0.9, 1e-8

    def __init__(self, second: float = 0.999) -> None:
        self.second, self.steps = float(open_unit("second", second)), 0
        self.mean = self.square = np.zeros(())

    def __call__(self, gradient: Reals, square: Reals | None = None) -> Reals:
        """The next update; ``square`` is the expected square of the gradient where that is not random."""
        self.steps += 1
        self.mean = self.first * self.mean + (1 - self.first) * gradient
        self.square = self.second * self.square + (1 - self.second) * (gradient**2 if square is None else square)
        mean, spread = self.mean / (1 - self.first**self.steps), self.square / (1 - self.second**self.steps)
        return mean / (np.sqrt(spread) + self.epsilon)
