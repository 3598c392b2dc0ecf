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
# # 1. The gradient gap and its alignment
#
# A model answers a prompt, a verifier says right or wrong, and the parameters take a step.
# Does the model now answer better, and by how much?
#
# {cite:t}`suk2025gap` answer with one vector, the *gradient gap*: the mean score of right answers minus that of wrong ones.
# This chapter shows that the gap is the gradient of the log-odds of success.
# Everything else follows from that sentence.
# A step that points along the gap gains, one that points against it loses, and the curvature of the log-odds says how long a step may be.
#
# We derive this in small steps that the machine checks, and then look for it in policies we can enumerate.

# %% tags=["parameters"]
profile: str = "book"  # label of the profile that set these parameters
seed: int = 0  # [0, 4294967295] seed of every random draw
judged: bool = True  # whether sampled claims are large enough for a verdict
qwen_model: str = "tiny"  # tiny, a hub name or a local path
instances: int = 60  # [2, 100000] random bandits an experiment
steps: int = 60  # [2, 100000] steps a run
cosine_steps: int = (
    400  # [2, 100000] steps a run when the angle to the gap is held
)

# %% tags=["remove-cell"]
import sys

if "google.colab" in sys.modules:  # Colab has none of this installed
    import subprocess

    source = "git+https://github.com/rlvr-companion/rlvr-companion"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", source], check=True
    )

# %%
import itertools

import numpy as np
import sympy as sp
from scipy.special import expit

from rlvr_lib import figures
from rlvr_lib.advantages import group_advantages
from rlvr_lib.claims import Ledger, relative_error
from rlvr_lib.gap import (
    gradient_gap,
    group_gain,
    half_gain_step,
    policy_gradient,
    success_lower_bound,
)
from rlvr_lib.responses import conditional_weights, success_rate
from rlvr_lib.testbeds import bandit

figures.set_style()
rng = np.random.default_rng(seed)
ledger = Ledger(
    theorem=1,
    paper="P1 (arXiv 2510.08539)",
    paper_version="abstracts, reviews and secondary notes of v1 to v4; not the full text",
    profile=profile,
    seeds=[seed],
    judged=judged,
)

# %% [markdown]
# ## 1.1 Scores average to zero
#
# A policy gives response $o$ the probability $\pi_\theta(o)$.
# The *score* of a response is $s = \nabla_\theta \log \pi_\theta(o)$, and $H = \nabla^2_\theta \log \pi_\theta(o)$ is its derivative.
# Probabilities sum to one whatever the parameters, so the derivatives of the sum vanish:
#
# ```{math}
# :label: eq-bartlett
# \mathbb E[s] = 0, \qquad \mathbb E[H + s s^\top] = 0 .
# ```
#
# We let SymPy confirm both for a policy over three responses whose probabilities are arbitrary functions of one parameter.
# One parameter is enough: a vector of parameters is tested along every line through it.

# %%
t = sp.symbols("theta", real=True)
first, second = sp.Function("p1")(t), sp.Function("p2")(t)
p = [first, second, 1 - first - second]
score = [sp.diff(sp.log(q), t) for q in p]
curvature = [sp.diff(s, t) for s in score]

mean_score = sp.simplify(sum(q * s for q, s in zip(p, score, strict=True)))
bartlett = sp.simplify(
    sum(q * (h + s**2) for q, h, s in zip(p, curvature, score, strict=True))
)
print("E[s] =", mean_score, "   E[H + s s'] =", bartlett)

# %% [markdown]
# ## 1.2 The gap is the gradient of the log-odds
#
# A prompt has a set of correct responses; $J$ is their total probability.
# Write $\mathbb E_+$ and $\mathbb E_-$ for means given success and given failure.
#
# ```{prf:definition} Gradient gap
# :label: def-gap
# The gradient gap of a prompt with $0 < J < 1$ is $D = \mathbb E_+[s] - \mathbb E_-[s]$.
# ```
#
# ```{prf:theorem} The gap is a gradient
# :label: thm-gap
# For every differentiable policy
#
# $$
# \nabla J = J(1-J)\,D \qquad\text{and hence}\qquad \nabla \log\frac{J}{1-J} = D .
# $$
#
# ```
#
# ```{prf:proof}
# With reward $r \in \{0, 1\}$, $\nabla J = \mathbb E[r s] = J\,\mathbb E_+[s]$.
# Scores average to zero, so $J\,\mathbb E_+[s] + (1-J)\,\mathbb E_-[s] = 0$, which turns $D$ into $\mathbb E_+[s]/(1-J)$.
# The log-odds have derivative $\nabla J / (J(1-J))$.
# ```
#
# Differentiating once more says how fast the gap itself changes.
#
# ```{prf:theorem} Curvature of the log-odds
# :label: thm-logit-curvature
#
# $$
# \nabla^2 \log\frac{J}{1-J} = \mathbb E_+[H] - \mathbb E_-[H] + \mathrm{Cov}_+(s) - \mathrm{Cov}_-(s) .
# $$
#
# ```
#
# ```{prf:proof}
# $\log J$ is the log of a sum of probabilities over the correct responses, and for every such sum $\nabla^2 \log \sum_o \pi(o) = \mathbb E[H] + \mathrm{Cov}(s)$ under the policy restricted to the sum.
# The same holds for $\log(1-J)$; subtract.
# ```
#
# Both by algebra, with responses one and two correct:

