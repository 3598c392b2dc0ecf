"""The theory of RLVR, rederived and re-runnable: one data type, five theorems, claims that can fail.

Every public name is imported from its module on first use, so importing the package costs nothing, and a notebook
depends on the modules it names and on no others.
"""

from importlib import import_module

EXPORTS = {
    "Responses": "responses",
    "success_rate": "responses",
    "gap_alignment": "theory.gap",
    "gradient_gap": "theory.gap",
    "group_gain": "theory.advantages",
    "half_gain_step": "theory.gap",
    "log_odds": "theory.gap",
    "policy_gradient": "theory.gap",
    "success_lower_bound": "theory.gap",
    "AlongStep": "theory.threshold",
    "critical_step": "theory.threshold",
    "log_success_curvature": "theory.threshold",
    "token_critical_step": "theory.threshold",
    "token_concavity_step": "theory.threshold",
    "failure_energy_bound": "theory.threshold",
    "estimator_gain": "theory.advantages",
    "critical_learning_rate": "theory.threshold",
    "first_return_step": "theory.threshold",
    "FiniteGroup": "theory.groups",
    "alternating_group": "theory.groups",
    "cyclic_group": "theory.groups",
    "dihedral_group": "theory.groups",
    "quaternion_group": "theory.groups",
    "symmetric_group": "theory.groups",
    "all_permutations": "theory.readings",
    "attention_success": "theory.readings",
    "breakpoint_cycles": "theory.readings",
    "permanent": "theory.readings",
    "reading_success": "theory.readings",
    "clause_attention": "theory.relay",
    "clause_pair_law": "theory.relay",
    "coset_floor": "theory.relay",
    "escape_time": "theory.relay",
    "handoff_exponent": "theory.relay",
    "next_ratio": "theory.relay",
    "normalized_success": "theory.relay",
    "pair_success": "theory.relay",
    "relay_velocity": "theory.relay",
    "stage_time": "theory.relay",
    "uniform_error_success": "theory.relay",
    "walk_decay_rate": "theory.relay",
    "walk_success": "theory.relay",
    "curvature_bound": "theory.curvature",
    "curvature_constant": "theory.curvature",
    "smoothness": "theory.curvature",
    "power_step": "theory.curvature",
    "guaranteed_gain": "theory.curvature",
    "guaranteed_gain_ratio": "theory.curvature",
    "gradient_cosines": "theory.curvature",
    "two_arm_time": "theory.curvature",
    "power_gain": "theory.advantages",
    "within_class_noise": "theory.curvature",
    "optimal_group_weight": "theory.curvature",
    "best_power": "theory.curvature",
    "gradient_variance": "theory.baseline",
    "optimal_baseline": "theory.baseline",
    "baseline_loss": "theory.baseline",
    "mean_baseline_loss": "theory.baseline",
    "critical_energy_ratio": "theory.baseline",
    "mean_of_others": "theory.baseline",
    "leave_one_out_baselines": "theory.baseline",
    "pooled_baselines": "theory.baseline",
    "squared_signal": "theory.signal",
    "gradient_snr": "theory.signal",
    "snr_learning_rate": "theory.signal",
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
