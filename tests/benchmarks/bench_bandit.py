"""The vectorised bandit sweep against the same sweep one instance, direction and step length at a time."""

import time
from statistics import median

import numpy as np

from rlvr_lib.testbeds.bandit import log_odds_and_gap

REPEATS = 7
FASTER = "times faster than the baseline"


def run() -> list[dict]:
    """Rows with name, baseline, ratio (loop time over vectorised time, median) and repeats."""
    rng = np.random.default_rng(0)
    instances, lengths = 60, 60
    features, theta = rng.standard_normal((instances, 8, 4)), rng.standard_normal((instances, 4))
    reward = np.tile(np.arange(8.0) < 2, (instances, 1)).astype(float)
    eta = np.linspace(0, 2, lengths)
    _, gap = log_odds_and_gap(theta, features, reward)

    def vectorised():
        return log_odds_and_gap(theta + eta[:, None, None] * gap, features, reward)[0]

    def loop():
        return [
            [log_odds_and_gap(theta[i] + e * gap[i], features[i], reward[i])[0] for i in range(instances)] for e in eta
        ]

    np.testing.assert_allclose(vectorised(), loop())
    ratios = []
    for _ in range(REPEATS):
        times = []
        for call in (loop, vectorised):
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)
        ratios.append(times[0] / times[1])
    name = f"log-odds and gap, {instances} instances x {lengths} step lengths"
    return [
        {"name": name, "baseline": "plain NumPy loop", "ratio": median(ratios), "meaning": FASTER, "repeats": REPEATS}
    ]