# %%
J = p[0] + p[1]
logit = sp.log(J / (1 - J))
mean_given_success = (p[0] * score[0] + p[1] * score[1]) / J
gap = mean_given_success - score[2]
variance_given_success = (
    p[0] * score[0] ** 2 + p[1] * score[1] ** 2
) / J - mean_given_success**2
mean_curvature = (p[0] * curvature[0] + p[1] * curvature[1]) / J - curvature[2]

print("grad logit J - D =", sp.simplify(sp.diff(logit, t) - gap))
print(
    "Hess logit J - (E+ - E-)[H] - Cov+ + Cov- =",
    sp.simplify(sp.diff(logit, t, 2) - mean_curvature - variance_given_success),
)

# %% [markdown]
# ### The same on policies with numbers
#
# The first testbed is a softmax bandit: $\pi(o) \propto \exp\langle\theta, f(o)\rangle$ over a handful of responses with feature vectors $f(o)$.
# We call such a policy *log-linear*.
# Its derivatives can be taken without the theory by the complex-step method, which has no rounding trade-off.

# %%
policies = [
    bandit.SoftmaxBandit.random(seed + i, correct=1 + i % 4)
    for i in range(instances)
]


def logit_of(policy, theta):
    weight = np.exp(policy.features[0] @ theta)
    return np.log(weight @ policy.reward[0] / (weight @ (1 - policy.reward[0])))


def derivative(function, theta, step=1e-30):
    return np.array(
        [
            np.imag(function(theta + 1j * step * e)) / step
            for e in np.eye(len(theta))
        ]
    )


# %%
def largest_errors(estimate):
    return max(
        relative_error(
            estimate(policy.enumerate()),
            derivative(lambda x, q=policy: logit_of(q, x), policy.theta),
        )
        for policy in policies
    )


ledger.check(
    "1-bandit-gap-is-log-odds-gradient",
    "the gap is the gradient of the log-odds of success (largest relative error)",
    testbed="bandit",
    predicted=0.0,
    measured=largest_errors(gradient_gap),
    tolerance=1e-9,
    sabotages={
        "sign of the gap flipped": largest_errors(lambda r: -gradient_gap(r)),
        "score of correct responses only": largest_errors(
            lambda r: conditional_weights(r)[0] @ r.score
        ),
    },
    printed="the gradient gap drives the update; its being the log-odds gradient is derived here",
)

# %% [markdown]
# For a log-linear policy $H = -\mathrm{Cov}(f)$ whatever the response, so $H$ cancels in {prf:ref}`thm-logit-curvature`: the curvature is $\mathrm{Cov}_+ - \mathrm{Cov}_-$ of the features.


# %%
def logit_curvature(r, sign=-1.0):
    covariance = [
        np.cov(r.score.T, aweights=weights, bias=True)
        for weights in conditional_weights(r)
    ]
    return covariance[0] + sign * covariance[1]


def gap_of(policy, theta):
    weight = np.exp(policy.features[0] @ theta)
    correct, wrong = weight * policy.reward[0], weight * (1 - policy.reward[0])
    return (correct / correct.sum() - wrong / wrong.sum()) @ policy.features[0]


def largest_curvature_error(estimate):
    return max(
        relative_error(
            estimate(policy.enumerate()),
            derivative(lambda x, q=policy: gap_of(q, x), policy.theta),
        )
        for policy in policies
    )


ledger.check(
    "1-bandit-log-odds-curvature",
    "the curvature of the log-odds is Cov+ - Cov- of the scores (largest relative error)",
    testbed="bandit",
    predicted=0.0,
    measured=largest_curvature_error(logit_curvature),
    tolerance=1e-9,
    sabotages={
        "covariances added": largest_curvature_error(
            lambda r: logit_curvature(r, sign=1.0)
        )
    },
)

# %% [markdown]
# Responses of many tokens change nothing.
# If every token is drawn from one softmax over token features, a sequence is again log-linear, in the sum of its tokens' features.
# Here a response is right when every token is.

