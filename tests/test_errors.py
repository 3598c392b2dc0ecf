"""Every numeric argument of every theorem function is named in the error that a wrong value raises."""

import numpy as np
import pytest

import rlvr_lib
from rlvr_lib import Responses, cyclic_group

MIXED = Responses(reward=[1, 0, 0], score=[[1.0, 0.0], [0.0, 1.0], [1.0, 2.0]])
ROWS = [[1.0, 0.0], [0.5, 1.0]]
ARGUMENTS = {
    "attention_success": {"group": cyclic_group(2), "attention": np.eye(2)},
    "baseline_loss": {"success": 0.5, "energy_ratio": 2.0, "baseline": 0.5},
    "best_power": {"variance": 0.2, "noise": 0.1, "group_size": 4, "overlap": 0.1, "mean_variance": 0.2},
    "breakpoint_cycles": {"permutations": [0, 1]},
    "clause_attention": {"logit": 1.0, "context": 2},
    "clause_pair_law": {"clause_law": [0.5, 0.5], "attention": 0.5},
    "coset_floor": {"group": cyclic_group(2), "clause_law": [0.5, 0.5]},
    "critical_energy_ratio": {"success": 0.5},
    "critical_learning_rate": {"success": 0.5, "curvature": 1.0, "length": 2.0, "group_size": 4},
    "critical_step": {"success": 0.5, "alignment": 1.0, "curvature": 1.0},
    "curvature_bound": {"success": 0.5, "diameter": 1.0},
    "escape_time": {"horizon": 5, "start": 0.5, "stop": 0.6, "order": 6},
    "estimator_gain": {"success": 0.5, "group_size": None},
    "failure_energy_bound": {"success": 0.5, "horizon": 4, "score_range": 1.0},
    "gap_alignment": {"r": MIXED, "direction": [1.0, 0.0]},
    "gradient_cosines": {"gradients": ROWS},
    "gradient_snr": {"gradients": ROWS},
    "gradient_variance": {"r": MIXED, "baseline": 0.5, "samples": 2},
    "group_gain": {"success": 0.5, "group_size": 4},
    "guaranteed_gain": {"success": 0.5, "power": 1.0, "gradient_norm": 1.0, "diameter": 1.0},
    "guaranteed_gain_ratio": {"std": 0.3},
    "half_gain_step": {"alignment": 1.0, "diameter": 1.0},
    "handoff_exponent": {"ratio": 7.0, "horizon": 5.0, "normalized_success": 0.5},
    "leave_one_out_baselines": {"reward": [1.0, 0.0], "score_energy": [1.0, 2.0]},
    "log_odds": {"p": 0.5},
    "log_success_curvature": {"reward": [1.0, 1.0], "slope": [1.0, 2.0], "second": [0.0, 1.0], "prob": [0.5, 0.5]},
    "mean_baseline_loss": {"success": 0.5, "energy_ratio": 2.0},
    "mean_of_others": {"value": [1.0, 2.0], "weight": [1.0, 1.0]},
    "normalized_success": {"success": 0.5, "order": 6},
    "optimal_group_weight": {"variance": 0.2, "noise": 0.1, "group_size": 4, "overlap": 0.1, "mean_variance": 0.2},
    "pair_success": {"group": cyclic_group(2), "joint_distribution": np.eye(2) / 2, "horizon": 3},
    "permanent": {"matrix": np.eye(2)},
    "pooled_baselines": {"reward": [[1.0, 0.0]] * 2, "score_energy": [[1.0, 2.0]] * 2},
    "power_gain": {"success": 0.5, "power": 1.0, "group_size": 4},
    "power_step": {"success": 0.5, "power": 1.0, "diameter": 1.0},
    "reading_success": {"group": cyclic_group(2), "permutations": [0, 1]},
    "relay_velocity": {"logit": 1.0, "horizons": [5, 15], "order": 6, "contexts": 2},
    "smoothness": {"diameter": 1.0},
    "snr_learning_rate": {"snr": 1.0, "smoothness": 1.0},
    "squared_signal": {"gradients": ROWS},
    "stage_time": {"exponent": 2.0},
    "success_lower_bound": {"initial_success": 0.5, "progress": 1.0},
    "token_concavity_step": {"success": 0.5, "alignment": 1.0, "horizon": 4, "concavity_bound": 1.0},
    "token_critical_step": {
        **{"success": 0.5, "alignment": 1.0, "horizon": 4, "score_range": 1.0, "hessian_bound": 0.1}
    },
    "two_arm_time": {"power": 1, "start": 0.0, "stop": 1.0, "rate": 1.0},
    "uniform_error_success": {"order": 6, "accuracy": 0.9, "horizon": 5},
    "walk_decay_rate": {"group": cyclic_group(2), "error_distribution": [0.9, 0.1]},
    "walk_success": {"group": cyclic_group(2), "error_distribution": [0.9, 0.1], "horizon": 5},
}
NUMERIC = [
    (function, name) for function, arguments in ARGUMENTS.items() for name in arguments if name not in ("r", "group")
]


@pytest.mark.parametrize("function", ARGUMENTS)
def test_the_arguments_themselves_are_good(function):
    assert np.isfinite(getattr(rlvr_lib, function)(**ARGUMENTS[function])).all()


@pytest.mark.parametrize(("function", "name"), NUMERIC)
@pytest.mark.parametrize("bad", ["not a number", "text", "complex", "infinite"])
def test_a_wrong_argument_is_named(function, name, bad):
    good = np.zeros(np.shape(ARGUMENTS[function][name]))
    wrong = {
        "not a number": good + np.nan,
        "text": np.full(good.shape, "x"),
        "complex": good + 1j,
        "infinite": good - np.inf,
    }[bad]
    with pytest.raises(ValueError, match=rf"^{name} must be .+, got|^{name} must be an array of "):
        getattr(rlvr_lib, function)(**{**ARGUMENTS[function], name: wrong[()]})


DIMENSIONS = [
    ("gap_alignment", "direction"),
    ("gradient_cosines", "gradients"),
    ("gradient_snr", "gradients"),
    ("squared_signal", "gradients"),
    ("leave_one_out_baselines", "reward"),
    ("permanent", "matrix"),
    ("attention_success", "attention"),
]


@pytest.mark.parametrize(("function", "name"), DIMENSIONS)
def test_an_axis_too_many_is_named(function, name):
    wrong = np.asarray(ARGUMENTS[function][name])[None]
    with pytest.raises(ValueError, match=f"^{name} must be"):
        getattr(rlvr_lib, function)(**{**ARGUMENTS[function], name: wrong})
