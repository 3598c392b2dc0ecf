"""The theory of RLVR, rederived and re-runnable: one data type, five theorems, claims that can fail.

Every public name is imported from its module on first use, so importing the package costs nothing, and a notebook
depends on the modules it names and on no others.
"""

from importlib import import_module

EXPORTS = {
    "Responses": "responses",
    "success_rate": "responses",
    "gap_alignment": "gap",
    "gradient_gap": "gap",
    "group_gain": "gap",
    "half_gain_step": "gap",
    "log_odds": "gap",
    "policy_gradient": "gap",
    "success_lower_bound": "gap",
    "critical_step": "threshold",
    "log_success_curvature": "threshold",
    "token_critical_step": "threshold",
    "token_concavity_step": "threshold",
    "failure_energy_bound": "threshold",
    "estimator_gain": "threshold",
    "critical_learning_rate": "threshold",
    "first_return_step": "threshold",
    "FiniteGroup": "groups",
    "alternating_group": "groups",
    "cyclic_group": "groups",
    "dihedral_group": "groups",
    "quaternion_group": "groups",
    "symmetric_group": "groups",
    "all_permutations": "permutations",
    "attention_success": "permutations",
    "breakpoint_cycles": "permutations",
    "hultman_numbers": "permutations",
    "permanent": "permutations",
    "reading_success": "permutations",
    "clause_attention": "relay",
    "clause_pair_law": "relay",
    "coset_floor": "relay",
    "escape_time": "relay",
    "handoff_exponent": "relay",
    "next_ratio": "relay",
    "normalized_success": "relay",
    "pair_success": "relay",
    "relay_velocity": "relay",
    "stage_time": "relay",
    "uniform_error_success": "relay",
    "walk_decay_rate": "relay",
    "walk_success": "relay",
    "curvature_bound": "curvature",
    "curvature_constant": "curvature",
    "smoothness": "curvature",
    "power_step": "curvature",
    "guaranteed_gain": "curvature",
    "guaranteed_gain_ratio": "curvature",
    "gradient_cosines": "curvature",
    "two_arm_time": "curvature",
    "power_gain": "curvature",
    "within_class_noise": "curvature",
    "optimal_group_weight": "curvature",
    "best_power": "curvature",
    "gradient_variance": "baseline",
    "optimal_baseline": "baseline",
    "baseline_loss": "baseline",
    "mean_baseline_loss": "baseline",
    "critical_energy_ratio": "baseline",
    "mean_of_others": "baseline",
    "leave_one_out_baselines": "baseline",
    "pooled_baselines": "baseline",
    "two_gradient_baseline": "baseline",
    "two_gradient_estimate": "baseline",
    "squared_signal": "baseline",
    "gradient_snr": "baseline",
    "snr_learning_rate": "baseline",
}

__all__ = list(EXPORTS)


def __getattr__(name: str) -> object:
    if name not in EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{EXPORTS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *EXPORTS})