# %%
chains = [
    bandit.token_bandit(
        rng.standard_normal(3),
        rng.standard_normal((4, 3)),
        horizon,
        lambda o: (o < 2).all(axis=1),
    )
    for horizon in (1, 2, 4, 6)
]


def chain_error(weigh):
    errors = []
    for chain in chains:
        r = chain.enumerate()
        J = success_rate(r)
        errors.append(
            relative_error(weigh(J) * gradient_gap(r), policy_gradient(r))
        )
    return max(errors)


ledger.check(
    "1-bandit-token-policy-gradient",
    "token sequences: the policy gradient is J(1-J) times the gap (largest relative error)",
    testbed="bandit",
    predicted=0.0,
    measured=chain_error(lambda J: J * (1 - J)),
    tolerance=1e-9,
    sabotages={"J in place of J(1-J)": chain_error(lambda J: J)},
)

# %% [markdown]
# ## 1.3 What GRPO does in the mean
#
# A group is $G$ responses to one prompt with rewards $r_1, \dots, r_G$; an algorithm turns them into advantages $A_i$ and steps along $\frac1G\sum_i A_i s_i$.
#
# ```{prf:theorem} Group advantages rescale the gap
# :label: thm-gain
# If the advantages depend on the group's rewards only and sum to zero, the expected update is $g\,D$ with a scalar $g \ge 0$ that depends on $J$ and $G$ only.
# Subtracting the group mean gives $g = (1-\frac1G)J(1-J)$, leave-one-out $g = J(1-J)$, and GRPO's division by the group's standard deviation
#
# $$
# g = \mathbb E\sqrt{\hat p(1-\hat p)} = \sum_{k=0}^{G} \binom Gk J^k (1-J)^{G-k}\,\frac{\sqrt{k(G-k)}}{G} .
# $$
#
# ```
#
# ```{prf:proof}
# Condition on the rewards: the responses are then independent, and $s_i$ has mean $\mathbb E_+[s]$ or $\mathbb E_-[s]$ according to $r_i$.
# With $A_+$ the sum of the advantages of the correct responses, the wrong ones sum to $-A_+$, so the conditional mean is $A_+ D / G$.
# The mean of $A_+/G$ depends on the distribution of the number $k$ of correct responses only; for GRPO $A_+/G = \sqrt{k(G-k)}/G$, which is zero when the rewards are all equal.
# ```
#
# Plain REINFORCE, $A_i = r_i$, does not sum to zero but has $g = J(1-J)$ too, because $\mathbb E[s]=0$.
# No sampling is needed to check this: we enumerate every possible group.


# %%
def expected_update(r, group_size, estimator):
    groups = np.array(list(itertools.product(range(len(r)), repeat=group_size)))
    weight = r.prob[groups].prod(axis=1)
    advantage = group_advantages(r.reward[groups], estimator)
    return (
        np.einsum("g,gi,gid->d", weight, advantage, r.score[groups])
        / group_size
    )


GAINS = {
    "reinforce": lambda J, G: J * (1 - J),
    "rloo": lambda J, G: J * (1 - J),
    "dr_grpo": lambda J, G: group_gain(J, G, normalize=False),
    "grpo": group_gain,
}


def largest_gain_error(gains):
    errors = []
    for policy, group_size in itertools.product(policies[:6], (2, 3, 4)):
        r = policy.enumerate()
        for estimator, gain in gains.items():
            predicted = gain(success_rate(r), group_size) * gradient_gap(r)
            errors.append(
                relative_error(
                    expected_update(r, group_size, estimator), predicted
                )
            )
    return max(errors)


ledger.check(
    "1-bandit-expected-group-update",
    "over all groups of two to four, each algorithm's mean update is its gain times the gap (largest relative error)",
    testbed="bandit",
    predicted=0.0,
    measured=largest_gain_error(GAINS),
    tolerance=1e-9,
    sabotages={
        "GRPO's gain taken as sigma, its limit": largest_gain_error(
            {"grpo": lambda J, G: np.sqrt(J * (1 - J))}
        ),
        "group mean without 1 - 1/G": largest_gain_error(
            {"dr_grpo": lambda J, G: J * (1 - J)}
        ),
    },
    printed="stated for any policy-gradient algorithm (v3, v4)",
)

# %% [markdown]
# On one prompt these algorithms differ by a scalar, so a learning rate that suits one suits the other after rescaling.
# Between prompts the scalar differs with $J$: that is chapter 4.

# %%
success = np.linspace(0, 1, 201)
fig, ax = figures.panels(height=3.2)
for group_size in (2, 4, 16):
    ax.plot(
        success,
        group_gain(success, group_size),
        label=f"GRPO, G = {group_size}",
    )
