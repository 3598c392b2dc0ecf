"""The four rewards of chapter 2 at several lengths and levels of success, for tests of theory and of testbeds."""

import numpy as np

from rlvr_lib.testbeds.lines import CountWindow, TokenChain

LENGTHS = np.array([16, 64, 256, 1024])
LEVELS = np.array([0.1, 0.5, 0.9, 0.99])[:, None]
ESTIMATORS = [("reinforce", None), ("grpo", None), ("grpo", LENGTHS)]

FAMILIES = {
    "aggregate": CountWindow(LENGTHS, np.array([0.25, 0.5, 0.75, 1.0])[:, None] * np.sqrt(LENGTHS)),
    "shared": TokenChain.with_peak(LENGTHS, LEVELS),
    "fixed token error": TokenChain.with_token_error(LENGTHS, np.array([1e-6, 1e-5, 1e-4, 1e-3])[:, None]),
    "unshared": TokenChain.with_peak(LENGTHS, LEVELS, shared=False),
}


def exponent(length, value):
    return np.polyfit(np.log(length), np.log(value), 1)[0]
