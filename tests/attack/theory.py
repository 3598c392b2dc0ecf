"""Ways to break the theory functions: module, original text, broken text, and what kind of error it is.

The kinds are those of a slip in a derivation: a sign, a constant, an exponent, an index. Each original text occurs
once in its module, which a test asserts.
"""

from typing import NamedTuple


class Mutant(NamedTuple):
    """One text in one module of the library, and what it is replaced with."""

    module: str
    original: str
    broken: str
    kind: str


MUTANTS = [
    Mutant("responses", "float(r.prob @ r.reward)", "float(r.prob @ (1 - r.reward))", "sign"),
    Mutant("responses", "wrong / wrong.sum()", "correct / correct.sum()", "index"),
    Mutant("responses", "correct @ r.score, wrong @ r.score", "wrong @ r.score, correct @ r.score", "index"),
    Mutant("responses", "float(correct @ energy), float(wrong @ energy)", "float(wrong @ energy), 1.0", "index"),
    Mutant("responses", "r.score @ r.score.T", "r.score @ r.score.T / 2", "constant"),
    Mutant("gap", "mean_correct - mean_wrong", "mean_correct + mean_wrong", "sign"),
    Mutant("gap", "(r.reward - success_rate(r))", "(r.reward + success_rate(r))", "sign"),
    Mutant("gap", "/ np.linalg.norm(scaled))", "/ np.linalg.norm(scaled) ** 2)", "exponent"),
    Mutant("gap", "logit(open_unit", "-logit(open_unit", "sign"),
    Mutant("gap", "(4 * np.maximum(alignment, 0)", "(8 * np.maximum(alignment, 0)", "constant"),
    Mutant("gap", "0) / diameter**2)", "0) / diameter)", "exponent"),
    Mutant("gap", "np.exp(-progress / 2)", "np.exp(-progress)", "constant"),
    Mutant("gap", "((1 - 1 / group_size) * success", "((1 + 1 / group_size) * success", "sign"),
    Mutant("gap", "np.sqrt(shrunk * correct * (", "(shrunk * correct * (", "exponent"),
    Mutant("gap", "(group_size - 1) / group_size if bessel", "group_size / (group_size - 1) if bessel", "exponent"),
    Mutant("gap", "- gammaln(correct + 1) -", "- gammaln(correct + 2) -", "index"),
    Mutant("advantages", "reward.mean(-1, keepdims=True)", "reward.mean(keepdims=True)", "index"),
    Mutant("advantages", "group_size / (group_size - 1)", "(group_size - 1) / group_size", "exponent"),
    Mutant("advantages", "(centred**2).mean(over", "np.abs(centred).mean(over", "exponent"),
    Mutant(
        "advantages", 'None if estimator == "grpo_batch" else -1', '-1 if estimator == "grpo_batch" else None', "index"
    ),
    Mutant("advantages", "np.divide(centred, spread", "np.divide(-centred, spread", "sign"),
    Mutant("threshold", "(2 * (1 - success) * np.maximum", "(2 * success * np.maximum", "index"),
    Mutant("threshold", "horizon * score_range**2 / 2", "horizon * score_range**2 / 4", "constant"),
    Mutant("threshold", "- np.log1p(-success)))[()]", "+ np.log1p(-success)))[()]", "sign"),
    Mutant("threshold", "(2 * np.asarray(success) * alignment", "(1 * np.asarray(success) * alignment", "constant"),
    Mutant("threshold", "np.asarray(horizon) * bend + energy", "np.asarray(horizon) * bend - energy", "sign"),
    Mutant("threshold", 'whole_numbers("horizon", horizon, low=1) * concavity', "concavity", "exponent"),
    Mutant("threshold", 'variance if estimator == "reinforce"', 'variance if estimator == "grpo"', "index"),
    Mutant("threshold", "(1 - success) * tokens / (gain", "(1 - success) / tokens / (gain", "exponent"),
    Mutant("threshold", "(2 * (1 - success) * tokens", "(4 * (1 - success) * tokens", "constant"),
    Mutant("threshold", "np.where(gains, high, middle)", "np.where(gains, middle, high)", "index"),
    Mutant("curvature", "diameter**2 * success * (1 - success)", "diameter * success * (1 - success)", "exponent"),
    Mutant("curvature", "return (4 / (positive(", "return (2 / (positive(", "constant"),
    Mutant("curvature", "** (-power / 2)", "** (power / 2)", "sign"),
    Mutant("curvature", "(2 - x ** (2 - power))", "(2 - x ** (1 - power))", "exponent"),
    Mutant("curvature", "(1 - std) / (2 * std * (1 - 2 * std**2))", "(1 - std) / (2 * std * (1 - std**2))", "constant"),
    Mutant("curvature", "np.triu_indices(len(unit), 1)", "np.triu_indices(len(unit), 0)", "index"),
    Mutant("curvature", "2 * way + 4 * np.cosh(centre)", "2 * way - 4 * np.cosh(centre)", "sign"),
    Mutant("curvature", "(1 - power / 2), 0.0)", "(1 - power), 0.0)", "exponent"),
    Mutant("curvature", "(1 - success) * spread[0] + success * spread[1]", "success * spread[0] + spread[1]", "index"),
    Mutant("curvature", "(share / (variance + noise))", "(share / (variance - noise))", "sign"),
    Mutant("curvature", "/ (variance + spill) - 1))", "/ (variance + spill)))", "constant"),
    Mutant("baseline", "(1 - baseline) ** 2 * (correct", "(1 + baseline) ** 2 * (correct", "sign"),
    Mutant("baseline", "(mean**2).sum(-1), 0.0) / samples", "(mean**2).sum(-1), 0.0) / samples**2", "exponent"),
    Mutant("baseline", "energy @ r.reward / energy.sum()", "energy @ (1 - r.reward) / energy.sum()", "sign"),
    Mutant("baseline", "shift / ratio * shift / (success", "shift * ratio * shift / (success", "exponent"),
    Mutant(
        "baseline", "(1 + success * (1 - success) * (ratio - 1)", "(1 - success * (1 - success) * (ratio - 1)", "sign"
    ),
    Mutant("baseline", "(1 + 1 / (1 - open_unit", "(2 + 1 / (1 - open_unit", "constant"),
    Mutant("baseline", "after[..., :-1] = np.cumsum", "before[..., :-1] = np.cumsum", "index"),
    Mutant("baseline", "(correct * total).sum() / energy", "(wrong * total).sum() / energy", "index"),
    Mutant("baseline", "baseline * (correct + wrong)) / samples", "baseline * (correct - wrong)) / samples", "sign"),
    Mutant("baseline", "return signal - noise\n", "return signal + noise\n", "sign"),
    Mutant("baseline", "(snr / (1 + snr) / smoothness)", "(snr / (1 + snr) * smoothness)", "exponent"),
    Mutant("groups", "return self.table[self.inverses]", "return self.table", "index"),
    Mutant(
        "groups", "self.table[self.table, self.inverses[:, None]]", "self.table[self.table, self.inverses]", "index"
    ),
    Mutant("groups", "np.repeat(self.dimensions / self.order,", "np.repeat(1 / self.order,", "constant"),
    Mutant("groups", "np.where(flipped[:, None], -k, k)", "np.where(flipped[:, None], k, k)", "sign"),
    Mutant("permutations", "(predecessor + 1) % (h + 1)", "predecessor % (h + 1)", "index"),
    Mutant(
        "permutations", "np.shape(permutations)[-1] + 1 - cycles", "np.shape(permutations)[-1] - cycles", "constant"
    ),
    Mutant("permutations", "(2.0 - twice_genus", "(2.0 + twice_genus", "sign"),
    Mutant("permutations", "(1 - 1 / group.order) * permanent(chain)", "permanent(chain)", "constant"),
    Mutant("relay", "(order * success - 1) / (order - 1)", "(order * success + 1) / (order - 1)", "sign"),
    Mutant("relay", "decay**horizon)[()]", "decay ** (horizon + 1))[()]", "exponent"),
    Mutant("relay", "[(len(block) ** 2, np.array", "[(len(block), np.array", "exponent"),
    Mutant("relay", "(1 - right) * np.outer(law, law)", "(1 - right) * np.outer(law, law) / 2", "constant"),
    Mutant("relay", "irrep.conj()).reshape", "irrep).reshape", "sign"),
    Mutant("relay", "1 / len(group.subgroup(np.unique(conjugates)))", "1 / len(generated)", "index"),
    Mutant("relay", "np.exp(-horizons * np.logaddexp", "np.exp(-np.logaddexp", "exponent"),
    Mutant("relay", "power * odds[..., None] + np.log", "odds[..., None] + np.log", "exponent"),
    Mutant("relay", "crowd = (ratio * horizon - 1)", "crowd = (ratio * horizon + 1)", "sign"),
    Mutant("relay", "return log_exponent * float(np.mean", "return float(np.mean", "constant"),
    Mutant("relay", "np.log(context - 1) - logit", "np.log(context) - logit", "constant"),
]