ax.plot(
    success,
    success * (1 - success),
    color="grey",
    linestyle=":",
    linewidth=3,
    label="REINFORCE, RLOO",
)
ax.plot(
    success,
    np.sqrt(success * (1 - success)),
    **figures.PREDICTION,
    label=r"$\sigma$: GRPO, G $\to\infty$",
)
ax.set(
    xlabel="success rate J",
    ylabel="gain: update per unit of gap",
    xlim=(0, 1),
    ylim=(0, None),
)
ax.legend(loc="lower center", fontsize="small")
figures.show(
    fig,
    "Gain against success rate. In groups of two GRPO has the parabola of REINFORCE and leave-one-out; with the group "
    "size its gain rises towards the semicircle sigma. Every gain vanishes at success zero and one.",
)

# %% [markdown]
# ## 1.4 How much one step gains
#
# Take a log-linear policy and any step $u$, and let $\mathrm{diam}_u$ be the range over responses of $\langle u/|u|, f\rangle$.
#
# ```{prf:theorem} One step (1a)
# :label: thm-one-step
#
# $$
# \log\frac{J(\theta+u)}{1-J(\theta+u)} \;\ge\; \log\frac{J(\theta)}{1-J(\theta)} + \langle u, D\rangle - \tfrac18\,|u|^2\,\mathrm{diam}_u^2 .
# $$
#
# The constant $\frac18$ cannot be improved.
# Hence, with $w = u/|u|$ and $D_w = \langle w, D\rangle > 0$, every step length $\eta \le 4 D_w/\mathrm{diam}_w^2$ gains at least $\eta D_w/2$, and every $\eta < 8 D_w/\mathrm{diam}_w^2$ gains.
# ```
#
# ```{prf:proof}
# The step multiplies the weight of response $o$ by $e^{\langle u, f(o)\rangle}$, so the odds of success change by the factor $\mathbb E_+[e^{\langle u,f\rangle}]/\mathbb E_-[e^{\langle u,f\rangle}]$.
# Jensen bounds the numerator below by $e^{\langle u, \mathbb E_+ f\rangle}$.
# Hoeffding's lemma bounds the denominator above by $e^{\langle u,\mathbb E_- f\rangle + |u|^2\mathrm{diam}_u^2/8}$.
# Scores are features minus their mean, so $\mathbb E_+ f - \mathbb E_- f = D$.
# For the constant let the wrong responses be two equally likely ones at distance $\mathrm{diam}_u$ and the correct one lie between them: the loss is $\log\cosh(|u|\,\mathrm{diam}_u/2)$, whose expansion starts with $|u|^2\mathrm{diam}_u^2/8$.
# ```
#
# The bound needs nothing of the direction.
# It holds for an Adam step as it does for a gradient step; only $\langle u, D\rangle$ changes.
# For a policy that is not log-linear, $\mathrm{diam}^2/4$ gives way to the largest curvature of the log-odds over the step, by Taylor's theorem; the later testbeds use that form.
#
# First the constant.
# The ratio of the exact loss to $|u|^2\mathrm{diam}_u^2/8$, at shrinking steps of the extremal instance:

# %%
lengths = 2.0 ** -np.arange(0, 12)
extremal = np.array([[0.0], [1.0], [-1.0]])
reward = np.array([1.0, 0.0, 0.0])
start, gap_there = bandit.log_odds_and_gap(np.zeros((1, 1)), extremal, reward)
after, _ = bandit.log_odds_and_gap(lengths[:, None], extremal, reward)
share_of_bound = (start + lengths * gap_there[:, 0] - after) / (
    lengths**2 * 2**2 / 8
)

ledger.check(
    "1-bandit-constant-is-tight",
    "the loss term reaches its bound diam^2/8 as the step shrinks (share of the bound)",
    testbed="bandit",
    predicted=1.0,
    measured=share_of_bound[-1],
    tolerance=1e-6,
    sabotages={
        "constant 1/16 instead": 2 * share_of_bound[-1],
        "a long step instead": share_of_bound[0],
    },
    outcome="holds-sharper",
    printed="a loss term with L + 8 G^2 in place of diam^2/8 (secondary source, v3)",
)

# %% [markdown]
# Next many steps, of every length and direction.
# All instances move at once: `theta` has a row for each.
# Directions are of three kinds: at cosine one and one half to the gap, and Adam's.

# %%
features = np.stack([policy.features[0] for policy in policies])
rewards = np.stack([policy.reward[0] for policy in policies])
origin = np.stack([policy.theta for policy in policies])


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def at_cosine(gap, cosine, rng):
    """Unit directions at an angle to the gap, random otherwise."""
    noise = rng.standard_normal(gap.shape)
    along = unit(gap)
    across = unit(noise - (noise * along).sum(-1, keepdims=True) * along)
    return cosine * along + np.sqrt(1 - cosine**2) * across


