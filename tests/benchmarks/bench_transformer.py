"""Speed of the synthetic transformer against the obvious way of doing the same, timed in turn in the same process."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch

from rlvr_lib import policy_gradient, success_rate
from rlvr_lib.testbeds.transformer import AttentionPolicy, TransformerTestbed
from rlvr_lib.testbeds.transformer.ensemble import train
from rlvr_lib.testbeds.transformer.problems import draw_problems, success_and_sensitivity, success_probability
from rlvr_lib.theory.groups import symmetric_group

HORIZONS = (5, 15, 45)


FASTER = "times faster than the baseline"


def compare(name: str, ours: Callable, baseline_name: str, baseline: Callable, repeats: int) -> dict:
    """Median over repeats of (time of the baseline) / (time of ours), the two run in turn after one warm-up each."""
    ours(), baseline()
    times = []
    for _ in range(repeats):
        pair = []
        for function in (ours, baseline):
            start = time.perf_counter()
            function()
            pair.append(time.perf_counter() - start)
        times.append(pair)
    return {
        "name": name,
        "baseline": baseline_name,
        "ratio": median(slow / fast for fast, slow in times),
        "meaning": FASTER,
        "repeats": repeats,
        "seconds": median(fast for fast, _ in times),
    }


def training(seeds: int, chains: int, iterations: int, repeats: int) -> dict:
    """Expected-gradient training of several seeds at once, against one seed after the other."""
    policy = AttentionPolicy()
    theta = policy.initial(np.log(4))[None]
    group = symmetric_group(3)
    together = draw_problems(group, HORIZONS, chains, range(seeds), context="chain")
    apart = [draw_problems(group, HORIZONS, chains, [seed], context="chain") for seed in range(seeds)]
    return compare(
        f"{iterations} iterations, {seeds} seeds x {chains} chains a horizon, horizons {HORIZONS}",
        lambda: train(policy, theta.expand(seeds, -1), together, iterations, 9.0),
        "one seed at a time",
        lambda: [train(policy, theta, problems, iterations, 9.0) for problems in apart],
        repeats,
    )


def programming_against_enumeration(repeats: int) -> dict:
    """Success and gradient of one prompt with 1,296 responses."""
    policy = AttentionPolicy()
    problems = draw_problems(symmetric_group(3), (4,), 1, 0)
    testbed = TransformerTestbed(policy, problems, policy.initial(4.0))

    def enumerate_all() -> tuple:
        responses = testbed.enumerate(0)
        return success_rate(responses), policy_gradient(responses)

    name = "exact success and gradient by dynamic programming, 1,296 responses"
    return compare(name, lambda: testbed.exact(0), "enumeration of all responses", enumerate_all, repeats)


def backward_against_autograd(repeats: int) -> dict:
    """Derivative of success with respect to the laws of the steps, 768 chains."""
    policy = AttentionPolicy()
    problems = draw_problems(symmetric_group(3), HORIZONS, 256, 0, context="chain")
    law = policy.step_law(policy.initial(np.log(4)), problems)
    leaf = law.clone().requires_grad_()
    return compare(
        "forward and backward pass over 3 x 256 chains",
        lambda: success_and_sensitivity(law, problems),
        "autograd through the forward pass",
        lambda: torch.autograd.grad(success_probability(leaf, problems).sum(), leaf),
        repeats,
    )


def run() -> list[dict]:
    """All comparisons, on one torch thread; about half a minute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [
            training(seeds=32, chains=16, iterations=10, repeats=5),
            training(seeds=4, chains=256, iterations=10, repeats=5),
            programming_against_enumeration(repeats=50),
            backward_against_autograd(repeats=20),
        ]
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    for row in run():
        print(f"{row['ratio']:7.1f} x  {row['seconds']:8.4f} s  {row['name']}  (against {row['baseline']})")
