# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: jupytext,kernelspec,-all
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 5. The optimal baseline and the SNR learning rate
#
# A policy gradient is estimated from a few sampled responses, and the estimate is noisy.
# Subtracting a number from the reward leaves its mean alone and changes its noise.
# GRPO subtracts the mean reward of the group; P3 ({cite:t}`huang2025oblr`) proposes the number that makes the noise least, and a learning rate that listens to the noise that is left.
#
# This chapter gives an exact account.
# It says what each baseline costs, when the mean is worse than subtracting nothing (the *zero baseline*), how the best one can be estimated without spoiling the gradient, and what the noise allows as a learning rate.
# Then it trains: equal samples, a tuned rate for every method, fresh seeds.
#
# Of P3 we read the abstract and no more.
# Where we test its algorithm we test *the standard reading of the abstract*: a leave-one-out estimate of the optimal baseline within each group, and a learning rate proportional to $\mathrm{SNR}/(1+\mathrm{SNR})$ with the ratio estimated from the batch.

# %% tags=["parameters", "remove-cell"]
profile: str = "book"  # label of the profile that set these parameters
seed: int = 0  # [0, 4294967295] seed of every random draw
judged: bool = True  # whether sampled claims are large enough for a verdict
qwen_model: str = "tiny"  # tiny, a hub name or a local path
instances: int = 500  # [2, 100000] random bandits of the exact checks
bandit_seeds: int = 24  # [2, 1000] test seeds of the bandit training
bandit_tuning: int = 6  # [1, 1000] tuning seeds of the bandit training
bandit_steps: int = 150  # [2, 10000] steps of each bandit run
bandit_rates: int = 9  # [1, 100] learning rates tried for each method on bandits and transformer
transformer_seeds: int = 48  # [2, 1000] test seeds of the transformer training
transformer_tuning: int = (
    6  # [1, 1000] tuning seeds of the transformer training
)
transformer_steps: int = 40  # [4, 10000] steps of each transformer run
qwen_prompts: int = 2  # [1, 6] prompts whose every response is enumerated
qwen_points: int = 4  # [2, 4] points of training at which they are
qwen_replicas: int = 8  # [2, 1000] replicas of the one-step experiment
qwen_seeds: int = 6  # [2, 1000] test seeds of the Qwen training
qwen_tuning: int = 2  # [1, 1000] tuning seeds of the Qwen training
qwen_steps: int = 40  # [4, 10000] steps of each Qwen run
qwen_methods: int = (
    4  # [3, 9] methods of the Qwen training, in the order of its list
)
qwen_rates: int = 3  # [1, 6] learning rates tried first for each method
qwen_optimizers: int = 1  # [1, 2] SGD only, or SGD and Adam

# %% tags=["remove-cell"]
import sys

if "google.colab" in sys.modules:  # Colab has none of this installed
    import subprocess

    source = "git+https://github.com/rlvr-companion/rlvr-companion"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", source], check=True
    )

# %% tags=["remove-cell"]
import itertools
from types import SimpleNamespace

import mpmath as mp
import numpy as np
import sympy as sp
import torch
from scipy import stats
from scipy.special import expit, logit

from rlvr_lib import figures
from rlvr_lib.claims import Ledger, relative_error
from rlvr_lib.intervals import (
    quantile_interval,
    share_interval,
    share_lower_bound,
)
from rlvr_lib.responses import Responses, score_energies, success_rate
from rlvr_lib.testbeds import bandit, grpo, transformer
from rlvr_lib.testbeds.group_tasks import ManyAnswers, WordProblem
from rlvr_lib.testbeds.policy import Rollout
from rlvr_lib.testbeds.qwen import QwenTestbed
from rlvr_lib.testbeds.qwen.prefixes import shared_prefixes
from rlvr_lib.testbeds.qwen.warm_start import WarmStart
from rlvr_lib.testbeds.scores import Recorder
from rlvr_lib.theory.advantages import group_advantages
from rlvr_lib.theory.baseline import (
    LaggedBaseline,
    baseline_loss,
    critical_energy_ratio,
    gradient_variance,
    leave_one_out_loss,
    leave_one_out_variance,
    mean_baseline_loss,
    mean_of_others,
    optimal_baseline,
    pooled_baselines,
    token_energies,
)
from rlvr_lib.theory.curvature import smoothness
from rlvr_lib.theory.gap import policy_gradient
from rlvr_lib.theory.groups import symmetric_group
from rlvr_lib.theory.signal import (
    RunningSnr,
    gradient_snr,
    group_squared_signal,
    snr_learning_rate,
    squared_signal,
)

figures.set_style()
rng = np.random.default_rng(seed)
ledger = Ledger(
    theorem=5,
    paper="P3",
    profile=profile,
    seeds=[seed],
    judged=judged,
)

# %% [markdown]
# ## 5.1 What a baseline does
#
# $N$ responses to one prompt are drawn independently from the policy; the gradient is estimated by $g_b = \frac1N\sum_i (r_i - b)\,s_i$ with the scores $s_i$ of {prf:ref}`def-gap`.
# Write $e_\pm = \mathbb E_\pm|s|^2$ for the *score energies* of correct and wrong responses, and $x = e_-/e_+$ for their ratio, where $e_+ > 0$.
# Variance means the trace of a covariance matrix throughout.
#
# ```{prf:theorem} The optimal baseline (5a)
# :label: thm-optimal-baseline
# If $b$ is independent of response $i$, then $\mathbb E[(r_i-b)s_i] = \nabla J$.
# For a fixed $b$
#
# $$
# \begin{aligned}
# \mathrm{Var}\, g_b &= \frac1N\Big(\mathbb E[(r-b)^2|s|^2] - |\nabla J|^2\Big)
# = \mathrm{Var}\, g_{b^*} + \frac{(b-b^*)^2\,\mathbb E|s|^2}{N}, \\
# b^* &= \frac{\mathbb E[r|s|^2]}{\mathbb E|s|^2} = \frac{J}{J+(1-J)x} .
# \end{aligned}
# $$
#
# ```
#
# ```{prf:proof}
# Scores average to zero, so an independent $b$ contributes $\mathbb E[b]\,\mathbb E[s_i] = 0$.
# The second moment is a parabola in $b$, $J(1-b)^2e_+ + (1-J)b^2e_-$, and the mean does not depend on $b$: complete the square.
# ```
#
# The result is classical {cite:p}`weaver2001optimal,greensmith2004variance`; the paper's "gradient-weighted" baseline is this one.
# Note the weight: a response counts by the *square* of its score.
# The algebra, by SymPy:

# %%
J, b, x, plus, group = sp.symbols("J b x e_+ G", positive=True)
minus = x * plus


def second_moment(b):
    return J * (1 - b) ** 2 * plus + (1 - J) * b**2 * minus


best = J / (J + (1 - J) * x)
energy = J * plus + (1 - J) * minus
print(
    "stationary at b*:", sp.simplify(sp.diff(second_moment(b), b).subs(b, best))
)
excess = second_moment(b) - second_moment(best) - (b - best) ** 2 * energy
print("excess - (b - b*)^2 E|s|^2 =", sp.simplify(excess))

# %% [markdown]
# ### Over all outcomes of a group
#
# Nothing here needs sampling.
# We enumerate every ordered group of up to four responses to a bandit, with its probability.

# %%
small = [
    bandit.SoftmaxBandit.random(
        seed + i, arms=4, dimension=3, correct=1 + i % 3
    ).enumerate()
    for i in range(min(12, instances))
]


def all_groups(r, size):
    """Every ordered group: probability [o], and reward, energy [o, size] and score [o, size, d] of its members."""
    arms = np.array(list(itertools.product(range(len(r)), repeat=size)))
    score = r.score[arms]
    return SimpleNamespace(
        prob=r.prob[arms].prod(1),
        reward=r.reward[arms],
        score=score,
        energy=(score**2).sum(-1),
    )


def moments(groups, advantage):
    """Mean [d] and variance of the group's gradient, over all groups."""
    estimate = (advantage[..., None] * groups.score).mean(1)
    mean = groups.prob @ estimate
    return mean, groups.prob @ ((estimate - mean) ** 2).sum(1)


def in_sample(groups):
    weighted = (groups.reward * groups.energy).sum(1, keepdims=True)
    return weighted / groups.energy.sum(1, keepdims=True)


BASELINES = {
    "zero baseline": lambda g: 0.0,
    "a constant": lambda g: 0.7,
    "leave-one-out mean": lambda g: mean_of_others(
        g.reward, np.ones_like(g.reward)
    ),
    "leave-one-out b*": lambda g: mean_of_others(g.reward, g.energy),
}


def bias(baselines):
    """Largest distance of the mean estimate from the gradient, relative to the gradient."""
    worst = 0.0
    for r, size in itertools.product(small, (2, 3, 4)):
        groups, truth = all_groups(r, size), policy_gradient(r)
        for baseline in baselines:
            mean, _ = moments(groups, groups.reward - baseline(groups))
            worst = max(worst, relative_error(mean, truth))
    return worst


ledger.check(
    "5-bandit-unbiased",
    "over all groups, baselines that leave out the response they are for are unbiased (largest relative bias)",
    testbed="bandit",
    predicted=0.0,
    measured=bias(BASELINES.values()),
    tolerance=1e-9,
    sabotages={
        "b* estimated in sample, called unbiased": bias([in_sample]),
        "the group's mean, the response included": bias(
            [lambda g: g.reward.mean(1, keepdims=True)]
        ),
    },
    paper=("P3.unbiased", "confirmed"),
)


# %%
def variance_error(formula):
    worst = 0.0
    for r, size, b in itertools.product(small, (2, 3, 4), (-0.5, 0.0, 0.4, 1)):
        groups = all_groups(r, size)
        _, variance = moments(groups, groups.reward - b)
        worst = max(worst, relative_error(formula(r, b, size), variance))
    return worst


def without_signal(r, b, size):
    return (
        gradient_variance(r, b, size) + (policy_gradient(r) ** 2).sum() / size
    )


def lengths_not_squared(r, b, size):
    return r.prob @ ((r.reward - b) ** 2 * np.sqrt((r.score**2).sum(1))) / size


ledger.check(
    "5-bandit-exact-variance",
    "over all groups, the variance for fixed baselines is the one of theorem 5a (largest relative error)",
    testbed="bandit",
    predicted=0.0,
    measured=variance_error(gradient_variance),
    tolerance=1e-9,
    sabotages={
        "the squared gradient not subtracted": variance_error(without_signal),
        "|s| in place of |s|^2": variance_error(lengths_not_squared),
    },
    paper=("P3.variance", "confirmed"),
)

# %% [markdown]
# The optimum can be found without the theory: the enumerated variance is a parabola in $b$, and three points give its vertex.


# %%
def vertex(r, size=3):
    groups = all_groups(r, size)
    left, middle, right = (
        moments(groups, groups.reward - b)[1] for b in (0.0, 0.5, 1.0)
    )
    return 0.5 + 0.25 * (left - right) / (left - 2 * middle + right)


vertices = np.array([vertex(r) for r in small])


def distance_to_vertex(baseline):
    return float(np.abs([baseline(r) for r in small] - vertices).max())


def root_weighted(r):
    weight = r.prob * np.sqrt((r.score**2).sum(1))
    return weight @ r.reward / weight.sum()


ledger.check(
    "5-bandit-optimal-baseline",
    "b* = E[r|s|^2]/E|s|^2 is where the enumerated variance is least (largest distance)",
    testbed="bandit",
    predicted=0.0,
    measured=distance_to_vertex(optimal_baseline),
    tolerance=1e-9,
    sabotages={
        "|s| in place of |s|^2": distance_to_vertex(root_weighted),
        "sign of the baseline flipped": distance_to_vertex(
            lambda r: -optimal_baseline(r)
        ),
        "the mean reward": distance_to_vertex(success_rate),
    },
    paper=("P3.optimal-baseline", "confirmed"),
)

# %% [markdown]
# ### Several prompts
#
# A batch has $P$ prompts with $G$ responses each.
# Its variance has two parts: prompts differ in their gradients, and each gradient is noisy.
# Only the second part listens to the baseline.
#
# ```{math}
# :label: eq-batch-variance
# \begin{aligned}
# \mathrm{Var} &= \frac{\mathrm{Var}_q(\nabla J_q)}{P}\,c + \frac{\text{mean variance within a prompt}}{P}, \\
# c &= 1 \ \text{(prompts drawn independently)}, \\
# c &= \frac{M-P}{M-1}\ \text{(drawn without replacement from } M).
# \end{aligned}
# ```
#
# Again over all outcomes: all pairs from three prompts, all groups of two for each.

# %%
three = [
    bandit.SoftmaxBandit.random(seed + 50 + i, arms=3, dimension=2, correct=1)
    .at([0.3, -0.2])
    .enumerate()
    for i in range(3)
]


def enumerated_batch_variance(pairs, b=0.4):
    total, square, mean = 0.0, 0.0, 0.0
    for one, two in pairs:
        first, second = all_groups(three[one], 2), all_groups(three[two], 2)
        prob = np.outer(first.prob, second.prob) / len(pairs)
        halves = [
            ((g.reward - b)[..., None] * g.score).mean(1)
            for g in (first, second)
        ]
        estimate = (halves[0][:, None] + halves[1][None]) / 2
        total += prob.sum()
        mean = mean + np.einsum("ij,ijd->d", prob, estimate)
        square += (prob * (estimate**2).sum(-1)).sum()
    return square / total - mean @ mean


def batch_variance(correction, b=0.4):
    gradients = np.array([policy_gradient(r) for r in three])
    between = ((gradients - gradients.mean(0)) ** 2).sum(1).mean()
    within = np.mean([gradient_variance(r, b, 2) for r in three])
    return (correction * between + within) / 2


independent = list(itertools.product(range(3), repeat=2))
distinct = list(itertools.permutations(range(3), 2))


def batch_error(c_independent, c_distinct):
    return relative_error(
        [batch_variance(c_independent), batch_variance(c_distinct)],
        [
            enumerated_batch_variance(independent),
            enumerated_batch_variance(distinct),
        ],
    )


ledger.check(
    "5-bandit-batch-variance",
    "variance over prompts and responses, drawn with and without replacement (largest relative error)",
    testbed="bandit",
    predicted=0.0,
    measured=batch_error(1.0, (3 - 2) / (3 - 1)),
    tolerance=1e-9,
    sabotages={
        "without replacement treated as with": batch_error(1.0, 1.0),
        "prompts forgotten": batch_error(0.0, 0.0),
    },
    paper=("P3.variance", "confirmed"),
)

# %% [markdown]
# ## 5.2 The price of the mean
#
# The mean reward is the baseline everybody uses.
# Put $b = J$ and $b = 0$ into the parabola of the second moment, which is the variance before $|\nabla J|^2$ is subtracted.
#
# ```{prf:theorem} The price of the mean and of the zero baseline (5b)
# :label: thm-mean-price
# For one prompt, the *price* of a baseline is the second moment of one term $(r-b)s$ over the second moment with $b^*$:
#
# $$
# \text{mean: } 1 + \frac{J(1-J)(x-1)^2}{x}, \qquad
# \text{zero baseline: } 1 + \frac{J}{(1-J)\,x} .
# $$
#
# Hence **the mean is worse than the zero baseline if and only if** $x > 1 + \dfrac{1}{1-J}$.
# With $s^* = |\nabla J|^2/\mathrm{Var}$ of one response under $b^*$, a price $\rho$ is a ratio of variances of $1 + (\rho-1)(1+s^*)$.
# ```
#
# ```{prf:proof}
# The prices are the parabola at $b = J$ and at $b = 0$ over its minimum.
# A second moment is a variance plus $|\nabla J|^2$, and with $b^*$ it is $(1+s^*)$ times the variance, so the second moment is $\rho(1+s^*)$ times it, and the variance $\rho(1+s^*) - s^*$ times.
# ```
#
# The mean is optimal only when right and wrong answers carry the same score energy.
# Confident correct answers have small scores, so training itself drives $x$ up.
#
# Prices rank baselines as variances do, but a ratio of variances lies further from one.
# The two agree where a single response says little about the gradient, $s^* \ll 1$; section 5.9 prints how much it says on our testbeds.