# %%
def descend(directions, step_length, count):
    """Steps of length ``step_length(alignment, range)`` along ``directions(gap, k)``, every instance at once."""
    theta, history = origin.copy(), []
    odds, gap = bandit.log_odds_and_gap(theta, features, rewards)
    for k in range(count):
        w = directions(gap, k)
        alignment, spread = (w * gap).sum(-1), bandit.feature_range(features, w)
        eta = step_length(alignment, spread)
        theta = theta + eta[:, None] * w
        before, (odds, gap) = (
            odds,
            bandit.log_odds_and_gap(theta, features, rewards),
        )
        history.append((before, odds, eta, alignment, spread))
    return dict(
        zip(
            ("before", "after", "eta", "alignment", "spread"),
            map(np.array, zip(*history, strict=True)),
            strict=True,
        )
    )


def adam(beta1=0.9, beta2=0.999):
    moments = [0.0, 0.0]

    def direction(gap, k):
        moments[0] = beta1 * moments[0] + (1 - beta1) * gap
        moments[1] = beta2 * moments[1] + (1 - beta2) * gap**2
        return unit(
            moments[0]
            / (1 - beta1 ** (k + 1))
            / (np.sqrt(moments[1] / (1 - beta2 ** (k + 1))) + 1e-8)
        )

    return direction


# %%
def three_kinds(step_length, count=steps):
    angles = np.random.default_rng(seed + 1)
    kinds = {
        "cosine 1": lambda gap, k: unit(gap),
        "cosine 1/2": lambda gap, k: at_cosine(gap, 0.5, angles),
        "Adam": adam(),
    }
    return {
        name: descend(direction, step_length, count)
        for name, direction in kinds.items()
    }


def gain_ratio(run):
    """Gain in log-odds over its first-order value, for the steps that leave room to measure it."""
    first_order = run["eta"] * run["alignment"]
    return ((run["after"] - run["before"]) / first_order)[first_order > 1e-6]


def random_length(alignment, spread):
    return (
        rng.uniform(0.01, 12, alignment.shape) * np.abs(alignment) / spread**2
    )


tried = three_kinds(random_length)
slack = {
    name: run["after"]
    - run["before"]
    - run["eta"] * run["alignment"]
    + run["eta"] ** 2 * run["spread"] ** 2 / 8
    for name, run in tried.items()
}
rounding = {
    name: 1e-12 * np.maximum(1, np.abs(run["after"]))
    for name, run in tried.items()
}
count_steps = sum(s.size for s in slack.values())
print(f"{count_steps} steps")


def violations(constant):
    extra = {
        name: (constant - 1 / 8) * run["eta"] ** 2 * run["spread"] ** 2
        for name, run in tried.items()
    }
    return sum(
        int((slack[name] + extra[name] < -rounding[name]).sum())
        for name in tried
    )


ledger.check(
    "1-bandit-one-step-bound",
    "every step gains at least its first-order gain minus diam^2/8 of its squared length (violations)",
    testbed="bandit",
    predicted=0,
    measured=violations(1 / 8),
    sabotages={"constant 1/64 instead": violations(1 / 64)},
    printed="stated with L + 8 G^2 (secondary source, v3)",
)

# %% [markdown]
# Now steps of exactly the length that guarantees half of the first-order gain, against steps four times as long.

# %%
half = three_kinds(half_gain_step)
long = three_kinds(
    lambda alignment, spread: 4 * half_gain_step(alignment, spread)
)
ratios = {name: gain_ratio(run) for name, run in half.items()}
long_ratios = {name: gain_ratio(run) for name, run in long.items()}

worst = min(r.min() for r in ratios.values())
ledger.check(
    "1-bandit-half-gain",
    "steps of 4 alignment / diam^2 keep at least half of their first-order gain (worst step)",
    testbed="bandit",
    predicted=0.5,
    relation="at least",
    measured=worst,
    tolerance=1e-9,
    sabotages={
        "steps of 16 alignment / diam^2": min(
            r.min() for r in long_ratios.values()
        )
    },
    outcome="holds-sharper",
    printed="half of the gain for steps up to [alignment]+ / (2 (L + 8 G^2)) (secondary source, v3)",
)

