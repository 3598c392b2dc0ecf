"""What measuring costs on TRL: processor time of steps of 8 prompts x 16 responses, against a plain GRPOTrainer.

The tiny model on a CPU generates at most 7 tokens a response, so a forward pass weighs more here than in a run with
long responses, and a second rollout less. Repeats alternate between the two.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

COST = "times the cost of the baseline"
BASELINE = "GRPOTrainer of TRL"
SHORT, LONG = 8, 50


def steps_timed(trainer, steps: int) -> Callable[[], float]:
    """Processor seconds of a step, on average over a run of that many."""
    trainer.args.max_steps = steps

    def measure() -> float:
        with contextlib.redirect_stdout(sys.stderr):
            start = time.process_time()
            trainer.train()
            return (time.process_time() - start) / steps

    return measure


def run() -> list[dict]:
    """One row a mode: its mean step over the plain one."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from trl import GRPOTrainer
    from trl_runs import build

    from rlvr_lib.testbeds.grpo import one_thread
    from rlvr_lib.testbeds.qwen import QwenTestbed
    from rlvr_lib.trl import Act, Measure, MeasuredGRPOTrainer, watch

    warm = QwenTestbed(alphabet="vocabulary")

    def trainer(kind, **options):
        testbed, arguments = warm.at(warm.theta), {"scale_rewards": "none", "logging_steps": 1000}
        return build(kind, testbed, 8, 16, LONG, 1e-4, arguments=arguments, **options)

    def measured(act=None, **settings):
        return trainer(MeasuredGRPOTrainer, measure=Measure(**settings), act=act)

    def watched():
        plain = trainer(GRPOTrainer)
        watch(plain)
        return plain

    cheap = vars(Measure.cheap(scores="last-layer"))
    modes = [
        ("cheap mode: every 25 steps, last layer, fresh rollout", lambda: measured(**cheap), LONG, 1.1, 5),
        ("cheap mode, output head", lambda: measured(**cheap | {"scores": "head"}), LONG, 1.1, 5),
        ("cheap mode, lagged optimal baseline", lambda: measured(Act(baseline="lagged"), **cheap), LONG, 1.1, 5),
        ("reward watch on a plain trainer", watched, LONG, 1.1, 5),
        ("every step, last layer, fresh rollout", lambda: measured(scores="last-layer"), SHORT, None, 3),
        ("every step, all parameters, fresh rollout", lambda: measured(scores="all"), SHORT, None, 3),
        ("every step, all parameters, own rollout", lambda: measured(scores="all", fresh=False), SHORT, None, 3),
        ("every step, output head, own rollout, not along the update",
         lambda: measured(scores="head", fresh=False, along=False), SHORT, None, 3),
        ("pooled optimal baseline every step, output head, cheap otherwise",
         lambda: measured(Act(baseline="pooled"), **cheap | {"scores": "head"}), SHORT, None, 3),
    ]  # fmt: skip
    rows = []
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, make, steps, bound, repeats in modes:
            ours, theirs = steps_timed(make(), steps), steps_timed(trainer(GRPOTrainer), steps)
            pairs = [(ours(), theirs()) for _ in range(repeats + 1)][1:]
            rows.append(
                {
                    "name": name, "baseline": BASELINE, "ratio": statistics.median(a / b for a, b in pairs),
                    "meaning": COST, "bound": bound, "repeats": repeats,
                    "ms": 1e3 * statistics.median(a for a, _ in pairs), "bound_ms": None,
                    "baseline_ms": 1e3 * statistics.median(b for _, b in pairs),
                }
            )  # fmt: skip
    return rows