# %%
least = second_moment(best)
mean_price = 1 + J * (1 - J) * (x - 1) ** 2 / x
zero_price = 1 + J / ((1 - J) * x)
print("mean:", sp.simplify(second_moment(J) / least - mean_price))
print("zero baseline:", sp.simplify(second_moment(0) / least - zero_price))
boundary = sp.solve(sp.numer(sp.together(mean_price - zero_price)), x)
print("equal at x =", [sp.factor(s) for s in boundary])

# %%
drawn = [
    bandit.SoftmaxBandit.random(
        seed + i, arms=3 + i % 5, dimension=4, correct=1 + i % (2 + i % 5)
    )
    for i in range(instances)
]
many = [policy.at(policy.theta / 2).enumerate() for policy in drawn]
energies = np.array([score_energies(r) for r in many])
rates = np.array([success_rate(r) for r in many])
ratio = energies[:, 1] / energies[:, 0]


def second_moments(b):
    """E[(r - b)^2 |s|^2] of every bandit, from its responses."""
    return np.array(
        [
            r.prob @ ((r.reward - c) ** 2 * (r.score**2).sum(1))
            for r, c in zip(many, b, strict=True)
        ]
    )


optimum = second_moments([optimal_baseline(r) for r in many])
with_mean, with_zero = second_moments(rates), second_moments(0 * rates)


def loss_error(price):
    return float(np.abs(price * optimum / with_mean - 1).max())


ledger.check(
    "5-bandit-price-of-the-mean",
    "the price of the mean baseline, in second moments, is 1 + J(1-J)(x-1)^2/x (largest relative error)",
    testbed="bandit",
    predicted=0.0,
    measured=loss_error(mean_baseline_loss(rates, ratio)),
    tolerance=1e-9,
    sabotages={
        "|s| in place of |s|^2": loss_error(
            mean_baseline_loss(rates, np.sqrt(ratio))
        ),
        "the price of the zero baseline": loss_error(
            baseline_loss(rates, ratio, 0.0)
        ),
    },
)


# %%
def misjudged(threshold):
    return int(((ratio > threshold) != (with_mean > with_zero)).sum())


print(
    f"mean worse than the zero baseline in {(with_mean > with_zero).mean():.0%} of them"
)
ledger.check(
    "5-bandit-mean-worse-than-none",
    "the mean is worse than the zero baseline exactly where x > 1 + 1/(1-J) (bandits misjudged)",
    testbed="bandit",
    predicted=0,
    measured=misjudged(critical_energy_ratio(rates)),
    sabotages={
        "x > 2, whatever the success rate": misjudged(2.0),
        "x > 1 + 1/J": misjudged(1 + 1 / rates),
    },
)


# %%
def ratio_error(ratios_from):
    """Largest relative error of ratios of variances, got from the prices and the SNR of one response under b*."""
    worst = 0.0
    for r, price in zip(many, with_mean / optimum, strict=True):
        least = gradient_variance(r, optimal_baseline(r))
        snr = (policy_gradient(r) ** 2).sum() / least
        seen = gradient_variance(r, success_rate(r)) / least
        worst = max(worst, abs(ratios_from(price, snr) / seen - 1))
    return float(worst)


ledger.check(
    "5-bandit-price-as-variance",
    "the mean's variance over that of b* is 1 + (price - 1)(1 + SNR of one response under b*) (largest relative error)",
    testbed="bandit",
    predicted=0.0,
    measured=ratio_error(lambda price, snr: 1 + (price - 1) * (1 + snr)),
    tolerance=1e-6,
    sabotages={
        "the price of second moments taken for it": ratio_error(
            lambda price, snr: price
        )
    },
)

# %% [markdown]
# Both prices can be large, but not together.
#
# ```{prf:corollary} The better of two
# :label: cor-better-of-two
# If wrong answers carry at least the energy of right ones, $x \ge 1$, then the better of mean and zero baseline has a price of at most $\dfrac{2}{2-J} < 2$, in second moments.
# As a ratio of variances that is $1 + \dfrac{J}{2-J}(1+s^*)$, which can exceed two.
# ```
#
# ```{prf:proof}
# For $x\ge1$ the price of the mean grows with $x$ and that of the zero baseline falls.
# They meet at the boundary, where $1 + \frac{J}{(1-J)x} = \frac{2}{2-J}$.
# ```

# %%
better = np.minimum(with_mean, with_zero) / optimum
wrong_heavier = ratio >= 1


def share_of_bound(price):
    return float((price * (2 - rates) / 2)[wrong_heavier].max())


print("at the boundary:", sp.simplify(zero_price.subs(x, 1 + 1 / (1 - J))))
ledger.check(
    "5-bandit-better-of-two",
    "where x is at least 1, the better of mean and zero baseline has at most 2/(2-J) times the least second moment (largest share of the bound)",
    testbed="bandit",
    predicted=1.0,
    relation="at most",
    measured=share_of_bound(better),
    tolerance=1e-9,
    sabotages={
        "always the mean": share_of_bound(with_mean / optimum),
        "always the zero baseline": share_of_bound(with_zero / optimum),
    },
)

# %% [markdown]
# ### Success near one: collisions of correct answers decide
#
# Let each response have a parameter of its own (a tabular softmax), and let success tend to one.
# Write $\kappa = \sum_o p(o \mid \text{correct})^2$, the probability that two correct answers coincide: $1/\kappa$ is their effective number.
#
# ```{prf:proposition} The limit J to 1
# :label: prop-entropy
# In a tabular softmax $x \to \dfrac{1+\kappa}{1-\kappa}$ as $J\to1$ with $\kappa < 1$ held fixed, so the price of the mean tends to one, as $1 + \dfrac{4\kappa^2}{1-\kappa^2}(1-J)$.
# With one correct answer ($\kappa = 1$) and $w$ equally likely wrong ones, $b^* \to 0$ and the price grows as $\dfrac{2w}{w+1}\cdot\dfrac1{1-J}$.
# ```
#
# ```{prf:proof}
# The score of response $o$ is its unit vector minus the probabilities, so $|s|^2 = 1 - 2p(o) + \sum p^2$.
# For $J \to 1$ the last sum tends to $\kappa$, the mean of $p(o)$ over correct answers to $\kappa$ and over wrong ones to zero.
# With one correct answer $e_+ = (1-J)^2(1+1/w)$ exactly and $e_- \to 2$.
# ```
#
# $m$ equally likely correct answers have $\kappa = 1/m$, so the price is about $1 + 4(1-J)/(m^2-1)$.
# In between, the mean is worse than the zero baseline when $1-\kappa$ falls below about $2(1-J)$: *when correct answers are less diverse than failures are frequent*.

# %%
F, w, m = sp.symbols("F w m", positive=True)  # F is the failure rate 1 - J


def tabular_energies(correct_count, wrong_count):
    """Score energies of a tabular softmax with equally likely correct and equally likely wrong responses."""
    right, wrong = (1 - F) / correct_count, F / wrong_count
    total = correct_count * right**2 + wrong_count * wrong**2
    return 1 - 2 * right + total, 1 - 2 * wrong + total


def limiting_price(correct_count, wrong_count):
    e_plus, e_minus = tabular_energies(correct_count, wrong_count)
    return mean_price.subs({J: 1 - F, x: sp.simplify(e_minus / e_plus)})


one_limit = sp.limit(sp.simplify(F * limiting_price(1, w)), F, 0)
many_limit = sp.limit(sp.simplify((limiting_price(m, w) - 1) / F), F, 0)
print("one correct:", one_limit, "   m correct:", sp.factor(many_limit))


# %%
def limit_error(one, several):
    """Largest difference of the symbolic limits from a formula, over small numbers of answers."""
    counts = range(1, 8)
    first = [abs(float(one_limit.subs(w, k)) - one(k)) for k in counts]
    later = [
        abs(float(many_limit.subs({m: k + 1, w: 3})) - several(k + 1))
        for k in counts
    ]
    return max(first + later)


ledger.check(
    "5-none-limits-of-the-price",
    "as J tends to 1, (1-J) x price tends to 2w/(w+1) with one correct answer, (price-1)/(1-J) to 4/(m^2-1) with m (error)",
    testbed="none",
    predicted=0.0,
    measured=limit_error(lambda k: 2 * k / (k + 1), lambda k: 4 / (k**2 - 1)),
    tolerance=1e-9,
    sabotages={
        "constant 1, whatever the wrong answers": limit_error(
            lambda k: 1.0, lambda k: 4 / (k**2 - 1)
        ),
        "several correct answers like one": limit_error(
            lambda k: 2 * k / (k + 1), lambda k: 2 * k / (k + 1)
        ),
    },
)

# %% [markdown]
# In this limit one response tells a lot about the gradient, so the prices are not ratios of variances.
# With one correct answer the zero baseline is then the better of the two, its price tends to one, and its variance to $\dfrac{2w}{w-1}$ times the least.


# %%
def variance_over_least(b, wrong_count):
    """Variance with a baseline over that with b*, one correct answer and equally likely wrong ones."""
    e_plus, e_minus = tabular_energies(1, wrong_count)
    signal = ((1 - F) * F) ** 2 * (1 + 1 / sp.sympify(wrong_count))
    own = (1 - F) * e_plus + F * e_minus
    least = (1 - F) * e_plus * F * e_minus / own
    second = (1 - F) * (1 - b) ** 2 * e_plus + F * b**2 * e_minus
    return sp.simplify((second - signal) / (least - signal))


print(
    "variance of the zero baseline over the least, J to 1:",
    sp.factor(sp.limit(variance_over_least(0, w), F, 0)),
)
print("wrong answers, J: price and ratio of variances, zero baseline and mean")
for wrong_count, failure in itertools.product((2, 3, 7), (0.1, 0.001)):
    e_plus, e_minus = (
        float(e.subs(F, failure)) for e in tabular_energies(1, wrong_count)
    )
    ratio_here = e_minus / e_plus
    prices_here = (
        baseline_loss(1 - failure, ratio_here, 0.0),
        mean_baseline_loss(1 - failure, ratio_here),
    )
    ratios_here = [
        float(variance_over_least(b, wrong_count).subs(F, failure))
        for b in (0, 1 - F)
    ]
    print(
        f"  {wrong_count} wrong, J = {1 - failure:.3f}:  zero {prices_here[0]:.3f} and {ratios_here[0]:.2f};  mean {prices_here[1]:.1f} and {ratios_here[1]:.3g}"
    )

# %% [markdown]
# Unequal correct answers: random distributions over four correct and three wrong responses, very close to success one.


# %%
def tabular(correct_law, wrong_law, failure):
    """A tabular softmax as a population, with laws of its correct and of its wrong responses."""
    prob = np.concatenate([(1 - failure) * correct_law, failure * wrong_law])
    reward = np.repeat([1.0, 0.0], [len(correct_law), len(wrong_law)])
    return Responses(reward, np.eye(len(prob)) - prob, prob)


laws = rng.dirichlet(np.full(4, 0.5), 40)
near_one = [tabular(law, np.full(3, 1 / 3), 1e-9) for law in laws]
seen = np.array([np.divide(*score_energies(r)[::-1]) for r in near_one])


def entropy_error(effective):
    kappa = np.array([effective(law) for law in laws])
    return float(np.abs((1 + kappa) / (1 - kappa) / seen - 1).max())


ledger.check(
    "5-bandit-collisions-decide",
    "near J = 1 the energy ratio is (1 + kappa)/(1 - kappa) with the collision probability kappa (largest relative error)",
    testbed="bandit",
    predicted=0.0,
    measured=entropy_error(lambda law: law @ law),
    tolerance=1e-5,
    sabotages={
        "Shannon entropy in place of collisions": entropy_error(
            lambda law: np.exp((law * np.log(law)).sum())
        ),
        "the number of correct answers": entropy_error(
            lambda law: 1 / len(law)
        ),
    },
)

# %% tags=["hide-input"]
fig, axes = figures.panels(columns=2, height=3.2)
failures = np.geomspace(1e-3, 0.5, 60)
for count in (1, 2, 4):
    law = np.full(count, 1 / count)
    families = [tabular(law, np.full(4, 1 / 4), f) for f in failures]
    pairs = np.array([score_energies(r) for r in families])
    axes[0].plot(
        failures,
        mean_baseline_loss(1 - failures, pairs[:, 1] / pairs[:, 0]),
        label=f"{count} correct",
    )
axes[0].plot(
    failures, 2 * 4 / 5 / failures, **figures.PREDICTION, label="2w/(w+1)/(1-J)"
)
axes[0].set(
    xscale="log",
    yscale="log",
    xlabel="failure rate 1 - J",
    ylabel="second moment, mean over b*",
    ylim=(0.8, None),
)
axes[0].legend(fontsize="small")
odds = np.geomspace(1e-4, 0.5, 60)
for failure in (0.1, 0.01, 0.001):
    families = [
        tabular(np.array([1 - q, q]), np.full(4, 1 / 4), failure) for q in odds
    ]
    pairs = np.array([score_energies(r) for r in families])
    ratios = pairs[:, 1] / pairs[:, 0]
    kappa = (1 - odds) ** 2 + odds**2
    quotient = mean_baseline_loss(1 - failure, ratios) / baseline_loss(
        1 - failure, ratios, 0.0
    )
    axes[1].plot((1 - kappa) / failure, quotient, label=f"1 - J = {failure:g}")
axes[1].axhline(1, color="grey", linewidth=0.8)
axes[1].axvline(2, **figures.PREDICTION, label="1 - $\\kappa$ = 2(1 - J)")
axes[1].set(
    xscale="log",
    yscale="log",
    xlabel=r"$(1-\kappa)/(1-J)$: diversity over failure",
    ylabel="second moment, mean over zero",
)
axes[1].legend(fontsize="small")
figures.show(
    fig,
    "Left: price of the mean baseline against the failure rate; with one correct answer it grows as one over the "
    "failure rate, with two or four it stays near one. Right: mean over zero baseline against the diversity of correct "
    "answers in units of the failure rate; the curves cross one near two.",
)

# %% [markdown]
# ## 5.3 Estimating the optimum
#
# $b^*$ is not known; it has to come from samples, and from samples other than the one it is for.
#
# ### The mean of the others costs more than the mean
#
# RLOO uses the mean of the other $G-1$ rewards, itself a noisy number.
#
# ```{prf:theorem} Leave-one-out means (5c)
# :label: thm-rloo-variance
# The estimate $\frac1G\sum_i (r_i - \bar r_{-i})s_i$ has variance
#
# $$
# \begin{aligned}
# &\frac1G\Big(\mathbb E[(r-J)^2|s|^2] + \frac{J(1-J)}{G-1}\,\mathbb E|s|^2\Big) \\
# &\quad - \Big(1 - \big(1-\tfrac1G\big)\big(1+\tfrac1{(G-1)^2}\big)\Big)|\nabla J|^2 .
# \end{aligned}
# $$
#
# The second moment of one term, relative to $b^*$, is the price of the mean plus $\dfrac{(J+(1-J)x)^2}{(G-1)\,x}$.
# ```
#
# ```{prf:proof}
# Given $r_i$, the mean of the others is independent with variance $J(1-J)/(G-1)$, which gives the first bracket.
# In the product of the terms of $i \ne j$ only parts that contain a reward of $i$ and one of $j$ survive, because $\mathbb E[s]=0$: these are $r_ir_j$ from the two rewards and $r_jr_i/(G-1)^2$ from the two baselines.
# ```
#
# So the mean of a small group can be worse than the zero baseline also where success is *rare*: for $J \to 0$ the extra is $x/(G-1)$, and the zero baseline is optimal there.