# %%
fig, axes = figures.panels(columns=2, height=3.1)
lengths = np.linspace(0, 2.2, 200)
example = bandit.SoftmaxBandit.random(seed, correct=2)
w = unit(gradient_gap(example.enumerate()))
spread = float(bandit.feature_range(example.features[0], w))
alignment = float(w @ gradient_gap(example.enumerate()))
unit_step = half_gain_step(alignment, spread)
curve, _ = bandit.log_odds_and_gap(
    example.theta + lengths[:, None] * unit_step * w,
    example.features[0],
    example.reward[0],
)
reach = lengths * unit_step
axes[0].plot(lengths, curve - curve[0], label="exact")
axes[0].plot(
    lengths, reach * alignment, color="grey", linestyle=":", label="first order"
)
axes[0].plot(
    lengths,
    reach * alignment - reach**2 * spread**2 / 8,
    **figures.PREDICTION,
    label="guaranteed (1a)",
)
axes[0].axvline(1, color="black", linewidth=0.8)
axes[0].set(
    xlabel=r"step length / $(4 D_w/\mathrm{diam}_w^2)$",
    ylabel="gain in log-odds (nats)",
    title="one instance",
)
axes[0].legend(fontsize="small")
bins = np.linspace(-1.0, 1.05, 42)
axes[1].hist(
    np.concatenate([*ratios.values()]),
    bins,
    density=True,
    alpha=0.75,
    label="half-gain step",
)
axes[1].hist(
    np.clip(np.concatenate([*long_ratios.values()]), -1, None),
    bins,
    density=True,
    alpha=0.55,
    label="four times longer",
)
axes[1].axvline(0.5, **figures.PREDICTION, label="guarantee")
axes[1].set(
    xlabel="gain / first-order gain",
    ylabel="density",
    title="all steps (below -1 shown at -1)",
)
axes[1].set_yscale("log")
axes[1].legend(fontsize="small", loc="upper left")
figures.show(
    fig,
    "Left: gain in log-odds along the gap of one bandit, between the first-order line above and the guaranteed parabola "
    "below. Right: share of the first-order gain that steps keep; at the half-gain step none falls below one half, "
    "at four times that length many lose.",
)

# %% [markdown]
# The guarantee is a worst case, and most steps keep far more than half.
# What the constant decides is how long a step we dare to take.
# For features in the unit ball the paper's condition, as a secondary source gives it, has $L \le 1$ and a score bound of two; ours has a diameter of two.

# %%
printed_step = 1 / (2 * (1 + 8 * 2**2))
our_step = half_gain_step(1.0, 2.0)
scaled = features / np.linalg.norm(features, axis=-1).max(-1)[:, None, None]
start, gap = bandit.log_odds_and_gap(origin, scaled, rewards)
w = unit(gap)
alignment = (w * gap).sum(-1)


def first_failure(shortest, longest, points=600):
    """The shortest step on a grid that keeps less than half of its first-order gain, over our guaranteed step."""
    multiples = np.geomspace(shortest, longest, points)[:, None]
    eta = multiples * our_step * alignment
    after, _ = bandit.log_odds_and_gap(
        origin + eta[..., None] * w, scaled, rewards
    )
    fails = after - start < eta * alignment / 2
    return np.where(fails.any(0), multiples[fails.argmax(0), 0], longest)


failure = first_failure(0.01, 1000)
print(
    f"our guaranteed step is {our_step / printed_step:.0f} times the printed one"
)
print(
    f"first step that keeps less than half, over ours: least {failure.min():.2f}, median {np.median(failure):.2f}"
)

# %%
ledger.check(
    "1-bandit-against-printed-step",
    "features in the unit ball: the first step that keeps less than half of its gain, over our guarantee (least)",
    testbed="bandit",
    predicted=1.0,
    relation="at least",
    measured=failure.min(),
    sabotages={"a guarantee 32 times longer": (failure / 32).min()},
    outcome="holds-sharper",
    printed="[alignment]+ / (2 (L + 8 G^2)) with L <= 1 and G <= 2, a shorter step (secondary source, v3)",
)

# %% [markdown]
# ## 1.5 Many steps
#
# ```{prf:theorem} Convergence (1b)
# :label: thm-convergence
# Let every step have length $0 \le \eta_k \le 4[D_{w,k}]_+/\mathrm{diam}_k^2$ and let $M = \sum_k \eta_k [D_{w,k}]_+$.
# Then
#
# $$
# J_K \ge \frac{J_0}{J_0 + (1-J_0)e^{-M/2}} .
# $$
#
# ```
#
# ```{prf:proof}
# By {prf:ref}`thm-one-step` the log-odds grow by at least $M/2$ in all; solve for $J_K$.
# ```


# %%
def below_bound(runs, stretch=1.0):
    """Steps at which exact success is below the bound, with the progress M stretched by a factor."""
    count = 0
    for run in runs.values():
        progress = stretch * np.cumsum(
            run["eta"] * np.maximum(run["alignment"], 0), axis=0
        )
        bound = success_lower_bound(expit(run["before"][0]), progress)
        count += int((expit(run["after"]) < bound * (1 - 1e-12)).sum())
    return count


