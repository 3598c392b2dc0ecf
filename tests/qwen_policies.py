"""Small Qwen testbeds, and a test of frequencies, that several test modules share."""

import numpy as np
import torch
from scipy.stats import binom

from rlvr_lib.testbeds.qwen import QwenTestbed
from rlvr_lib.theory.groups import symmetric_group

FALSE_ALARM = 1e-6
S3 = symmetric_group(3)


def scrambled(seed, **arguments):
    """An untrained tiny testbed in float64 whose parameters are all random, norms and biases too."""
    testbed = QwenTestbed(warm_start=None, dtype=torch.float64, **arguments)
    noise = np.random.default_rng(seed).standard_normal(len(testbed.theta))
    return testbed.at(testbed.theta + 0.2 * noise)


def surprise(count, prob):
    """Smallest two-sided exact binomial tail over the cells, times the number of cells: at most its level by chance."""
    n = count.sum()
    tail = np.minimum(binom.cdf(count, n, prob), binom.sf(count - 1, n, prob))
    return 2 * tail.min() * len(count)