# %%
def group_variance_error(formula):
    worst = 0.0
    for r, size in itertools.product(small, (2, 3, 4)):
        groups = all_groups(r, size)
        advantage = group_advantages(groups.reward, "rloo")
        worst = max(
            worst,
            relative_error(formula(r, size), moments(groups, advantage)[1]),
        )
    return worst


ledger.check(
    "5-bandit-leave-one-out-variance",
    "over all groups, the variance of leave-one-out means is the one of theorem 5c (largest relative error)",
    testbed="bandit",
    predicted=0.0,
    measured=group_variance_error(leave_one_out_variance),
    tolerance=1e-9,
    sabotages={
        "the mean taken as known": group_variance_error(
            lambda r, size: gradient_variance(r, success_rate(r), size)
        ),
        "terms of a group taken as independent": group_variance_error(
            lambda r, size: (
                leave_one_out_variance(r, size)
                - (1 - 1 / size)
                / (size - 1) ** 2
                * (policy_gradient(r) ** 2).sum()
            )
        ),
    },
    paper=("P3.variance", "confirmed"),
)

# %% [markdown]
# ### The leave-one-out form of b*, and where it fails
#
# The standard reading of the abstract estimates $b^*$ for response $i$ from the others of its group, $\sum_{j\ne i} r_j|s_j|^2/\sum_{j\ne i}|s_j|^2$.
#
# ```{prf:proposition} When leave-one-out says nothing
# :label: prop-loo
# Whenever the other rewards agree, the leave-one-out estimate is their common value, whatever the energies.
# With groups of two it is therefore RLOO, and both are GRPO (population standard deviation, no epsilon).
# The others agree with probability $J^{G-1}+(1-J)^{G-1}$, which tends to one as $J$ tends to zero or to one, where the mean can be at its worst.
# ```


# %%
def largest_difference(size):
    """Between leave-one-out b*, RLOO and GRPO, over all groups of a size."""
    worst = 0.0
    for r in small:
        groups = all_groups(r, size)
        mine = groups.reward - BASELINES["leave-one-out b*"](groups)
        for estimator in ("rloo", "grpo"):
            other = group_advantages(groups.reward, estimator)
            worst = max(worst, float(np.abs(mine - other).max()))
    return worst


ledger.check(
    "5-bandit-groups-of-two",
    "in groups of two leave-one-out b*, RLOO and GRPO give the same advantages (largest difference over all groups)",
    testbed="bandit",
    predicted=0.0,
    measured=largest_difference(2),
    tolerance=1e-9,
    sabotages={"groups of three": largest_difference(3)},
)


# %%
def contradictions(baseline):
    """Responses whose other rewards agree but whose baseline is not their common value."""
    count = 0
    for r in small:
        groups = all_groups(r, 4)
        others = mean_of_others(groups.reward, np.ones_like(groups.reward))
        agree = (others == 0) | (others == 1)
        value = np.broadcast_to(baseline(groups), others.shape)
        count += int((np.abs(value - others)[agree] > 1e-12).sum())
    return count


ledger.check(
    "5-bandit-leave-one-out-falls-back",
    "where the other rewards agree, leave-one-out b* is their common value (responses where it is not)",
    testbed="bandit",
    predicted=0,
    measured=contradictions(BASELINES["leave-one-out b*"]),
    sabotages={
        "b* from an independent batch": contradictions(
            lambda g: (
                g.prob
                @ (g.reward * g.energy).sum(1)
                / (g.prob @ g.energy.sum(1))
            )
        )
    },
)

# %% [markdown]
# ### Repairs: other groups, past batches, two gradients
#
# Estimates from *other* responses than the group's are independent of it, informative also when its rewards agree, and leave the gradient unbiased:
#
# - **pooled**: from all other groups of the batch;
# - **lagged**: from past batches, older ones counted less.
#
# Both ask for $|s_i|^2$ of single responses.
# A third form needs no norm of a single response.
#
# ```{prf:proposition} Two gradients
# :label: prop-two-gradients
# Let $C$ and $W$ be the sums of the scores of the correct and of the wrong responses of a batch of $N$.
# Then $\mathbb E\langle C, C+W\rangle = N\,\mathbb E[r|s|^2]$ and $\mathbb E|C+W|^2 = N\,\mathbb E|s|^2$.
# So $b = \sum\langle C,C+W\rangle/\sum|C+W|^2$ over past batches estimates $b^*$, and $g_b = (C-b(C+W))/N$.
# ```
#
# ```{prf:proof}
# In $\langle\sum_i r_is_i, \sum_j s_j\rangle$ the terms with $i\ne j$ have mean $\langle\mathbb E[rs],\mathbb E[s]\rangle = 0$.
# ```
#
# Two gradients cost as much as one; the estimate is noisier, because the terms that vanish in the mean are there in every batch.


# %%
def two_gradient_error(numerator, denominator):
    worst = 0.0
    for r, size in itertools.product(small, (2, 3, 4)):
        groups = all_groups(r, size)
        correct = (groups.reward[..., None] * groups.score).sum(1)
        total = groups.score.sum(1)
        seen = [
            groups.prob @ numerator(correct, total - correct).sum(1) / size,
            groups.prob @ denominator(correct, total - correct).sum(1) / size,
        ]
        energy = r.prob * (r.score**2).sum(1)
        worst = max(
            worst, relative_error(seen, [energy @ r.reward, energy.sum()])
        )
    return worst


ledger.check(
    "5-bandit-two-gradients",
    "over all batches, <C,C+W>/N and |C+W|^2/N have the means E[r|s|^2] and E|s|^2 (largest relative error)",
    testbed="bandit",
    predicted=0.0,
    measured=two_gradient_error(
        lambda c, w: c * (c + w), lambda c, w: (c + w) ** 2
    ),
    tolerance=1e-9,
    sabotages={
        "|C|^2 in place of <C, C+W>": two_gradient_error(
            lambda c, w: c**2, lambda c, w: (c + w) ** 2
        ),
        "|C|^2 + |W|^2 in place of |C+W|^2": two_gradient_error(
            lambda c, w: c * (c + w), lambda c, w: c**2 + w**2
        ),
    },
)

# %% [markdown]
# ### Estimators side by side
#
# In a tabular softmax with equally likely correct and equally likely wrong responses, everything depends on the rewards only.
# So the exact variance is a sum over the reward patterns of a group, and over the number of correct responses among those that a pooled estimate uses.
# Groups of four; the pooled estimate sees seven other groups, the lagged one ten batches of eight groups of an unchanged policy.


# %%
def exact_variances(correct, wrong, failure, size=4):
    """Variance of the group's gradient under each baseline, over all reward patterns."""
    r = tabular(
        np.full(correct, 1 / correct), np.full(wrong, 1 / wrong), failure
    )
    J, (e_plus, e_minus) = success_rate(r), score_energies(r)
    gradient = (policy_gradient(r) ** 2).sum()
    gap = gradient / (J * (1 - J)) ** 2
    pattern = np.array(list(itertools.product((0.0, 1.0), repeat=size)))
    weight = J ** pattern.sum(1) * (1 - J) ** (size - pattern.sum(1))
    energy = np.where(pattern == 1, e_plus, e_minus)

    # A mean score is (r - J) times the gap, so two responses have the inner product (r - J)(r' - J) |D|^2.
    inner = (pattern[:, :, None] - J) * (pattern[:, None] - J) * gap
    inner[:, np.arange(size), np.arange(size)] = energy

    def of_group(advantage):
        square = np.einsum("oi,oij,oj->o", advantage, inner, advantage)
        return weight @ square / size**2 - gradient

    def of_independent(others):
        count = np.arange(others + 1)
        total = count * e_plus + (others - count) * e_minus
        spread = gradient_variance(r, count * e_plus / total, size)
        return stats.binom.pmf(count, others, J) @ spread

    return {
        "zero baseline": gradient_variance(r, 0.0, size),
        "leave-one-out mean": of_group(group_advantages(pattern, "rloo")),
        "leave-one-out b*": of_group(pattern - mean_of_others(pattern, energy)),
        "pooled b*": of_independent(28),
        "lagged b*": of_independent(320),
        "b*": gradient_variance(r, optimal_baseline(r), size),
    }


check = exact_variances(2, 2, 0.2)["leave-one-out mean"]
agrees = leave_one_out_variance(
    tabular(np.full(2, 0.5), np.full(2, 0.5), 0.2), 4
)
print(
    "sum over patterns agrees with theorem 5c:",
    bool(abs(check / agrees - 1) < 1e-12),
)

# %% tags=["hide-input"]
fig, axes = figures.panels(columns=2, height=3.4, sharey=True)
failures = expit(-np.linspace(-4, 6, 41))
curves = {}
for ax, count in zip(axes, (1, 3), strict=True):
    rows = [exact_variances(count, 8 - count, f) for f in failures]
    for k, name in enumerate(rows[0]):
        curve = np.array([row[name] / row["b*"] for row in rows])
        curves[name, count] = curve
        style = figures.PREDICTION if name == "b*" else {"color": f"C{k}"}
        ax.plot(-logit(failures), curve, label=name, **style)
    ax.set(
        xlabel="log-odds of success",
        yscale="log",
        ylim=(0.8, 300),
        title=f"{count} of 8 responses correct",
    )
axes[0].set(ylabel="variance over that of b*")
axes[1].set(ylabel="variance over that of b*")
axes[0].legend(fontsize="small")
figures.show(
    fig,
    "Exact variance of the group gradient under five baselines over that of the optimum, against the log-odds of "
    "success. With one correct response both leave-one-out baselines rise steeply as success nears one, the pooled "
    "estimate later and the lagged one later still, and the zero baseline stays low; with three correct ones the zero "
    "baseline rises and the others stay low.",
)

# %% [markdown]
# With one correct answer the leave-one-out estimate of $b^*$ follows the mean up the same slope.
# An estimate from $n$ other responses does so too, later: as long as no failure is among them it is one, like their mean, so it needs $n(1-J)$ well above one.
# Pooling over one batch is therefore not enough near $J=1$; the memory of past batches is.
# With three correct answers the order reverses, and the zero baseline is the expensive choice.


# %%
def repaired(name, failure):
    """Share of the excess variance of leave-one-out means that an estimate removes, one correct response of eight."""
    row = exact_variances(1, 7, failure)
    return (row["leave-one-out mean"] - row[name]) / (
        row["leave-one-out mean"] - row["b*"]
    )


print(
    "share of the excess removed by b* estimated leave-one-out, pooled, lagged"
)
for failure in (0.5, 0.1, 0.02, 0.005):
    shares = [
        repaired(f"{kind} b*", failure)
        for kind in ("leave-one-out", "pooled", "lagged")
    ]
    print(
        f"  J = {1 - failure:.3f}: "
        + " ".join(f"{share:6.2f}" for share in shares)
    )

ledger.check(
    "5-bandit-independent-estimates-repair",
    "one correct response of eight, groups of four, J = 0.98: b* from ten past batches removes most of the excess variance of leave-one-out means (share)",
    testbed="bandit",
    predicted=0.5,
    relation="at least",
    measured=repaired("lagged b*", 0.02),
    sabotages={
        "b* estimated leave-one-out": repaired("leave-one-out b*", 0.02)
    },
)

# %% [markdown]
# ### One number for all prompts
#
# Everything so far is about one prompt, with a $b^*$ of its own.
# A lagged estimate is *one number for all prompts*, because a prompt rarely comes back soon enough to have a memory of its own.
# What does that cost when prompts differ in difficulty?
# Below are thirteen tabular prompts with log-odds of success from $-3$ to $3$, groups of four, and the exact variance summed over the prompts.


# %%
def one_number_prices(correct, size=4):
    """Variance summed over prompts of many difficulties, over that with a b* of their own, and the one best number."""
    prompts = [
        tabular(
            np.full(correct, 1 / correct),
            np.full(8 - correct, 1 / (8 - correct)),
            failure,
        )
        for failure in expit(-np.linspace(-3, 3, 13))
    ]
    energy = [r.prob * (r.score**2).sum(1) for r in prompts]
    one = sum(e @ r.reward for e, r in zip(energy, prompts, strict=True))
    one = one / sum(e.sum() for e in energy)
    least = sum(
        gradient_variance(r, optimal_baseline(r), size) for r in prompts
    )
    totals = {
        "one b* for all": sum(gradient_variance(r, one, size) for r in prompts),
        "zero baseline": sum(gradient_variance(r, 0.0, size) for r in prompts),
        "RLOO": sum(leave_one_out_variance(r, size) for r in prompts),
        "known means": sum(
            gradient_variance(r, success_rate(r), size) for r in prompts
        ),
    }
    return {name: total / least for name, total in totals.items()}


print("variance over that with a b* for every prompt")
for correct in (1, 3):
    columns = [f"{k} {v:.2f}" for k, v in one_number_prices(correct).items()]
    print(f"  {correct} of 8 correct: " + ", ".join(columns))

# %% [markdown]
# With one correct answer one number is almost as good as one for each prompt.
# With three of eight it costs more than the leave-one-out mean, which follows the difficulty of its prompt.
#
# ## 5.4 The learning rate that noise allows
#
# Let $J$ be $L$-smooth and let a step be $\eta g$ with $\mathbb E[g] = \nabla J$, and write $\mathrm{SNR} = |\nabla J|^2/\mathrm{Var}\,g$.
#
# ```{prf:theorem} The SNR step (5d)
# :label: thm-snr-step
# The expected gain is at least $\eta|\nabla J|^2 - \frac L2\eta^2\big(|\nabla J|^2+\mathrm{Var}\,g\big)$.
# This bound is largest at
#
# $$
# \eta^* = \frac1L\,\frac{\mathrm{SNR}}{1+\mathrm{SNR}}, \qquad\text{where it is}\qquad \frac{|\nabla J|^2}{2L}\,\frac{\mathrm{SNR}}{1+\mathrm{SNR}} .
# $$
#
# The SNR of a mean of $N$ responses is $N$ over the gradient noise scale $\mathrm{tr}\,\Sigma/|\nabla J|^2$ {cite:p}`mccandlish2018empirical`.
# ```
#
# ```{prf:proof}
# Taylor's theorem, $\mathbb E|g|^2 = |\nabla J|^2 + \mathrm{Var}\,g$, and the top of a parabola.
# ```

# %%
eta, L, signal, noise = sp.symbols("eta L S V", positive=True)
bound = eta * signal - L / 2 * eta**2 * (signal + noise)
(top,) = sp.solve(sp.diff(bound, eta), eta)
snr = signal / noise
print("eta* - SNR/(1+SNR)/L =", sp.simplify(top - snr / (1 + snr) / L))
print(
    "gain - promised =",
    sp.simplify(bound.subs(eta, top) - signal / 2 / L * snr / (1 + snr)),
)

# %% [markdown]
# A log-linear policy is $L$-smooth with $L = \frac{\sqrt3}{18}\,\mathrm{diam}^2$, the largest curvature of success at any success rate (chapter 4), and no smaller $L$ serves all of them.
# We take that $L$, step from every group of three responses, and average the exact gain over all of them.

# %%
policies = drawn[: min(60, instances)]