ledger.check(
    "1-bandit-success-lower-bound",
    "success never falls below the bound with half of the progress (violations along the runs)",
    testbed="bandit",
    predicted=0,
    measured=below_bound(half),
    sabotages={
        "all of the progress instead of half": below_bound(half, 2.0),
        "steps four times longer": below_bound(long),
    },
    printed="the same bound, for the printed step (secondary source, v3)",
)

# %% [markdown]
# Reviewers asked what happens when $M$ stays finite.
# Jensen and Hoeffding apply to numerator and denominator alike, so the log-odds cannot run ahead of the progress either.
#
# ```{prf:theorem} Two sides (1c)
# :label: thm-two-sides
# For steps of any direction and length,
#
# $$
# \Big|\log\tfrac{J_K}{1-J_K} - \log\tfrac{J_0}{1-J_0} - \sum_k \eta_k D_{w,k}\Big| \le \tfrac18\sum_k \eta_k^2\,\mathrm{diam}_k^2 .
# $$
#
# If $\sum \eta_k D_{w,k}$ is bounded above and $\sum\eta_k^2$ finite, success stays away from one for ever.
# ```
#
# We hold the angle between step and gap at seven cosines and let the step shrink as a power of the iteration, so that the sum of squares stays small.

# %%
cosines = (1.0, 0.5, 0.2, 0.05, 0.0, -0.05, -0.2)


def power_steps(first=0.3, power=0.6):
    count = itertools.count(1)
    return lambda alignment, spread: np.full(
        alignment.shape, first * next(count) ** -power
    )


def held_at(cosine):
    angles = np.random.default_rng(seed + 2)
    return descend(
        lambda gap, k: at_cosine(gap, cosine, angles),
        power_steps(),
        cosine_steps,
    )


held = {cosine: held_at(cosine) for cosine in cosines}


def progress_and_band(run):
    return (run["eta"] * run["alignment"]).sum(0), (
        run["eta"] ** 2 * run["spread"] ** 2
    ).sum(0) / 8


def outside_band(runs, shrink=1.0, sign=1.0):
    count = 0
    for run in runs.values():
        progress, band = progress_and_band(run)
        count += int(
            (
                np.abs(run["after"][-1] - run["before"][0] - sign * progress)
                > shrink * band + 1e-9
            ).sum()
        )
    return count


# %%
ledger.check(
    "1-bandit-two-sided-band",
    "at seven cosines the final log-odds lie within the band around start plus progress (runs outside)",
    testbed="bandit",
    predicted=0,
    measured=outside_band(held),
    sabotages={
        "sign of the progress flipped": outside_band(held, sign=-1.0),
        "band of diam^2/64": outside_band(held, shrink=1 / 8),
    },
    outcome="holds-sharper",
    printed="success may stall when the progress is bounded; no two-sided bound (secondary source)",
)

# %%
fig, axes = figures.panels(columns=2, height=3.3)
for cosine, run in held.items():
    median = np.median(expit(run["after"]), axis=1)
    axes[0].plot(np.arange(1, cosine_steps + 1), median, label=f"{cosine:+.2f}")
    progress, band = progress_and_band(run)
    axes[1].scatter(progress, run["after"][-1] - run["before"][0], s=6)
axes[0].set(
    xlabel="iteration",
    ylabel="median success rate",
    ylim=(0, 1.02),
    xscale="log",
)
axes[0].legend(
    title="cosine to the gap",
    fontsize="x-small",
    title_fontsize="small",
    ncols=2,
)
ends = np.array(axes[1].get_xlim())
axes[1].plot(ends, ends, **figures.PREDICTION, label="equal")
axes[1].set(xlabel="progress (nats)", ylabel="change of log-odds (nats)")
axes[1].legend(fontsize="small")
figures.show(
    fig,
    "Left: median success rate over the iterations at seven cosines between step and gap; it tends to one for clearly "
    "positive cosines, hardly moves near zero and falls for negative ones. Right: the final change of the log-odds "
    "against the accumulated progress, a cloud along the diagonal.",
)
medians = {
    cosine: float(np.median(expit(run["after"][-1])))
    for cosine, run in held.items()
}
print(
    "median final success by cosine:",
    {c: round(m, 2) for c, m in medians.items()},
)

# %% [markdown]
# The cosine decides: where the progress is larger than the band, its sign is the sign of the change.
# Where it is smaller the theorem is silent.


# %%
def wrong_signs(runs, sign=1.0):
    wrong = decided = 0
    for run in runs.values():
        progress, band = progress_and_band(run)
        clear = np.abs(progress) > band
        wrong += int(
            (
                np.sign(run["after"][-1] - run["before"][0])
                != sign * np.sign(progress)
            )[clear].sum()
        )
        decided += int(clear.sum())
    return wrong, decided


