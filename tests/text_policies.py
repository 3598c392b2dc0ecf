"""Small text testbeds that several test modules share."""

import numpy as np
import torch

from rlvr_lib.testbeds.qwen import WarmStart
from rlvr_lib.testbeds.text import Shape, Sums, TextTestbed

SMALL = Shape(width=16, layers=2, heads=2, kv_heads=1, hidden=32)
SHORT = Sums(largest=9, steps=(1, 2), longest=24)
BRIEF = WarmStart(clean_steps=12, noisy_steps=0, noise=0.0, batch=16, learning_rate=1e-2, ramp=2, decay=2)


def scrambled(seed, task=SHORT, **arguments):
    """An untrained small testbed in float64 whose parameters are all random, norms too."""
    testbed = TextTestbed(task, warm_start=None, shape=SMALL, dtype=torch.float64, **arguments)
    noise = np.random.default_rng(seed).standard_normal(len(testbed.theta))
    return testbed.at(testbed.theta + 0.2 * noise)