def expected_gain_over_promise(promise, stretch=1.0, size=3, b=0.4):
    """Exact expected gain of one SNR step over what is promised, for each bandit."""
    ratios = []
    for policy in policies:
        r = policy.enumerate()
        groups = all_groups(r, size)
        estimate = ((groups.reward - b)[..., None] * groups.score).mean(1)
        signal = (policy_gradient(r) ** 2).sum()
        snr = signal / gradient_variance(r, b, size)
        L = float(smoothness(bandit.feature_diameter(policy.features[0])))
        rate = stretch * snr_learning_rate(snr, L)
        odds, _ = bandit.log_odds_and_gap(
            policy.theta + rate * estimate, policy.features[0], policy.reward[0]
        )
        gain = groups.prob @ expit(odds) - success_rate(r)
        ratios.append(gain / promise(signal, snr, L))
    return np.array(ratios)


def promised(signal, snr, L):
    return signal / (2 * L) * snr / (1 + snr)


def noiseless(signal, snr, L):
    return signal / (2 * L)


kept = expected_gain_over_promise(promised)
print(
    f"expected gain over the promise: least {kept.min():.2f}, median {np.median(kept):.2f}"
)
ledger.check(
    "5-bandit-snr-step",
    "over all groups, one SNR step gains at least what theorem 5d promises (least ratio)",
    testbed="bandit",
    predicted=1.0,
    relation="at least",
    measured=kept.min(),
    tolerance=1e-9,
    sabotages={
        "noise left out of the promise": expected_gain_over_promise(
            noiseless
        ).min(),
        "step against the gradient": expected_gain_over_promise(
            promised, -1.0
        ).min(),
    },
    paper=("P3.snr-rate", "confirmed"),
)

# %% [markdown]
# The guarantee holds.
# Without any curvature the ratio would be two, because the promise gives half of the first-order gain away.
# The printed median is close to that, so the recommended step is too short to feel the curvature along it: $L$ is the largest curvature anywhere and in any direction.
#
# ### Estimating the SNR
#
# The natural estimate of $|\nabla J|^2$ is the mean of $\langle g_i, g_j\rangle$ over pairs, which is unbiased for independent terms.
# The terms of a group under leave-one-out baselines are not independent: each response sits in the other's baseline.
#
# ```{prf:proposition} Bias within a group
# :label: prop-u-statistic
# Under leave-one-out means the pair statistic within a group has mean $\big(1+\frac1{(G-1)^2}\big)|\nabla J|^2$.
# With the mean of the responses outside the *pair* as the baseline it is unbiased, for $G \ge 3$.
# Between prompts drawn independently it is unbiased; between $P$ of $M$ prompts drawn without replacement its mean is $|\overline{\nabla J}|^2 - \mathrm{Var}_q/(M-1)$.
# ```


# %%
def pair_statistic(estimator):
    """Mean of the pair statistic over all groups, relative to |grad J|^2, per bandit and group size."""
    ratios = []
    for r, size in itertools.product(small, (3, 4)):
        groups = all_groups(r, size)
        truth = (policy_gradient(r) ** 2).sum()
        ratios.append(groups.prob @ estimator(groups) / truth)
    return np.array(ratios).reshape(len(small), 2)


def within_group(baseline):
    def estimate(groups):
        terms = (groups.reward - baseline(groups))[..., None] * groups.score
        size, total = terms.shape[1], terms.sum(1)
        square = (terms**2).sum((1, 2))
        return ((total**2).sum(1) - square) / size / (size - 1)

    return estimate


def rloo_factor(sizes):
    return 1 + 1 / (np.array(sizes) - 1) ** 2


under_rloo = pair_statistic(within_group(BASELINES["leave-one-out mean"]))
under_own = pair_statistic(within_group(BASELINES["leave-one-out b*"]))
outside = pair_statistic(lambda g: group_squared_signal(g.reward, g.score))
print(
    f"under leave-one-out b*, groups of 3 and 4: {under_own[:, 0].mean():.3f}, {under_own[:, 1].mean():.3f} times the truth"
)


def pair_error(seen, factor):
    return float(np.abs(seen / factor - 1).max())


ledger.check(
    "5-bandit-signal-within-groups",
    "over all groups, the pair statistic is 1 + 1/(G-1)^2 times the truth under RLOO, and unbiased with a baseline from outside the pair (largest relative error)",
    testbed="bandit",
    predicted=0.0,
    measured=max(
        pair_error(under_rloo, rloo_factor([3, 4])), pair_error(outside, 1.0)
    ),
    tolerance=1e-9,
    sabotages={
        "within-group statistic under RLOO called unbiased": pair_error(
            under_rloo, 1.0
        ),
        "within-group statistic under leave-one-out b* called unbiased": pair_error(
            under_own, 1.0
        ),
    },
)

# %%
vectors = rng.standard_normal((5, 3)) + 0.5
mean_vector = vectors.mean(0)
spread = ((vectors - mean_vector) ** 2).sum(1).mean()


def prompt_statistic(draws):
    return np.mean([squared_signal(vectors[list(q)]) for q in draws])


def prompt_error(correction):
    return relative_error(
        [
            prompt_statistic(itertools.product(range(5), repeat=3)),
            prompt_statistic(itertools.permutations(range(5), 3)),
        ],
        [
            mean_vector @ mean_vector,
            mean_vector @ mean_vector - correction * spread,
        ],
    )


scale = vectors.var(axis=0, ddof=1).sum() / squared_signal(vectors)
print(
    "SNR is rows over noise scale:",
    bool(abs(gradient_snr(vectors) * scale / 5 - 1) < 1e-12),
)
ledger.check(
    "5-bandit-signal-between-prompts",
    "over all draws of 3 of 5 prompts, the pair statistic is unbiased with replacement and off by -Var/(M-1) without (largest relative error)",
    testbed="bandit",
    predicted=0.0,
    measured=prompt_error(1 / 4),
    tolerance=1e-9,
    sabotages={"without replacement called unbiased": prompt_error(0.0)},
)

# %% [markdown]
# ### Does the SNR fall as success nears one?
#
# It depends on the baseline *and* on the number of correct answers.
# The exponents of $1-J$, from the closed forms of the tabular softmax in sixty digits:

# %%
mp.mp.dps = 60


def snr_at(failure, correct, kind, wrong=3):
    """SNR of one response in the tabular softmax, in many digits."""
    F, J = mp.mpf(failure), 1 - mp.mpf(failure)
    total = J**2 / correct + F**2 / wrong
    e_plus, e_minus = 1 - 2 * J / correct + total, 1 - 2 * F / wrong + total
    b = {
        "mean": J,
        "zero baseline": mp.mpf(0),
        "b*": J * e_plus / (J * e_plus + F * e_minus),
    }[kind]
    signal = (J * F) ** 2 * (mp.mpf(1) / correct + mp.mpf(1) / wrong)
    return signal / (J * (1 - b) ** 2 * e_plus + F * b**2 * e_minus - signal)


def exponent(correct, kind):
    values = [snr_at(mp.mpf(10) ** -k, correct, kind) for k in (8, 9)]
    return float(mp.log10(values[0] / values[1]))


EXPONENTS = {
    (1, "mean"): 1, (1, "zero baseline"): -1, (1, "b*"): -1,
    (3, "mean"): 1, (3, "zero baseline"): 2, (3, "b*"): 1,
}  # fmt: skip
measured_exponents = {key: exponent(*key) for key in EXPONENTS}
for (correct, kind), value in measured_exponents.items():
    print(f"{correct} correct, {kind:13}: SNR ~ (1-J)^{value:.2f}")


def exponent_error(expected):
    return max(
        abs(measured_exponents[key] - value) for key, value in expected.items()
    )


ledger.check(
    "5-bandit-snr-near-one",
    "exponent of 1-J in the SNR: one correct answer +1 with the mean, -1 with zero and with b*; several +1, +2, +1 (largest error)",
    testbed="bandit",
    predicted=0.0,
    measured=exponent_error(EXPONENTS),
    tolerance=1e-6,
    sabotages={
        "falls as 1-J whatever the baseline": exponent_error(
            dict.fromkeys(EXPONENTS, 1)
        ),
        "one correct answer like several": exponent_error(
            EXPONENTS | {(1, "b*"): 1, (1, "zero baseline"): 2}
        ),
    },
)

# %% [markdown]
# So a schedule that follows the SNR slows down near $J=1$ with the mean baseline, and speeds up there with $b^*$ when one answer is right.
#
# ## 5.5 Length weights: the baseline moves the mean
#
# All of this rests on $\mathbb E[s]=0$.
# GRPO's original loss divides each response by its length.
#
# ```{prf:proposition} Length weights (5e)
# :label: prop-length
# $\mathbb E[s/|o|] = \nabla\,\mathbb E[1/|o|]$, so $\mathbb E\big[(r-b)\,s/|o|\big] = \nabla\,\mathbb E\big[(r-b)/|o|\big]$ with $b$ held fixed.
# Unless all lengths are equal, the baseline then changes the mean gradient: $b > 0$ lengthens responses, whether right or wrong.
# ```

# %%
lengths = [
    rng.integers(1, 9, policy.features.shape[1]).astype(float)
    for policy in policies
]


def mean_inverse_length(policy, length, theta, b):
    weight = np.exp(policy.features[0] @ theta)
    return (weight * (policy.reward[0] - b) / length).sum() / weight.sum()


def length_error(claimed):
    worst = 0.0
    for policy, length in zip(policies, lengths, strict=True):
        r = policy.enumerate()
        for b in (0.0, 0.5, 1.0):
            step = [
                np.imag(
                    mean_inverse_length(
                        policy, length, policy.theta + 1e-30j * e, b
                    )
                )
                / 1e-30
                for e in np.eye(len(policy.theta))
            ]
            weights = r.prob * (r.reward - claimed(b)) / length
            worst = max(worst, relative_error(weights @ r.score, step))
    return worst


ledger.check(
    "5-bandit-length-weights",
    "with 1/|o| weights the mean gradient is that of E[(r-b)/|o|], for every b (largest relative error)",
    testbed="bandit",
    predicted=0.0,
    measured=length_error(lambda b: b),
    tolerance=1e-9,
    sabotages={"the baseline said not to matter": length_error(lambda b: 0.0)},
)

# %% [markdown]
# ## 5.6 Training on bandits
#
# Lower variance is a means; the end is a better policy from the same samples.
# Sixty-four prompts share one parameter vector of dimension 24, and every prompt has eight responses.
# A hidden teacher ranks the responses of every prompt by its own parameters, and the best (or the best three) are correct, so all prompts can be solved together.
# Each step draws eight prompts and four responses to each.
#
# Every method gets the same samples per step, its own learning rate, tuned by mean final success on tuning seeds, and is then run on fresh seeds.
# A rate counts as tuned only if it has worse ones on both sides: a method whose best rate sits at an edge of its grid is named below the table.
# Each seed has its own features and teacher, so that the intervals cover instances too.
# Seeds are paired: all methods see the same instances and the same random numbers.

# %%
PROMPTS, ARMS, DIMENSION, BATCH, GROUP = 64, 8, 24, 8, 4


def draw_worlds(seeds, correct):
    """Features [R, prompts, arms, d], the correct ones first, and the random numbers of every run."""
    features, chosen, noise = [], [], []
    for one in seeds:
        own = np.random.default_rng([seed, one])
        rows = own.standard_normal((PROMPTS, ARMS, DIMENSION))
        rank = np.argsort(-rows @ own.standard_normal(DIMENSION), axis=1)
        features.append(np.take_along_axis(rows, rank[..., None], 1))
        keys = own.random((bandit_steps, PROMPTS))
        chosen.append(keys.argsort(1)[:, :BATCH])
        noise.append(own.random((bandit_steps, BATCH, GROUP)))
    return SimpleNamespace(
        features=np.stack(features),
        chosen=np.stack(chosen),
        noise=np.stack(noise),
        reward=(np.arange(ARMS) < correct).astype(float),
    )


def population(theta, features, reward):
    """Of every prompt of every run: law [..., A], scores [..., A, d], success, E|s|^2 and b*."""
    law = np.exp(bandit.log_policy(theta[:, None], features))
    score = (
        features - np.einsum("...a,...ad->...d", law, features)[..., None, :]
    )
    energy = np.einsum("...ad,...ad->...a", score, score)
    total = (law * energy).sum(-1)
    weighted = (law * energy * reward).sum(-1)
    return SimpleNamespace(
        law=law,
        score=score,
        energy=energy,
        success=law @ reward,
        total=total,
        weighted=weighted,
        best=weighted / total,
    )


def sample(p, reward, noise):
    """Groups drawn from the laws [R, P, A] with uniform numbers [R, P, G]."""
    arm = (noise[..., None] > p.law.cumsum(-1)[:, :, None, :-1]).sum(-1)
    return SimpleNamespace(
        reward=reward[arm],
        score=np.take_along_axis(p.score, arm[..., None], 2),
        energy=np.take_along_axis(p.energy, arm, 2),
    )


# %% [markdown]
# The methods, as functions that turn a batch into advantages.
# `lagged` remembers past batches with a decay of $0.9$, from score norms or from two gradients a batch.
# Two are broken on purpose: the *lagged mean* remembers rewards without the weights $|s|^2$, and the *flipped* baseline is the lagged $b^*$ with the wrong sign.

# %%
ADVANTAGES = {
    "zero baseline": lambda b: b.reward,
    "group mean": lambda b: group_advantages(b.reward, "dr_grpo"),
    "RLOO": lambda b: group_advantages(b.reward, "rloo"),
    "GRPO": lambda b: group_advantages(b.reward, "grpo"),
    "exact b*": lambda b: b.reward - b.population.best[..., None],
    "pooled b*": lambda b: (
        b.reward - pooled_baselines(b.reward, b.energy)[..., None]
    ),
    "lagged b*": lambda b: b.reward - b.lagged,
    "leave-one-out b*": lambda b: b.reward - mean_of_others(b.reward, b.energy),
    "lagged, two gradients": lambda b: b.reward - b.two_gradients,
    "lagged mean": lambda b: b.reward - b.lagged_mean,
    "flipped": lambda b: b.reward + b.lagged,
}


def oracle_shrinkage(p, reward, advantage):
    """SNR/(1+SNR) of the batch gradient, exactly, for RLOO or for exact b*, from all prompts of a run."""
    J = p.success
    gradient = np.einsum(
        "rpa,rpad->rpd", p.law * (reward - J[..., None]), p.score
    )
    square = (gradient**2).sum(-1)
    if advantage == "exact b*":
        within = (p.weighted - p.weighted**2 / p.total - square) / GROUP
    else:
        own = (1 - 2 * J) * p.weighted + J**2 * p.total
        own += J * (1 - J) * p.total / (GROUP - 1)
        pairs = (1 - 1 / GROUP) * (1 + 1 / (GROUP - 1) ** 2)
        within = own / GROUP + (pairs - 1) * square
    mean = gradient.mean(1)
    signal = (mean**2).sum(-1)
    between = (square.mean(1) - signal) * (PROMPTS - BATCH) / (PROMPTS - 1)
    return signal / (signal + (between + within.mean(1)) / BATCH)


# %%
def per_run(value, theta):
    """One number for every run [R], or for all alike, as [R, 1, 1]."""
    return np.broadcast_to(value, len(theta))[:, None, None]


def sums(batch):
    """Two gradients of every run: the sum of the scores of its correct responses, and of all, each [R, d]."""
    correct = np.einsum("rpg,rpgd->rd", batch.reward, batch.score)
    return correct, batch.score.sum((1, 2))