wrong, decided = wrong_signs(held)
print(f"decided by the theorem: {decided} of {len(cosines) * instances} runs")
ledger.check(
    "1-bandit-cosine-decides",
    "wherever the progress exceeds the band, success moves to the side the cosine says (wrong sides)",
    testbed="bandit",
    predicted=0,
    measured=wrong,
    sabotages={"sign of the cosine flipped": wrong_signs(held, -1.0)[0]},
    printed="convergence or failure is decided by the sign of the alignment",
)

# %% [markdown]
# Alignment that fades away stalls, however long the run.
# The same step lengths, once at a cosine of one half and once at a cosine that falls as the inverse of the iteration:

# %%
angles = np.random.default_rng(seed + 3)
fading = descend(
    lambda gap, k: at_cosine(gap, 1 / (k + 1), angles),
    power_steps(),
    cosine_steps,
)
progress, band = progress_and_band(fading)
ceiling = expit(fading["before"][0] + progress + band)


def over_ceiling(run):
    return int((expit(run["after"][-1]) > ceiling).sum())


print(
    f"median final success: fading {np.median(expit(fading['after'][-1])):.2f}, held {medians[0.5]:.2f}"
)
ledger.check(
    "1-bandit-summable-alignment-stalls",
    "with summable alignment success stays below the ceiling of the two-sided bound (runs above)",
    testbed="bandit",
    predicted=0,
    measured=over_ceiling(fading),
    sabotages={
        "the ceiling applied to a cosine of one half": over_ceiling(held[0.5])
    },
    printed="M tends to infinity is assumed; reviewers objected",
)

# %% [markdown]
# ## 1.6 Several prompts share one parameter vector
#
# Every prompt $q$ has its own gap $D_q$, and a step for all of them has an alignment $\langle w, D_q\rangle$ with each.
# Where that is negative the step *interferes*: it raises the mean and lowers this prompt.
# {prf:ref}`thm-one-step` holds for every prompt with its own diameter, so once $|D_{w,q}| > \eta\,\mathrm{diam}_q^2/8$ the sign of the alignment is the sign of the change.

# %%
PROMPTS, DIMENSION, ARMS = 8, 6, 8
shared = rng.standard_normal((instances, PROMPTS, ARMS, DIMENSION))
shared_reward = np.broadcast_to(np.arange(ARMS) < 2, shared.shape[:3]).astype(
    float
)
theta = rng.standard_normal((instances, DIMENSION))
before, gaps = bandit.log_odds_and_gap(theta[:, None], shared, shared_reward)
gradient = (expit(before) * expit(-before))[..., None] * gaps
w = unit(gradient.mean(1))
alignments = np.einsum("id,iqd->iq", w, gaps)
spreads = bandit.feature_range(shared, w[:, None])

eta = 0.4
after, _ = bandit.log_odds_and_gap(
    (theta + eta * w)[:, None], shared, shared_reward
)
clear = np.abs(alignments) > eta * spreads**2 / 8
change = after - before
print(
    f"prompts with a clear sign: {clear.mean():.0%}; of these lowered by the step: {(alignments < 0)[clear].mean():.0%}"
)

# %%
ledger.check(
    "1-bandit-interference-sign",
    "one step on the mean of eight prompts: each clear alignment predicts the sign of its prompt's change (wrong signs)",
    testbed="bandit",
    predicted=0,
    measured=int((np.sign(change) != np.sign(alignments))[clear].sum()),
    sabotages={
        "every prompt said to rise with the mean": int(
            (change < 0)[clear].sum()
        )
    },
    outcome="holds-sharper",
    printed="one prompt only; reviewers asked for several",
)

# %%
fig, ax = figures.panels(height=3.4)
kinds = (("clear", clear, "C0"), ("not decided by the theorem", ~clear, "C1"))
for label, chosen, color in kinds:
    ax.scatter(
        eta * alignments[chosen], change[chosen], s=9, color=color, label=label
    )
ends = np.array(ax.get_xlim())
ax.plot(ends, ends, **figures.PREDICTION, label="first order")
ax.axhline(0, color="grey", linewidth=0.7)
ax.axvline(0, color="grey", linewidth=0.7)
ax.set(
    xlabel="step times alignment with the prompt's gap (nats)",
    ylabel="change of the prompt's log-odds (nats)",
)
ax.legend(fontsize="small")
figures.show(
    fig,
    "Change of each prompt's log-odds against step times alignment after one step on the mean of eight prompts. "
    "The points follow the diagonal into the third quadrant: prompts with a negative alignment are lowered.",
)

# %% [markdown]
# ## 1.7 Verdicts

# %% tags=["nbval-ignore-output"]
ledger.publish()
