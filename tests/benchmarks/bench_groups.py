"""How much faster L-fold convolution is through the irreps than by brute force, over L and the order of the group.

Two brute-force baselines, both with the Cayley table gathered into one matrix beforehand: repeated convolution,
L - 1 products of a row with an order x order matrix, and repeated squaring, about 2 log2 L such convolutions of two
functions. Each ratio is the median over repeats of baseline time over Fourier time, the two timed in turn.
"""

import time
from collections.abc import Callable
from statistics import median

import numpy as np

from rlvr_lib.theory.groups import FiniteGroup, alternating_group, cyclic_group, symmetric_group

REPEATS = 15
FASTER = "times faster than the baseline"


def repeated_convolution(group: FiniteGroup, f: np.ndarray, power: int) -> np.ndarray:
    """f * ... * f by ``power`` - 1 convolutions with the same matrix."""
    step = f[group.table[group.inverses]]
    result = f
    for _ in range(power - 1):
        result = result @ step
    return result


def repeated_squaring(group: FiniteGroup, f: np.ndarray, power: int) -> np.ndarray:
    """f * ... * f by squaring functions on the group, one gather and one product a convolution."""
    quotients = group.table[group.inverses]
    result, square = np.eye(group.order)[0], f
    while power:
        if power % 2:
            result = result @ square[quotients]
        power //= 2
        if power:
            square = square @ square[quotients]
    return result


def seconds(call: Callable[[], np.ndarray]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def run() -> list[dict]:
    """Rows with name, baseline, ratio (baseline time over Fourier time, median) and repeats."""
    rows = []
    for group in (symmetric_group(3), alternating_group(5), cyclic_group(96), symmetric_group(5)):
        f = np.random.default_rng(0).dirichlet(np.ones(group.order))
        for power in (5, 45, 10_000):
            for baseline in (repeated_convolution, repeated_squaring):
                np.testing.assert_allclose(group.convolve_power(f, power), baseline(group, f, power), atol=1e-12)
                ratios = [
                    seconds(lambda b=baseline, g=group, f=f, p=power: b(g, f, p))
                    / seconds(lambda g=group, f=f, p=power: g.convolve_power(f, p))
                    for _ in range(REPEATS)
                ]
                name = f"{group.name}, order {group.order}, L = {power}"
                rows.append(
                    {
                        "name": name,
                        "baseline": baseline.__name__.replace("_", " "),
                        "ratio": median(ratios),
                        "meaning": FASTER,
                        "repeats": REPEATS,
                    }
                )
    return rows


if __name__ == "__main__":
    print(f"{'case':30} {'baseline':22} {'baseline / Fourier':>18} {'repeats':>8}")
    for row in run():
        print(f"{row['name']:30} {row['baseline']:22} {row['ratio']:18.2f} {row['repeats']:8d}")