def train_bandits(worlds, advantage, learning_rates, schedule="constant"):
    """Exact final success, mean over all prompts, of every run [R]."""
    theta = np.zeros((len(worlds.features), DIMENSION))
    lagged, running = LaggedBaseline(decay=0.9), RunningSnr(decay=0.9)
    two_gradients, plain = LaggedBaseline(decay=0.9), LaggedBaseline(decay=0.9)
    rows = np.arange(len(theta))[:, None]
    for step in range(bandit_steps):
        p = population(
            theta, worlds.features[rows, worlds.chosen[:, step]], worlds.reward
        )
        batch = sample(p, worlds.reward, worlds.noise[:, step])
        batch.population = p
        batch.lagged = per_run(lagged.value, theta)
        batch.two_gradients = per_run(two_gradients.value, theta)
        batch.lagged_mean = per_run(plain.value, theta)
        weights = ADVANTAGES[advantage](batch)
        lagged.update(batch.reward, batch.energy)
        plain.update(batch.reward, np.ones_like(batch.energy))
        correct, both = sums(batch)
        two_gradients.count((correct * both).sum(-1), (both**2).sum(-1))
        gradients = np.einsum("rpg,rpgd->rpd", weights, batch.score) / GROUP
        factor = 1.0
        if schedule == "oracle SNR":
            everything = population(theta, worlds.features, worlds.reward)
            factor = oracle_shrinkage(everything, worlds.reward, advantage)
        if schedule == "estimated SNR":
            running.update(gradients)
            factor = running.shrinkage
        theta = theta + (learning_rates * factor)[:, None] * gradients.mean(1)
    return population(theta, worlds.features, worlds.reward).success.mean(1)


METHODS = {
    **{name: (name, "constant") for name in ADVANTAGES},
    "RLOO, oracle SNR": ("RLOO", "oracle SNR"),
    "RLOO, estimated SNR": ("RLOO", "estimated SNR"),
    "exact b*, oracle SNR": ("exact b*", "oracle SNR"),
    "lagged b*, estimated SNR": ("lagged b*", "estimated SNR"),
    "OBLR-PO (standard reading)": ("leave-one-out b*", "estimated SNR"),
}


def tuned(method, correct, grid):
    """Final success on fresh seeds [R] at the rate that is best on the tuning seeds, that rate, and the grid."""
    advantage, schedule = METHODS[method]
    grid = grid * (1.0 if schedule == "constant" else 4.0)
    own = np.repeat(np.arange(1000, 1000 + bandit_tuning)[None], len(grid), 0)
    worlds = draw_worlds(own.ravel(), correct)
    found = train_bandits(
        worlds, advantage, np.repeat(grid, bandit_tuning), schedule
    )
    rate = grid[found.reshape(own.shape).mean(1).argmax()]
    fresh = draw_worlds(range(bandit_seeds), correct)
    final = train_bandits(
        fresh, advantage, np.full(bandit_seeds, rate), schedule
    )
    return final, rate, grid


# %%
GRID = np.geomspace(0.25, 64, bandit_rates)
bandit_runs = {
    (method, correct): tuned(method, correct, GRID)
    for correct in (1, 3)
    for method in METHODS
}


MISS = 0.01  # probability that an interval misses, on either side


def gain_over(runs, method, reference, setting):
    """Median paired gain in final success over another method, and its exact interval, from order statistics."""
    difference = runs[method, setting][0] - runs[reference, setting][0]
    low, high = quantile_interval(difference, 0.5, 2 * MISS)
    return np.median(difference), max(low, -1.0), min(high, 1.0)


def at_an_edge(runs):
    """Methods whose best rate has no worse one on both sides, so that they are not tuned."""
    named = {
        method
        for (method, _), (_, rate, grid) in runs.items()
        if not min(grid) < rate < max(grid)
    }
    return ", ".join(sorted(named)) or "no method"


def table_of_gains(runs, methods, setting):
    for method in methods:
        final, rate, _ = runs[method, setting]
        median, low, high = gain_over(runs, method, "RLOO", setting)
        difference = final - runs["RLOO", setting][0]
        print(
            f"  {method:27} rate {rate:5.1f}  mean {final.mean():.3f}  least {final.min():.2f}  gain: mean {difference.mean():+.3f}, median {median:+.3f} [{low:+.3f}, {high:+.3f}], won {(difference > 0).sum()} of {len(final)}"
        )


# %% tags=["nbval-ignore-output"]
print(
    f"final success, {bandit_seeds} fresh seeds; paired gain over RLOO, the median with its exact 98% interval"
)
for correct in (1, 3):
    print(f"{correct} of {ARMS} responses correct")
    table_of_gains(bandit_runs, METHODS, correct)
print("not tuned, best at an edge of its grid:", at_an_edge(bandit_runs))

# %% tags=["hide-input"]
fig, axes = figures.panels(columns=2, height=4.4, sharey=True)
shown = [name for name in METHODS if name != "RLOO"]
for ax, correct in zip(axes, (1, 3), strict=True):
    base = bandit_runs["RLOO", correct][0]
    for place, method in enumerate(reversed(shown)):
        difference = bandit_runs[method, correct][0] - base
        _, low, high = gain_over(bandit_runs, method, "RLOO", correct)
        ax.scatter(
            difference,
            place + np.linspace(-0.25, 0.25, len(difference)),
            s=4,
            alpha=0.5,
            color="C0",
        )
        ax.plot([low, high], [place, place], color="C3", linewidth=3)
    ax.axvline(0, **figures.PREDICTION)
    ax.set_xscale("symlog", linthresh=0.02)
    ax.set(
        yticks=range(len(shown)),
        yticklabels=list(reversed(shown)),
        xlabel="final success minus RLOO's",
        ylabel="method" if correct == 1 else "",
        title=f"{correct} of {ARMS} correct",
    )
axes[1].set_ylabel("method")
figures.show(
    fig,
    "Final success minus that of RLOO for every method and seed, with intervals of the median. With one correct response "
    "the zero baseline, exact b* and lagged b* gain alike, and the sign-flipped baseline gains a little; leave-one-out b* "
    "and the lagged mean do not; estimated SNR schedules lose. With three correct ones the zero and the flipped baseline "
    "and all SNR schedules lose, and most others tie.",
)

# %% tags=["nbval-ignore-output"]
PAIRED = {
    "n": bandit_seeds,
    "unit": "paired runs",
    "seeds": range(bandit_seeds),
}

ledger.check(
    "5-bandit-training-lagged",
    "one correct response: b* from past batches gains over RLOO at equal samples (lower end of the median paired gain in final success)",
    testbed="bandit",
    kind="training",
    predicted=0.0,
    relation="at least",
    measured=gain_over(bandit_runs, "lagged b*", "RLOO", 1)[1],
    false_alarm=MISS,
    sabotages={
        "b* estimated leave-one-out in the group": gain_over(
            bandit_runs, "leave-one-out b*", "RLOO", 1
        )[1],
        "rewards not weighted with |s|^2: the mean of past batches": gain_over(
            bandit_runs, "lagged mean", "RLOO", 1
        )[1],
    },
    paper=("P3.baseline-stability", "limited"),
    **PAIRED,
)

# %% [markdown]
# What this gain does *not* show is that the value of $b^*$ matters much.
# With one correct answer $b^*$ tends to zero as success nears one, so the zero baseline is close to it and gains as much.
# Even the flipped baseline gains a little over RLOO, because $-b^*$ is then near zero as well.
# The gain is that of not subtracting the mean, and what tells $b^*$ from zero is the other task, with three correct answers, where zero is wrong.


# %% tags=["nbval-ignore-output"]
MARGIN = 0.02  # a difference in final success that we call small


def apart(method, reference, correct):
    """How far apart two methods may be: the larger end, in size, of the interval of the median paired difference."""
    return max(
        abs(end)
        for end in gain_over(bandit_runs, method, reference, correct)[1:]
    )


ledger.check(
    "5-bandit-training-zero-as-good",
    "one correct response: zero baseline and b* from past batches end within .02 of each other (larger end of the median paired difference)",
    testbed="bandit",
    kind="training",
    predicted=MARGIN,
    relation="at most",
    measured=apart("lagged b*", "zero baseline", 1),
    false_alarm=2 * MISS,
    sabotages={
        "RLOO in place of the zero baseline": apart("lagged b*", "RLOO", 1)
    },
    **PAIRED,
)


# %% tags=["nbval-ignore-output"]
def reversal(few, several):
    """Lower ends of the gain of the zero baseline with few correct responses and of its loss with several: the smaller."""
    return min(
        gain_over(bandit_runs, "zero baseline", "RLOO", few)[1],
        gain_over(bandit_runs, "RLOO", "zero baseline", several)[1],
    )


ledger.check(
    "5-bandit-training-reversal",
    "the zero baseline beats RLOO with one correct response and loses to it with three of eight (smaller of the two lower ends)",
    testbed="bandit",
    kind="training",
    predicted=0.0,
    relation="at least",
    measured=reversal(1, 3),
    false_alarm=2 * MISS,
    sabotages={"one and three exchanged": reversal(3, 1)},
    **PAIRED,
)


# %% tags=["nbval-ignore-output"]
def schedule_gain(schedule, names):
    """Larger of the upper ends of the gain of an SNR schedule over a constant rate, with one correct response."""
    return max(
        gain_over(bandit_runs, f"{name}, {schedule} SNR", name, 1)[2]
        for name in names
    )


ledger.check(
    "5-bandit-training-snr-rate",
    "one correct response: an SNR rate estimated from batches of eight prompts ends below a tuned constant rate, for RLOO and for lagged b* (larger of the upper ends of the median paired gain)",
    testbed="bandit",
    kind="training",
    predicted=0.0,
    relation="at most",
    measured=schedule_gain("estimated", ("RLOO", "lagged b*")),
    false_alarm=2 * MISS,
    sabotages={
        "the exact SNR in place of the estimate": schedule_gain(
            "oracle", ("RLOO", "exact b*")
        )
    },
    paper=("P3.consistent-gains", "not-reproduced"),
    **PAIRED,
)

# %% tags=["nbval-ignore-output"]
ledger.check(
    "5-bandit-training-oblr-po",
    "one correct response: the standard reading of OBLR-PO ends below tuned RLOO (upper end of the median paired gain)",
    testbed="bandit",
    kind="training",
    predicted=0.0,
    relation="at most",
    measured=gain_over(bandit_runs, "OBLR-PO (standard reading)", "RLOO", 1)[2],
    false_alarm=MISS,
    sabotages={
        "exact b* and exact SNR in place of the estimates": gain_over(
            bandit_runs, "exact b*, oracle SNR", "RLOO", 1
        )[2]
    },
    paper=("P3.consistent-gains", "not-reproduced"),
    **PAIRED,
)

# %% [markdown]
# Three things to take from the table.
#
# - With one correct answer the methods that avoid the mean gain most: the zero baseline, exact $b^*$, and $b^*$ from past batches, from two gradients as well as from norms. With three correct answers there is next to nothing to gain over the mean, and the zero baseline loses.
# - The estimate inside the group does not gain: groups of four near $J = 1$ rarely disagree ({prf:ref}`prop-loo`).
# - The SNR rate is limited by its estimate. With the exact ratio it does no harm with one correct answer, where for RLOO the median gain is above zero, and it loses a little with three. Estimated from eight prompts it loses: estimates of the signal are often near zero although the signal is not, and the run stalls. That is a statement about estimates from eight prompts, not about the schedule of P3 at its own scale.
#
# The size of a gain depends on the instance as much as on the method.
# That is why every seed here has its own features: intervals over seeds of one instance are too narrow.
# The tuned rate of a method is one number that all its runs share, and no interval here has the chance in it.
#
# ## 5.7 On a transformer
#
# The chain transformer of chapter 1 with four steps over $S_3$ has 1,296 responses to a prompt, and all of them are enumerated.
# One chain of right steps dominates as it learns, so it is a policy with few ways to be right.
# First the exact prices along one training run.

# %%
words = transformer.draw_problems(symmetric_group(3), (4,), 8, seed, names=8)
network = transformer.AttentionPolicy(names=8)
start = network.initial(2.0)


def law_of(theta):
    return network.step_law(theta, words)


laws_and_slopes = torch.func.vmap(
    lambda theta: (law_of(theta), torch.func.jacfwd(law_of)(theta))
)
TABLE = symmetric_group(3).table


def step_population(theta):
    """Laws of the steps [R, P, T, order] and their scores [R, P, T, order, d], for R parameter vectors."""
    law, slope = (part.numpy() for part in laws_and_slopes(torch.tensor(theta)))
    law, slope = law.transpose(0, 3, 1, 2), slope.transpose(0, 3, 1, 2, 4)
    score = np.divide(
        slope,
        law[..., None],
        out=np.zeros_like(slope),
        where=law[..., None] > 0,
    )
    return law, score


def chains(theta, noise):
    """A group for every prompt of every run: rewards and energies [R, P, G], scores [R, P, G, d]."""
    law, score = step_population(theta)
    element = (noise[..., None] > law.cumsum(-1)[:, :, None, :, :-1]).sum(-1)
    product = np.zeros(element.shape[:-1], dtype=int)
    total = 0.0
    for step in range(element.shape[-1]):
        product = TABLE[product, element[..., step]]
        total = total + np.take_along_axis(
            score[:, :, step], element[..., step, None], 2
        )
    reward = (product == words.target.numpy()[:, None]).astype(float)
    return SimpleNamespace(
        reward=reward, score=total, energy=(total**2).sum(-1)
    )


# %%
TRANSFORMER_METHODS = (
    "RLOO",
    "zero baseline",
    "GRPO",
    "lagged b*",
    "leave-one-out b*",
    "pooled b*",
    "flipped",
)


def train_chains(method, learning_rates, seeds, keep=()):
    """Exact final success of every run, and all parameters [R, d] at the steps to keep and at the end."""
    theta = np.tile(start.numpy(), (len(seeds), 1))
    noises = [np.random.default_rng([seed, 7, one]) for one in seeds]
    lagged, kept = LaggedBaseline(decay=0.9), []
    shape = (len(words), GROUP, 4)
    for step in range(transformer_steps):
        if step in keep:
            kept.append(theta.copy())
        batch = chains(theta, np.stack([own.random(shape) for own in noises]))
        batch.lagged = per_run(lagged.value, theta)
        weights = ADVANTAGES[method](batch)
        lagged.update(batch.reward, batch.energy)
        gradient = (
            np.einsum("rpg,rpgd->rd", weights, batch.score) / weights[0].size
        )
        theta = theta + learning_rates[:, None] * gradient
    with torch.no_grad():
        final = network.success(torch.tensor(theta), words).mean(-1).numpy()
    return final, [*kept, theta]


points = [0, transformer_steps // 4, transformer_steps // 2]
EXAMPLES = range(500, 506)
_, snapshots = train_chains(
    "lagged b*", np.full(len(EXAMPLES), 8.0), EXAMPLES, keep=points
)


def network_at(theta):
    return transformer.TransformerTestbed(network, words, torch.tensor(theta))


networks = [network_at(theta[0]) for theta in snapshots]
chain_populations = [
    [testbed.enumerate(q) for q in range(4)] for testbed in networks
]


def baseline_bias(gradients, populations, baseline):
    """Largest distance of E[(r - b) s] over all responses from the exact gradient, relative to it."""
    return max(
        relative_error((r.prob * (r.reward - baseline(r))) @ r.score, gradient)
        for gradient, r in zip(gradients, populations, strict=True)
    )


def looks_at_the_response(r):
    return 0.5 * r.reward


exact_gradients = [testbed.exact(0)[1] for testbed in networks]
first_prompts = [rows[0] for rows in chain_populations]
ledger.check(
    "5-transformer-unbiased",
    "over all 1,296 responses, at four points of training, b* leaves the gradient by dynamic programming unchanged (largest relative error)",
    testbed="transformer",
    predicted=0.0,
    measured=baseline_bias(exact_gradients, first_prompts, optimal_baseline),
    tolerance=1e-9,
    sabotages={
        "a baseline that looks at the response": baseline_bias(
            exact_gradients, first_prompts, looks_at_the_response
        )
    },
    paper=("P3.unbiased", "confirmed"),
)


# %% tags=["nbval-ignore-output"]
def prices(r, size=4):
    """Variance of a group of four over that with b*: the mean if it were known, RLOO, zero baseline."""
    least = gradient_variance(r, optimal_baseline(r), size)
    return (
        gradient_variance(r, success_rate(r), size) / least,
        leave_one_out_variance(r, size) / least,
        gradient_variance(r, 0.0, size) / least,
    )


print(
    "success   known mean    RLOO    zero   (variance over that of b*, mean over prompts)"
)
for rows in chain_populations:
    success = np.mean([success_rate(r) for r in rows])
    print(
        f"  {success:5.2f}  "
        + " ".join(f"{p:9.2f}" for p in np.mean([prices(r) for r in rows], 0))
    )


# %%
def price_error(populations, transform=lambda x: x):
    """Largest relative error of theorem 5b's price of the mean, against second moments over all responses."""
    worst = 0.0
    for r in populations:
        energy, J = (r.score**2).sum(1), success_rate(r)
        second = [
            r.prob @ ((r.reward - b) ** 2 * energy)
            for b in (J, optimal_baseline(r))
        ]
        e_plus, e_minus = score_energies(r)
        price = mean_baseline_loss(J, transform(e_minus / e_plus))
        worst = max(worst, abs(price * second[1] / second[0] - 1))
    return worst


everything = [r for rows in chain_populations for r in rows]
ledger.check(
    "5-transformer-price-of-the-mean",
    "over all responses, at four points of training, the price of the mean is that of theorem 5b (largest relative error)",
    testbed="transformer",
    predicted=0.0,
    measured=price_error(everything),
    tolerance=1e-9,
    sabotages={"|s| in place of |s|^2": price_error(everything, np.sqrt)},
)


# %% tags=["nbval-ignore-output"]
def least_mean_over_zero(thetas):
    """Least variance of the mean over that of the zero baseline, over runs and four prompts of each."""
    return min(
        gradient_variance(r, success_rate(r)) / gradient_variance(r, 0.0)
        for theta in thetas
        for r in map(network_at(theta).enumerate, range(4))
    )


ledger.check(
    "5-transformer-mean-worse-than-none",
    "after training the mean has more variance than the zero baseline in every run, on every prompt (least ratio)",
    testbed="transformer",
    kind="training",
    predicted=1.0,
    relation="at least",
    measured=least_mean_over_zero(snapshots[-1]),
    sabotages={"before training": least_mean_over_zero(snapshots[0][:1])},
    n=len(EXAMPLES),
    unit="runs",
    seeds=EXAMPLES,
)

# %% [markdown]
# The price of the mean runs into the hundreds, so one would expect training to show it.
# It does not.


# %%
def tuned_chains(method, grid):
    own = np.repeat(
        np.arange(1000, 1000 + transformer_tuning)[None], len(grid), 0
    )
    found, _ = train_chains(
        method, np.repeat(grid, transformer_tuning), own.ravel()
    )
    by_rate = dict(zip(grid, found.reshape(own.shape).mean(1), strict=True))
    rate = max(by_rate, key=by_rate.get)
    fresh, _ = train_chains(
        method, np.full(transformer_seeds, rate), range(transformer_seeds)
    )
    return fresh, rate, by_rate


chain_runs = {
    (method, 0): tuned_chains(method, 2 * GRID)
    for method in TRANSFORMER_METHODS
}

# %% tags=["hide-input"]
fig, axes = figures.panels(columns=2, height=3.4)
for k, method in enumerate(TRANSFORMER_METHODS[:-1]):
    fresh, _, by_rate = chain_runs[method, 0]
    axes[0].plot(
        list(by_rate),
        list(by_rate.values()),
        marker="o",
        markersize=3,
        label=method,
    )
    axes[1].scatter(
        k + np.linspace(-0.25, 0.25, len(fresh)), np.sort(fresh), s=8
    )
axes[0].set(
    xscale="log",
    xlabel="learning rate",
    ylabel="final success, tuning seeds",
    ylim=(0, 1.02),
)
axes[0].legend(fontsize="x-small", loc="lower center")
axes[1].set(
    xlabel="method", ylabel="final success, fresh seeds", ylim=(0, 1.02)
)
axes[1].set_xticks(
    range(len(TRANSFORMER_METHODS) - 1),
    TRANSFORMER_METHODS[:-1],
    rotation=30,
    ha="right",
    fontsize="x-small",
)
figures.show(
    fig,
    "Left: final success of the transformer against the learning rate; up to the best rates all baselines share one "
    "curve and GRPO's is shifted to smaller rates, beyond them all fall, in no order. Right: final success of every fresh "
    "seed at the tuned rate; most end near one, and some runs of some methods are stuck far below.",
)

# %% tags=["nbval-ignore-output"]
print(
    f"final success, {transformer_seeds} fresh seeds; paired gain over RLOO, the median with its exact 98% interval"
)
table_of_gains(chain_runs, TRANSFORMER_METHODS, 0)
print("not tuned, best at an edge of its grid:", at_an_edge(chain_runs))

# %% [markdown]
# Two things blur this comparison.
# Near success one nothing is left to gain, and at large rates single runs get stuck, so that a mean depends on the rate which a few tuning seeds happened to choose.
# The clean comparison is at one common rate with room left to gain, run by run on the same random numbers.
# Does $b^*$ then make a difference of more than two hundredths?
# The rate and the margin of this check were chosen after looking at the draws of the book profile, so there it describes them.
# The full profile has another seed, and its draws had no part in the choice.


# %% tags=["nbval-ignore-output"]
def share_alike(method, rate=4.0, reference_rate=4.0):
    """Lower end of the exact interval of the share of paired runs in which a method ends within the margin of RLOO."""
    seeds = range(transformer_seeds)
    mine, theirs = (
        train_chains(name, np.full(transformer_seeds, one), seeds)[0]
        for name, one in ((method, rate), ("RLOO", reference_rate))
    )
    alike = int((np.abs(mine - theirs) < MARGIN).sum())
    print(
        f"{method} at rate {rate}, RLOO at {reference_rate}: means {mine.mean():.3f} and {theirs.mean():.3f}, {alike} of {len(mine)} pairs within the margin"
    )
    return share_lower_bound(alike, len(mine), MISS)


ledger.check(
    "5-transformer-training",
    "at one common rate with room to gain, b* from past batches and RLOO end within .02 of each other in at least three quarters of the runs (lower end of the share)",
    testbed="transformer",
    kind="training",
    predicted=0.75,
    relation="at least",
    measured=share_alike("lagged b*"),
    false_alarm=MISS,
    sabotages={
        "GRPO in place of lagged b*": share_alike("GRPO"),
        "RLOO at half the rate": share_alike("lagged b*", reference_rate=2.0),
    },
    paper=("P3.baseline-stability", "limited"),
    n=transformer_seeds,
    unit="paired runs",
    seeds=range(transformer_seeds),
)

# %% [markdown]
# At a common rate with room to gain the two end alike, although at such success the mean has many times the variance of $b^*$ (table above).
# The likely reason, which we have not tested, is that thirty-two responses a step are enough for the signal to dominate until there is little left to gain.
# At larger rates some runs get stuck far below one, and no experiment here separates what stops them.
# So a large price in variance is a statement about noise, and it need not show in training.
# The verdict on P3's sentence, *limited*, is about this missing gain in training only: that the exact $b^*$ of a prompt reduces the variance is true here, and by much (table above).
#
# ## 5.8 On a Qwen
#
# Two tasks on one architecture.
# The *word problem* of chapter 1 has one right product, and after the warm start one chain of thought carries most of the success.
# *Many answers* accepts half of all triples of the right form: correct responses are many and diverse.
# Each has 1,555 responses to a prompt, all enumerated, and a supervised warm start that leaves it right a half to two thirds of the time.
# Every run of a task begins at *one checkpoint*, the warm start with seed zero, so the claims of this section are about that checkpoint.

# %%
group = symmetric_group(3)
TRACKED = [(4, 4, 4), (5, 3, 1), (2, 2, 5), (3, 1, 5), (1, 2, 3), (0, 4, 2)]


def open_testbeds(dtype):
    word = QwenTestbed(model=qwen_model, dtype=dtype)
    many = QwenTestbed(
        task=ManyAnswers(group),
        model=qwen_model,
        warm_start=WarmStart(noise=0.5),
        dtype=dtype,
    )
    return {
        "word problem": word.with_task(WordProblem(group, (3,), 6)),
        "many answers": many,
    }


exact_beds = open_testbeds(torch.float64)
train_beds = open_testbeds(torch.float32)
tracked = {
    "word problem": [
        exact_beds["word problem"].task.prompt(w) for w in TRACKED
    ],
    "many answers": list(range(6)),
}
one_prompt = exact_beds["word problem"].enumerate(tracked["word problem"][0])
_, one_gradient = exact_beds["word problem"].exact(tracked["word problem"][0])


def weighted_bias(weight):
    r = one_prompt
    advantage = (r.reward - optimal_baseline(r)) * weight(r)
    return relative_error((r.prob * advantage) @ r.score, one_gradient)


# %% tags=["nbval-ignore-output"]
ledger.check(
    "5-qwen-unbiased",
    "over all 1,555 responses b* leaves the gradient by backpropagation unchanged (largest relative error)",
    testbed="qwen",
    predicted=0.0,
    measured=weighted_bias(lambda r: 1.0),
    tolerance=1e-9,
    sabotages={
        "a baseline that looks at the response": baseline_bias(
            [one_gradient], [one_prompt], looks_at_the_response
        ),
        "each response weighted with its inverse length": weighted_bias(
            lambda r: 1 / r.length / (r.prob @ (1 / r.length))
        ),
    },
    paper=("P3.unbiased", "confirmed"),
)

# %% [markdown]
# ### Exact prices at four points of training, and stand-ins for the score
#
# $|s|^2$ of every response comes from ghost norms: one backward pass to the outputs of the layers, no gradient of a parameter.
# Frameworks use cheaper stand-ins, and the same machinery computes them:
#
# - the *last layer*: the part of $|s|^2$ in the parameters of the last block;
# - the *output head*: the part in the final projection;
# - the *token proxy* $\sum_t (1 - 2\pi(o_t) + \sum_v\pi(v)^2)$, from probabilities only, no backward pass (verl's `optimal_token_baseline` weights with it {cite:p}`li2026token`);
# - the *length* of the response (verl's `opo` {cite:p}`hao2025opo`).
#
# We audit what matters: the variance of the gradient whose $b^*$ comes from the stand-in, over the variance with the true $b^*$.


# %%
def all_responses(testbed, prompt):
    """Every response to a prompt as one rollout, and its probabilities."""
    tokens, length = testbed.responses(prompt)
    mask = torch.arange(tokens.shape[1]) < length[:, None]
    reward = testbed.task.reward([prompt], tokens[None], length[None])
    rollout = Rollout((prompt,), tokens, mask, reward.double().numpy())
    with torch.no_grad():
        prob = testbed.token_log_probs(rollout).sum(-1).exp()
    return rollout, prob.double().numpy()


def part_of_score(testbed, rollout, keep):
    """Squared norm of the part of every score that passes through the products with a parameter that are kept."""
    p = {name: value.detach() for name, value in testbed.named.items()}
    prompts = testbed.task.prompt_tokens(rollout.prompts)
    rows = prompts.repeat_interleave(len(rollout.tokens) // len(prompts), 0)
    recorder = Recorder()
    token = testbed.plain.row_log_probs(p, rows, rollout.tokens, recorder)
    recorder.products = [part for part in recorder.products if keep(*part[:2])]
    log_prob = torch.where(rollout.mask, token, 0.0).sum(-1)
    return recorder.squared_norms(log_prob, p).double().numpy()


def token_proxy(testbed, rollout):
    """Squared length of every score in the logits, from probabilities only."""
    prompts = testbed.task.prompt_tokens(rollout.prompts)
    forest, emits = shared_prefixes(prompts, rollout.tokens, rollout.mask)
    with torch.no_grad():
        law = testbed.plain.branch_log_probs(testbed.named, forest).double()
        taken = testbed.token_log_probs(rollout).double()
    collision = (2 * law).exp().sum(-1)[emits]
    return token_energies(
        taken, collision.clamp(max=1.0), rollout.mask.double()
    )


def stand_ins(testbed, rollout):
    last = f"model.layers.{testbed.plain.layers - 1}."
    whole = part_of_score(testbed, rollout, lambda name, inputs: True)
    return {
        "exact": whole,
        "last layer": part_of_score(
            testbed, rollout, lambda name, inputs: name.startswith(last)
        ),
        "output head": part_of_score(
            testbed,
            rollout,
            lambda name, inputs: (
                inputs.is_floating_point()
                and name in ("lm_head.weight", "model.embed_tokens.weight")
            ),
        ),
        "token proxy": token_proxy(testbed, rollout),
        "length": rollout.length.double().numpy(),
        "|s|, not squared": np.sqrt(whole),
    }


rollout, prob = all_responses(
    exact_beds["word problem"], tracked["word problem"][0]
)
ghost = part_of_score(
    exact_beds["word problem"], rollout, lambda name, inputs: True
)
agreement = relative_error(ghost, (one_prompt.score**2).sum(1))
print("ghost norms are the norms of the scores:", agreement < 1e-9)


# %%
class Method:
    """A baseline for the training loop that remembers its run; with ``snr`` it also sets the learning rate."""

    def __init__(self, name, rate, snr=False):
        self.name, self.rate = name, rate
        self.lagged, self.running = LaggedBaseline(decay=0.9), None
        if snr:
            self.running = RunningSnr(decay=0.9)

    def energies(self, policy, rollout):
        """|s|^2 of every response, or its stand-in; the scores too where the SNR needs them."""
        score = None
        if self.running is not None:
            score = policy.scores(rollout)
            energy = score.square().sum(-1).double().numpy()
        elif "token" in self.name:
            energy = token_proxy(policy, rollout)
        else:
            energy = policy.squared_norms(rollout).double().numpy()
        return energy.reshape(rollout.reward.shape), score

    def value(self, reward, energy):
        if self.name == "pooled b*":
            return pooled_baselines(reward, energy)[:, None]
        if self.name == "leave-one-out b*":
            return mean_of_others(reward, energy)
        value = np.full_like(reward, self.lagged.value)
        self.lagged.update(reward, energy)
        return value

    def __call__(self, policy, rollout):
        reward = rollout.reward
        if self.name == "RLOO":
            return mean_of_others(reward, np.ones_like(reward))
        if self.name == "zero baseline":
            return np.zeros_like(reward)
        energy, score = self.energies(policy, rollout)
        value = self.value(reward, energy)
        if score is not None:
            weight = torch.tensor((reward - value) / reward.shape[1])
            groups = score.view(*reward.shape, -1)
            self.running.update(
                (weight[:, None].to(score.dtype) @ groups)[:, 0]
            )
        return value

    def learning_rate(self, step):
        factor = 1.0 if self.running is None else self.running.shrinkage
        return self.rate * factor


# %%
def train_qwen(
    name, method, rate, run_seed, steps, optimizer="sgd", keep=(), **options
):
    """A trained copy of a task's testbed, and the parameters at the steps to keep."""
    testbed = train_beds[name].at(train_beds[name].theta)
    rule, kept = Method(method, rate, **options), {}
    settings = {"group_size": GROUP, "optimizer": optimizer}
    if method == "GRPO":
        settings |= {"learning_rate": rate}
    else:
        settings |= {"baseline": rule, "learning_rate": rule.learning_rate}

    def record(step):
        if step.number in keep:
            kept[step.number] = step.before.double().numpy()

    grpo.train(
        testbed,
        lambda generator: testbed.task.draw(BATCH, generator),
        grpo.GRPO(**settings),
        steps,
        run_seed,
        on_step=record,
    )
    return testbed, [*kept.values(), testbed.theta]


kept_steps = [0, qwen_steps // 2, qwen_steps][: qwen_points - 1]
qwen_states = {
    name: train_qwen(
        name,
        "lagged b*",
        0.02,
        500,
        2 * qwen_steps + qwen_steps // 2,
        keep=kept_steps,
    )[1]
    for name in train_beds
}


def summary(testbed, prompt):
    """What the variances of a prompt's gradient depend on, over all its responses."""
    rollout, prob = all_responses(testbed, prompt)
    reward, energies = rollout.reward[0], stand_ins(testbed, rollout)
    J, gradient = testbed.exact(prompt)
    weighted = {name: (prob * e) @ reward for name, e in energies.items()}
    total = {name: prob @ e for name, e in energies.items()}
    weights = prob * reward / J
    return SimpleNamespace(
        success=J,
        signal=gradient @ gradient,
        weighted=weighted["exact"],
        total=total["exact"],
        best={name: weighted[name] / total[name] for name in energies},
        ratio=(total["exact"] - weighted["exact"])
        / (1 - J)
        / (weighted["exact"] / J),
        diversity=1 / (weights @ weights),
    )


def variance(s, b):
    return (1 - b) ** 2 * s.weighted + b**2 * (s.total - s.weighted) - s.signal


qwen_summaries = {
    name: [
        [
            summary(exact_beds[name].at(theta), prompt)
            for prompt in tracked[name][:qwen_prompts]
        ]
        for theta in states
    ]
    for name, states in qwen_states.items()
}

# %% tags=["nbval-ignore-output"]
print(
    "variance over that of b*: known mean, zero baseline, and b* from stand-ins; mean over prompts"
)
for name, rows in qwen_summaries.items():
    print(
        f"{name}\n  success  1/kappa    x    mean     zero   last layer  head  token  length"
    )
    for row in rows:
        least = [variance(s, s.best["exact"]) for s in row]
        columns = [
            np.mean(
                [variance(s, b(s)) / v for s, v in zip(row, least, strict=True)]
            )
            for b in (
                lambda s: s.success,
                lambda s: 0.0,
                *(
                    lambda s, k=k: s.best[k]
                    for k in (
                        "last layer",
                        "output head",
                        "token proxy",
                        "length",
                    )
                ),
            )
        ]
        head = [
            np.mean([getattr(s, k) for s in row])
            for k in ("success", "diversity", "ratio")
        ]
        print(
            f"  {head[0]:6.3f}  {head[1]:7.1f} {head[2]:7.1f} {columns[0]:7.2f} {columns[1]:8.2f}"
            + " ".join(f"{c:9.3f}" for c in columns[2:])
        )


# %% tags=["nbval-ignore-output"]
def qwen_price_error(transform=lambda x: x):
    """Largest relative error of theorem 5b's price of the mean over all points, tasks and prompts."""
    worst = 0.0
    for rows in qwen_summaries.values():
        for s in itertools.chain(*rows):
            price = (variance(s, s.success) + s.signal) / (
                variance(s, s.best["exact"]) + s.signal
            )
            formula = mean_baseline_loss(s.success, transform(s.ratio))
            worst = max(worst, abs(formula / price - 1))
    return float(worst)


ledger.check(
    "5-qwen-price-of-the-mean",
    "over all responses, at four points of training on both tasks, the price of the mean is that of theorem 5b (largest relative error)",
    testbed="qwen",
    predicted=0.0,
    measured=qwen_price_error(),
    tolerance=1e-9,
    sabotages={
        "|s| in place of |s|^2": qwen_price_error(np.sqrt),
    },
)


# %% tags=["nbval-ignore-output"]
def price_ratio(name, point, sign=1.0):
    """Variance with the mean over variance with the zero baseline, its logarithm: mean over the prompts."""
    row = qwen_summaries[name][point]
    logs = [
        np.log(variance(s, sign * s.success) / variance(s, 0.0)) for s in row
    ]
    return float(np.mean(logs))


ledger.check(
    "5-qwen-ranking-reverses",
    "after one training run a task the mean is worse than the zero baseline on the word problem and better on many answers (smaller of the two log ratios)",
    testbed="qwen",
    kind="illustration",
    predicted=0.0,
    relation="at least",
    measured=min(
        price_ratio("word problem", -1), -price_ratio("many answers", -1)
    ),
    sabotages={
        "tasks exchanged": min(
            price_ratio("many answers", -1), -price_ratio("word problem", -1)
        ),
        "sign of the baseline flipped": min(
            price_ratio("word problem", -1, -1.0),
            -price_ratio("many answers", -1, -1.0),
        ),
    },
    n=len(qwen_states),
    unit="runs",
)


# %% tags=["nbval-ignore-output"]
def worst_stand_in(kinds, names=("word problem", "many answers")):
    """Largest variance with b* from a stand-in over that with the true b*."""
    return max(
        variance(s, s.best[kind]) / variance(s, s.best["exact"])
        for name in names
        for s in itertools.chain(*qwen_summaries[name])
        for kind in kinds
    )


ledger.check(
    "5-qwen-stand-ins",
    "word problem, one training run: b* from last layer, output head or token proxy costs at most a tenth more variance than the true one (largest ratio)",
    testbed="qwen",
    kind="illustration",
    predicted=1.1,
    relation="at most",
    measured=worst_stand_in(
        ["last layer", "output head", "token proxy"], ["word problem"]
    ),
    sabotages={
        "response length": worst_stand_in(["length"], ["word problem"]),
        "|s| in place of |s|^2": worst_stand_in(
            ["|s|, not squared"], ["word problem"]
        ),
    },
    n=1,
    unit="runs",
)

spread = [
    (variance(s, s.success), variance(s, 0.0), variance(s, s.best["exact"]))
    for s in itertools.chain(*qwen_summaries["many answers"])
]
print(
    f"many answers: largest price of the mean {max(m / v for m, _, v in spread):.2f}, of the zero baseline {max(z / v for _, z, v in spread):.0f}; zero is the cheaper one at {sum(z < m for m, z, _ in spread)} of {len(spread)} points"
)

# %% [markdown]
# When all responses have the same length, weighting with it *is* the mean baseline, with the price of the mean.
# On the word problem the other three are as good as the true score.
# On many answers each of them can cost noticeably more, at one point of training or another: which parameters carry the score differs there between right and wrong answers.
# The last line prints the most that the mean costs on that task.
# It is little beside the prices on the word problem, although at some points the zero baseline is cheaper still, so little is lost by not estimating at all.

# %% tags=["hide-input"]
fig, axes = figures.panels(columns=2, height=3.4)
SERIES = (
    ("mean (known)", lambda s: s.success),
    ("zero baseline", lambda s: 0.0),
    ("last layer", lambda s: s.best["last layer"]),
    ("output head", lambda s: s.best["output head"]),
    ("token proxy", lambda s: s.best["token proxy"]),
    ("length", lambda s: s.best["length"]),
)
for ax, (name, rows) in zip(axes, qwen_summaries.items(), strict=True):
    cells = list(itertools.chain(*rows))
    odds = [float(logit(s.success)) for s in cells]
    for (label, b), marker in zip(SERIES, "os^v+x", strict=True):
        ax.scatter(
            odds,
            [
                variance(s, b(s)) / variance(s, s.best["exact"]) - 1
                for s in cells
            ],
            s=22,
            marker=marker,
            label=label,
        )
    ax.set(
        xlabel="log-odds of success",
        ylabel="excess variance over b*",
        yscale="log",
        title=name,
    )
fig.legend(
    *axes[0].get_legend_handles_labels(),
    loc="outside lower center",
    ncols=6,
    fontsize="x-small",
)
figures.show(
    fig,
    "Excess variance over the optimum against the log-odds of success for two Qwen tasks. On the word problem the mean "
    "and the length weights cost up to a hundred times the optimum and rise with success, the other stand-ins almost "
    "nothing; on many answers the zero baseline is the expensive choice at most points and the mean never is.",
)

# %% [markdown]
# ### One step, and where the parabola ends
#
# {prf:ref}`thm-snr-step` takes the top of a parabola.
# How good is the parabola itself?
# We fix a few prompts, draw groups of sixteen many times, and measure the exact mean gain in success at multiples of the rate where the parabola ends.
# The parabola gets the best that can be had: the exact slope and curvature of success along each sampled gradient, noise included.

# %%
MULTIPLES = 2.0 ** np.array([-3, -2, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3, 4])
step_bed = exact_beds["word problem"]
step_prompts = tracked["word problem"][: 3 * qwen_prompts]
step_theta = step_bed.theta


def mean_success_at(theta):
    testbed = step_bed.at(theta)
    with torch.no_grad():
        values = [testbed.success(q, testbed.named) for q in step_prompts]
    return float(torch.stack(values).mean())


def sampled_gradient(number):
    generator = torch.Generator().manual_seed(seed + 100 + number)
    rollout = step_bed.rollout(step_prompts, 16, generator)
    advantage = torch.tensor(group_advantages(rollout.reward, "rloo")).flatten()
    loss = (step_bed.token_log_probs(rollout).sum(-1) * advantage).mean()
    return grpo.flat(torch.autograd.grad(loss, step_bed.parameters())).numpy()


with grpo.one_thread():
    gradients = np.stack([sampled_gradient(k) for k in range(qwen_replicas)])
    along = [
        [step_bed.along(q, gradient) for q in step_prompts]
        for gradient in gradients
    ]
    _, slope, curvature = np.mean(along, axis=(0, 1))
    top = slope / abs(curvature)
    step_gains = [
        [mean_success_at(step_theta + k * top * g) for k in MULTIPLES]
        for g in gradients
    ] - np.array(mean_success_at(step_theta))
    true_gradient = np.mean([step_bed.exact(q)[1] for q in step_prompts], 0)
parabola = (MULTIPLES * top) * slope + (MULTIPLES * top) ** 2 / 2 * curvature


def kept_promise(multiple):
    """Exact mean gain at a multiple of the parabola's best rate, over what the parabola promises at that rate."""
    place = np.abs(MULTIPLES - 1).argmin()
    return (
        step_gains.mean(0)[np.abs(MULTIPLES - multiple).argmin()]
        / parabola[place]
    )


# %% tags=["nbval-ignore-output"]
step_noise = ((gradients - true_gradient) ** 2).sum(1).mean()
print(f"SNR of the step: {true_gradient @ true_gradient / step_noise:.1f}")
print("rate over the parabola's best; exact gain, its standard error, parabola")
for k, multiple in enumerate(MULTIPLES):
    column = step_gains[:, k]
    print(
        f"  {multiple:5.2f}  {column.mean():+.3f}  {stats.sem(column):.3f}  {parabola[k]:+.3f}"
    )

ledger.check(
    "5-qwen-parabola",
    "at the parabola's best rate the exact mean gain is what the parabola promises or more (ratio)",
    testbed="qwen",
    kind="training",
    predicted=1.0,
    relation="at least",
    measured=kept_promise(1.0),
    sabotages={
        "sixteen times that rate": kept_promise(16.0),
        "an eighth of that rate": kept_promise(1 / 8),
        "step against the gradient": -kept_promise(1.0),
    },
    paper=("P3.snr-rate", "confirmed"),
    n=qwen_replicas,
    unit="sampled gradients",
)

# %% tags=["hide-input"]
fig, ax = figures.panels(height=3.2)
ax.errorbar(
    MULTIPLES,
    step_gains.mean(0),
    yerr=stats.sem(step_gains, axis=0),
    fmt="o-",
    label="exact, mean of replicas",
)
fine = np.linspace(0, 4, 200) * top
ax.plot(
    fine / top,
    fine * slope + fine**2 / 2 * curvature,
    **figures.PREDICTION,
    label="parabola",
)
ax.set(
    xlabel="learning rate over the parabola's best",
    ylabel="expected gain in success",
    xlim=(0, 4.2),
    ylim=(-0.1, 0.3),
)
ax.legend(fontsize="small")
figures.show(
    fig,
    "Expected gain of one step against the learning rate. The exact gain follows the parabola up to its top and falls "
    "off later than the parabola does.",
)

# %% [markdown]
# ### Training at equal samples
#
# Eight prompts and groups of four, a fresh draw of prompts each step, the same number of steps for all.
# The learning rate of each method is tuned on its own seeds by mean final success, and the result is exact success on fresh seeds, averaged over prompts.
# The rates tried are powers of two times a first guess; as long as the best sits at an edge, the grid is extended there.
# The book profile runs plain gradient steps, few methods and few seeds; the full profile all methods, SGD and Adam, and more seeds.

# %%
QWEN_METHODS = {
    "RLOO": ("RLOO", False),
    "zero baseline": ("zero baseline", False),
    "lagged b*": ("lagged b*", False),
    "OBLR-PO (standard reading)": ("leave-one-out b*", True),
    "leave-one-out b*": ("leave-one-out b*", False),
    "GRPO": ("GRPO", False),
    "lagged b*, token proxy": ("lagged b*, token proxy", False),
    "pooled b*": ("pooled b*", False),
    "lagged b*, estimated SNR": ("lagged b*", True),
}
chosen = dict(list(QWEN_METHODS.items())[:qwen_methods])
optimizers = {"sgd": 0.02, "adam": 5e-4}
optimizers = dict(list(optimizers.items())[:qwen_optimizers])
judges = {
    "word problem": np.random.default_rng(seed).permutation(216)[:16].tolist(),
    "many answers": list(range(6)),
}
FARTHEST = 5  # doublings or halvings of the first guess that are tried at most


def final_success(name, method, rate, run_seed, optimizer):
    advantage, snr = QWEN_METHODS[method]
    trained, _ = train_qwen(
        name, advantage, rate, run_seed, qwen_steps, optimizer, snr=snr
    )
    with torch.no_grad():
        values = [trained.success(q, trained.named) for q in judges[name]]
    return float(torch.stack(values).mean())


def tuned_qwen(name, method, optimizer):
    """Final success on fresh seeds at the rate that is best on the tuning seeds, that rate, and all rates tried."""
    guess = optimizers[optimizer] * (4.0 if QWEN_METHODS[method][1] else 1.0)
    found = {}

    def success_at(k):
        if k not in found:
            runs = [
                final_success(
                    name, method, guess * 2.0**k, 1000 + one, optimizer
                )
                for one in range(qwen_tuning)
            ]
            found[k] = np.mean(runs)
        return found[k]

    low = -((qwen_rates - 1) // 2)
    high = low + qwen_rates - 1
    best = max(range(low, high + 1), key=success_at)
    while best in (low, high) and -FARTHEST < best < FARTHEST:
        low, high = low - (best == low), high + (best == high)
        best = max(range(low, high + 1), key=success_at)
    rate = guess * 2.0**best
    fresh = [
        final_success(name, method, rate, k, optimizer)
        for k in range(qwen_seeds)
    ]
    return np.array(fresh), rate, [guess * 2.0**k for k in found]


qwen_runs = {
    (method, (name, optimizer)): tuned_qwen(name, method, optimizer)
    for name in train_beds
    for optimizer in optimizers
    for method in chosen
}

# %% tags=["nbval-ignore-output"]
for name, optimizer in itertools.product(train_beds, optimizers):
    print(f"{name}, {optimizer}: final success on fresh seeds")
    base = qwen_runs["RLOO", (name, optimizer)][0]
    for method in chosen:
        fresh, rate, tried = qwen_runs[method, (name, optimizer)]
        gain = fresh - base
        print(
            f"  {method:27} rate {rate:7.4f} of {min(tried):.4f} to {max(tried):.4f}  mean {fresh.mean():.3f}  least {fresh.min():.2f}  gain over RLOO: mean {gain.mean():+.3f}, median {np.median(gain):+.3f}"
        )
print("not tuned, best at an edge of its grid:", at_an_edge(qwen_runs))

# %% tags=["hide-input"]
settings = list(itertools.product(train_beds, optimizers))
fig, axes = figures.panels(
    columns=2, rows=len(optimizers), height=3.6, sharey=True
)
places = np.reshape(axes, (len(optimizers), 2)).T.ravel()
for ax, (name, optimizer) in zip(places, settings, strict=True):
    for k, method in enumerate(chosen):
        fresh, _, _ = qwen_runs[method, (name, optimizer)]
        ax.scatter(k + np.linspace(-0.2, 0.2, len(fresh)), fresh, s=14)
        ax.plot([k - 0.3, k + 0.3], [fresh.mean()] * 2, color="black")
    ax.set(
        xlabel="method",
        ylabel="final success",
        ylim=(0, 1.02),
        title=f"{name}, {optimizer}",
    )
    ax.set_xticks(
        range(len(chosen)),
        [label.removesuffix(" (standard reading)") for label in chosen],
        rotation=40,
        ha="right",
        fontsize="x-small",
    )
figures.show(
    fig,
    "Final exact success of every fresh seed under each method at its own tuned learning rate, a panel for each task "
    "and optimizer, with the means as bars. The lagged baseline is at or near the top in every panel, the standard "
    "reading of OBLR-PO below it.",
)


# %% [markdown]
# A collapsed run ends near zero, so final success has two modes, and a mean over few seeds says little: a single collapse can make most of a mean gain.
# The claims therefore count: in what share of the paired runs, over tasks, optimizers and seeds, does one method end above the other?
# The interval of that share is exact for independent pairs.
# All pairs of one task and optimizer share the rates that were tuned once for both methods, so they are independent only given those rates.


# %% tags=["nbval-ignore-output"]
def paired(method, reference):
    """Paired differences in final success over all tasks, optimizers and the seeds that both methods ran."""
    differences = []
    for key in settings:
        mine, theirs = qwen_runs[method, key][0], qwen_runs[reference, key][0]
        both = min(len(mine), len(theirs))
        differences.append(mine[:both] - theirs[:both])
    return np.concatenate(differences)


def share_won(method, reference):
    """The exact 90% interval, 5% on either side, of the share of paired runs that a method wins."""
    difference = paired(method, reference)
    return share_interval(int((difference > 0).sum()), len(difference), 0.1)


for key in settings:
    _, rate, _ = qwen_runs["lagged b*", key]
    few = [
        final_success(key[0], "lagged b*", 16 * rate, k, key[1])
        for k in range(3)
    ]
    qwen_runs["lagged b*, rate times 16", key] = np.array(few), 16 * rate, []

print("paired runs won, and median paired gain")
for method, reference in itertools.permutations(chosen, 2):
    difference = paired(method, reference)
    print(
        f"  {method:27} over {reference:27} {(difference > 0).sum():3d} of {len(difference)}  {np.median(difference):+.3f}"
    )

# %% tags=["nbval-ignore-output"]
QWEN_PAIRED = {
    "n": len(paired("RLOO", "RLOO")),
    "unit": "paired runs",
    "seeds": range(qwen_seeds),
}

ledger.check(
    "5-qwen-training-lagged",
    "two tasks, tuned rates: b* from past batches ends above RLOO in most paired runs (lower end, at 5%, of the exact interval of the share)",
    testbed="qwen",
    kind="training",
    predicted=0.5,
    relation="at least",
    measured=share_won("lagged b*", "RLOO")[0],
    false_alarm=0.05,
    sabotages={
        "its learning rate times sixteen": share_won(
            "lagged b*, rate times 16", "RLOO"
        )[0],
        "the two methods exchanged": share_won("RLOO", "lagged b*")[0],
    },
    paper=("P3.baseline-stability", "limited"),
    **QWEN_PAIRED,
)

# %% tags=["nbval-ignore-output"]
ledger.check(
    "5-qwen-training-oblr-po",
    "undecided: two tasks, tuned rates: paired runs in which the standard reading of OBLR-PO ends above RLOO (upper end, at 5%, of the exact interval of the share)",
    testbed="qwen",
    kind="illustration",
    predicted=0.5,
    relation="at most",
    measured=share_won("OBLR-PO (standard reading)", "RLOO")[1],
    false_alarm=0.05,
    sabotages={
        "b* from past batches at a constant rate in its place": share_won(
            "lagged b*", "RLOO"
        )[1],
        "compared with runs at a ruinous learning rate": share_won(
            "OBLR-PO (standard reading)", "lagged b*, rate times 16"
        )[1],
    },
    paper=("P3.consistent-gains", "not-reproduced"),
    **QWEN_PAIRED,
)

# %% [markdown]
# The second comparison is shown and not judged, because these runs do not decide it: with every rate tuned, neither the standard reading of OBLR-PO nor RLOO is shown to be ahead.
# Counts also leave out by how much a run wins, and a collapse of one method shows in the means and the least values of the table above.
# In an earlier run with narrower grids its best rate sat at their edge, and it seemed to lose: an edge is enough to make a verdict.
#
# ## 5.9 Which baseline?
#
# Two numbers decide: the success rate $J$ and the energy ratio $x = e_-/e_+$.
# {prf:ref}`thm-mean-price` turns them into a map of prices, which are ratios of second moments.
# It is a map of noise where one response says little about the gradient: a ratio of variances is $1 + (\text{price} - 1)(1 + s^*)$, with the SNR $s^*$ of one response.

# %% tags=["hide-input"]
fig, ax = figures.panels(height=4.8)
odds, logs = np.meshgrid(np.linspace(-4, 7, 221), np.linspace(-1, 5, 201))
grid_J, grid_x = expit(odds), 10**logs
mean_map = mean_baseline_loss(grid_J, grid_x)
zero_map = baseline_loss(grid_J, grid_x, 0.0)
shade = ax.contourf(
    odds,
    logs,
    np.minimum(mean_map, zero_map),
    levels=[1, 1.1, 1.25, 1.5, 2, 4],
    cmap="Blues",
    extend="max",
)
fig.colorbar(
    shade, ax=ax, label="price of the better of mean and zero", shrink=0.9
)
ax.contour(odds, logs, mean_map, levels=[1.1], colors="C0", linewidths=1.2)
ax.contour(odds, logs, zero_map, levels=[1.1], colors="C1", linewidths=1.2)
line = np.linspace(-4, 7, 200)
ax.plot(
    line,
    np.log10(critical_energy_ratio(expit(line))),
    **figures.PREDICTION,
    label="mean = zero (5b)",
)
loo = leave_one_out_loss(grid_J, grid_x, GROUP)
ax.contour(
    odds,
    logs,
    loo / zero_map,
    levels=[1.0],
    colors="black",
    linestyles=":",
    linewidths=1.2,
)
ax.plot(
    [], [], color="black", linestyle=":", label="RLOO in groups of 4 = zero"
)
ax.plot([], [], color="C0", label="mean within 10% of b*")
ax.plot([], [], color="C1", label="zero within 10% of b*")
ax.scatter(
    logit(rates),
    np.log10(ratio),
    s=5,
    color="grey",
    alpha=0.5,
    label="random bandits",
)
ax.scatter(
    [logit(success_rate(r)) for r in everything],
    [np.log10(np.divide(*score_energies(r)[::-1])) for r in everything],
    s=24,
    marker="^",
    color="C2",
    edgecolor="white",
    label="transformer",
)
for (name, rows), marker, color in zip(
    qwen_summaries.items(), "oD", ("C3", "C4"), strict=True
):
    cells = list(itertools.chain(*rows))
    ax.scatter(
        [logit(s.success) for s in cells],
        [np.log10(s.ratio) for s in cells],
        s=28,
        marker=marker,
        color=color,
        edgecolor="white",
        label=f"Qwen, {name}",
    )
ax.set(
    xlabel="log-odds of success",
    ylabel=r"$\log_{10} x$, energy of wrong over right",
    xlim=(-4, 7),
    ylim=(-1, 5),
)
ax.legend(fontsize="x-small", loc="upper left")
figures.show(
    fig,
    "Map over the log-odds of success and the energy ratio. Below the dashed boundary the mean is better than the zero "
    "baseline, above it worse. Transformer and word problem move up and to the right during training, far above the "
    "boundary; many answers lies below or just above it, and most bandits lie below.",
)

# %% [markdown]
# Between the blue lines the mean is good enough, above the orange one the zero baseline is, and elsewhere only $b^*$.
# By {prf:ref}`cor-better-of-two` the better of the two has less than twice the least second moment for $x \ge 1$: most of what $b^*$ can win over the mean, subtracting nothing wins too.
# As noise it can be more than twice the least, where single responses say a lot.
# The cell below prints how much they say here: little on many answers, but so much on the word problem and on the transformer that ratios of variances lie about twice as far from one as prices.
# The dotted line is the same boundary for the mean of three others: in small groups it also cuts off the left of the map, where success is rare.
# Far to the left the zero baseline is good enough whatever the energies.
#
# The map is for *one prompt*.
# `LaggedBaseline` is one number for all prompts, and where their difficulties differ and right answers are many, it can cost more than the mean of each group (the last lines, from section 5.3).


# %% tags=["nbval-ignore-output"]
def snr_of_one(r):
    """SNR of a single response under b*."""
    signal = (policy_gradient(r) ** 2).sum()
    return signal / gradient_variance(r, optimal_baseline(r))


single = {
    name: [
        s.signal / variance(s, s.best["exact"]) for s in itertools.chain(*rows)
    ]
    for name, rows in qwen_summaries.items()
}
single["transformer"] = [snr_of_one(r) for r in everything]
single["random bandits"] = [snr_of_one(r) for r in many]
print("SNR of one response under b*: median and largest")
for name, values in single.items():
    print(f"  {name:15} {np.median(values):6.3f} {max(values):8.3f}")
print("variance over that with a b* for every prompt (section 5.3)")
for correct in (1, 3):
    columns = [f"{k} {v:.2f}" for k, v in one_number_prices(correct).items()]
    print(f"  {correct} of 8 correct: " + ", ".join(columns))

# %% [markdown]
# ### Where is your run?
#
# One batch gives both numbers, pooled over its prompts: the share of correct responses, and the mean $|s|^2$ of wrong ones over that of right ones.
# Below we read them off one batch of eight prompts and sixteen responses, at the last enumerated point of each task.
# Compare the two rows of each task: the token proxy finds a good $b^*$ more easily than a good $x$, so use exact norms to place a run on the map.


# %%
def position(reward, energy):
    """Success, energy ratio, and the prices of the known mean and of the zero baseline, from one batch."""
    J, ratio = (
        reward.mean(),
        energy[reward == 0].mean() / energy[reward == 1].mean(),
    )
    return J, ratio, mean_baseline_loss(J, ratio), baseline_loss(J, ratio, 0.0)


def read_batch(name):
    testbed = train_beds[name].at(qwen_states[name][-1])
    generator = torch.Generator().manual_seed(seed + 9)
    rollout = testbed.rollout(testbed.task.draw(8, generator), 16, generator)
    reward = rollout.reward.ravel()
    energies = {
        "exact norms": testbed.squared_norms(rollout).double().numpy(),
        "token proxy": token_proxy(testbed, rollout),
    }
    return {
        kind: position(reward, e)
        for kind, e in energies.items()
        if 0 < reward.mean() < 1
    }


# %% tags=["nbval-ignore-output"]
for name in train_beds:
    print(name)
    for kind, (J, x_seen, mean_seen, zero_seen) in read_batch(name).items():
        print(
            f"  {kind}: J {J:.2f}, x {x_seen:6.1f}, boundary {critical_energy_ratio(J):5.1f}; price of the mean {mean_seen:6.2f}, of zero {zero_seen:5.2f}"
        )

# %% [markdown]
# A batch without a failure, or without a success, says nothing about $x$: use several batches.
#
# ## 5.10 What the paper claims and what we found
#
# Of P3 we read the abstract and nothing else, so nothing here can contradict the paper: where a reading of ours finds no gain, it is *not reproduced*, at our scale.
#
# | sentence of the abstract | what became of it |
# | --- | --- |
# | The usual estimators are unbiased. | **Confirmed** for baselines independent of the response ({prf:ref}`thm-optimal-baseline`). Not for $b^*$ estimated in sample, and not with length weights ({prf:ref}`prop-length`). |
# | Their variance has exact expressions. | **Confirmed**, over all outcomes of a group; for leave-one-out means too ({prf:ref}`thm-rloo-variance`). |
# | The variance-optimal baseline is gradient-weighted. | **Confirmed**, and classical. |
# | It reduces variance and enhances stability beyond existing methods. | **Limited**: the exact $b^*$ of a prompt has the least variance of all fixed baselines, but training need not gain by it. $b^*$ from past batches gains over RLOO on bandits with one correct answer, where the zero baseline gains as much, and on two Qwen tasks, from one checkpoint. It does not with three correct answers or on the transformer, and estimated inside a small group it does not on bandits ({prf:ref}`prop-loo`). |
# | A bound on the loss yields a learning rate governed by the SNR. | **Confirmed** as a bound ({prf:ref}`thm-snr-step`). The step it recommends is cautious. |
# | Adapting both gives consistent gains on Qwen3-4B and 8B. | **Not reproduced** by the standard reading at our scale, with an SNR from eight prompts and against baselines with tuned learning rates: on bandits it loses to RLOO, on the Qwen the runs of this book do not decide. With the exact SNR the schedule does no harm on bandits with one correct answer, where RLOO gains by it. We could not run theirs. |
# | Convergence guarantees. | **Not tested**: the abstract does not state them. |
#
# ## 5.11 What to do in your own run
#
# - **Locate yourself first.** Log the mean squared score norm of right and of wrong responses; the token proxy can misread $x$ by much. If $x < 1 + 1/(1-J)$ keep the mean.
# - **Otherwise take $b^*$ from past batches** at a constant, tuned learning rate: `LaggedBaseline`, `value` before the batch and `update` after it, or `count` with two gradients where score norms are not at hand. This is the variant that our findings recommend. It stays unbiased and needs no group to disagree. Where $b^*$ is near zero it becomes the zero baseline by itself, and where it is near one it rewards nothing and punishes failures. It is one number for all prompts, so prefer RLOO where their difficulties differ much and right answers are many. On bandits with one correct answer and on the Qwen it did better than RLOO; on the transformer nothing helped by more than the margin of the check.
# - **If you want no estimate at all**, choose the better of mean and zero baseline by the boundary: less than twice the least second moment ({prf:ref}`cor-better-of-two`), which as noise can be more than twice the least where single responses say a lot. With one way to be right, the zero baseline trained as well as $b^*$ on our bandits.
# - **Do not estimate $b^*$ inside a group of four**, and never in the sample it is used on.
# - **Cost.** Exact norms come from one extra backward pass to the layer outputs; two gradients, over right and over wrong responses, need no norms at all; the token proxy needs probabilities only. The status page has the measured ratios.
# - **Response length is not a stand-in** for $|s|^2$: with equal lengths it is the mean.
# - **Use the SNR as a gauge, not as a throttle.** `RunningSnr` tells whether noise limits the step, which is when a baseline can help at all. As a multiplier of the learning rate, estimated from eight prompts, it stalled our runs on bandits.
# - **Compare at tuned rates.** A baseline changes the largest stable step; at a common rate the difference can be nil, and at a rate tuned for one method the other looks broken. A best rate at the edge of a grid is not a tuned one.
#
# ## 5.12 Verdicts

# %% tags=["nbval-ignore-output"]
ledger.publish()
