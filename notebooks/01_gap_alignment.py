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
# **A step changes the log-odds of success by its inner product with one vector, the gradient gap $D$, up to a term that the curvature along the step bounds.**
# The gap is the mean score of the right answers minus that of the wrong ones, where the *score* of an answer is the gradient of its log-probability.
# The picture shows it for a policy with two parameters, whose scores can be drawn.

# %% tags=["parameters", "remove-cell"]
profile: str = "book"  # label of the profile that set these parameters
seed: int = 0  # [0, 4294967295] seed of every random draw
judged: bool = True  # whether sampled claims are large enough for a verdict
qwen_model: str = "tiny"  # tiny, a hub name or a local path
instances: int = 200  # [4, 100000] random bandits an experiment
steps: int = 400  # [2, 100000] steps of a bandit's run
batches: int = 40000  # [40, 10000000] batches of prompts that share a step
transformer_runs: int = 24  # [1, 10000] runs of the transformer
transformer_steps: int = 40  # [2, 100000] steps of each
qwen_checkpoints: int = 2  # [1, 100] warm starts of the Qwen
qwen_first: int = 0  # [0, 100000] seed of the first of them
qwen_prompts: int = 2  # [1, 8] prompts a checkpoint whose gap is compared
qwen_groups: int = 500  # [2, 100000] sampled groups of an update
qwen_steps: int = 8  # [2, 100000] steps of each Qwen run

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

import numpy as np
from scipy.special import expit
from scipy.stats import binom, norm

from rlvr_lib import figures
from rlvr_lib.claims import Ledger, relative_error
from rlvr_lib.intervals import least_count
from rlvr_lib.responses import conditional_means, success_rate
from rlvr_lib.studies import gap as study
from rlvr_lib.studies.threshold import qwen as qwen_study
from rlvr_lib.testbeds.bandit import SoftmaxBandit, feature_range
from rlvr_lib.theory.advantages import group_advantages, group_gain
from rlvr_lib.theory.gap import gap_alignment, gradient_gap, half_gain_step

figures.set_style()
ledger = Ledger(1, paper="P1", profile=profile, seeds=[seed], judged=judged)

# %% tags=["remove-cell"]
qwens = qwen_study.warm_starts(qwen_model, qwen_checkpoints, qwen_first)
words, short = (
    [qwen_study.words(q, n, 8, (seed, k)) for k, q in enumerate(qwens)]
    for n in (3, 2)
)

# %% tags=["remove-input"]
rng = np.random.default_rng(11)
cloud = rng.standard_normal((1, 70, 2)) * [1.9, 0.8]
is_right = (cloud @ [0.5, 0.5] + 0.4 * rng.standard_normal(70) > 0.6) * 1.0
r = SoftmaxBandit(np.array([0.1, -0.1]), cloud, is_right).enumerate()
to, start = conditional_means(r)
fig, ax = figures.panels(height=3.2)
color = np.where(r.reward == 1, "C0", "C1")
ax.scatter(*r.score.T, 4000 * r.prob, color=color, alpha=0.5, linewidth=0)
arrow = {"arrowstyle": "-|>", "linewidth": 3, "color": "C3"}
ax.annotate("", to, start, arrowprops=arrow | {"shrinkA": 0, "shrinkB": 0})
ax.text(0.9, -0.25, "gap D", color="C3", size=15)
ax.plot(0, 0, "k+", markersize=12, zorder=5)
ax.text(-0.1, 0.1, "mean of all", ha="right")
ax.text(2.15, 1.6, "right answers", color="C0", size=13)
ax.text(-4.6, 1.6, "wrong answers", color="C1", size=13)
ax.set(xlabel="score, first parameter", ylabel="score, second parameter")
ax.set_aspect("equal", adjustable="datalim")
figures.show(
    fig,
    f"The scores of 70 made-up answers, as large as they are probable. The gradient gap is the arrow from the mean score of the wrong answers to that of the right ones. The mean score of all answers is zero and divides the arrow: the part before it is the success rate's share, here {success_rate(r):.2f}.",
)

# %% [markdown]
# The paper of this chapter, P1 ({cite:t}`suk2025gap`), bases its theory on this vector.
# We found three things.
#
# - **The gap is exactly the gradient of the log-odds of success, and every group estimator steps along it in the mean.** REINFORCE, RLOO, Dr. GRPO and GRPO differ on one prompt by a scalar only, their gain. Over all groups of the bandit this holds to {claim}`1-bandit-expected-group-update:measured:.0e`, and the training loop's own update of the Qwen, on thousands of sampled responses, misses it by {claim}`1-qwen-expected-group-update:measured:.2f` of what its noise allows.
# - **The longest step with a guarantee is $66$ times that of P1, for features in the unit ball, and no larger multiple of the alignment is safe for all policies.** An optimiser that looks for a policy on which a shorter step keeps less than half of its gain ends at {claim}`1-bandit-against-printed-step:measured:.3f` of ours.
# - **A step on the mean of many prompts can harm some of them, and where the signs of the gradients' cosines are random their overlap says how many.** On networks, where nothing bounds the curvature beforehand, the one at the start of a step foretold the second-order part of at least three quarters of the steps, up to a half of it, for {claim}`1-transformer-training-band:measured:.0f` of {claim}`1-transformer-training-band:n` runs of the transformer.
#
# To use this in a run of your own, skip to [what to do](gap-what-to-do).
#
# ## 1.1 The gap is the gradient of the log-odds
#
# **$\nabla\log\frac{J}{1-J} = D$ for every differentiable policy, because scores average to zero.**
# A policy gives response $o$ the probability $\pi_\theta(o)$.
# Its score is $s = \nabla_\theta\log\pi_\theta(o)$, and $H = \nabla^2_\theta\log\pi_\theta(o)$ is the derivative of the score.
# Probabilities sum to one whatever the parameters, so the first two derivatives of the sum vanish, which is known as Bartlett's identities:
#
# ```{math}
# :label: eq-bartlett
# \mathbb E[s] = 0, \qquad \mathbb E[H + s s^\top] = 0 .
# ```
#
# A prompt has a set of correct responses, and its *success rate* $J$ is their total probability.
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
# ```
#
# ````{dropdown} Proof
# ```{prf:proof}
# With reward $r \in \{0, 1\}$ success is $J = \sum_o \pi(o)\, r(o)$, and $\nabla \pi = \pi\, \nabla \log \pi = \pi s$, which is called the log-derivative trick.
# Hence $\nabla J = \mathbb E[r s] = J\,\mathbb E_+[s]$.
# Scores average to zero, so $J\,\mathbb E_+[s] + (1-J)\,\mathbb E_-[s] = 0$, which turns $D$ into $\mathbb E_+[s]/(1-J)$.
# The log-odds have derivative $\nabla J / (J(1-J))$.
# ```
# ````
#
# The log-odds are the right scale because on it a constant gap means constant speed: $J(1-J)$, which makes learning slow near zero and one, is gone.
# Four lines compute the gap of any testbed from its responses, all of them or a sample:

# %%
policy = SoftmaxBandit.random(seed=0)
responses = policy.enumerate()  # rewards, scores, probabilities
gap = gradient_gap(responses)
print(gap.round(3), f"{gap_alignment(responses, gap):.3f}")

# %% [markdown]
# This book has three testbeds: the bandit of these lines, a softmax over a few responses with given features; a synthetic transformer (section 1.6); and a Qwen3 of the real architecture, small, with the vocabulary of its task, which is to multiply elements of $S_3$ step by step.
# Every response it can give is enumerated, malformed ones included, so success and gap are exact on a network too.
# We take warm starts from several seeds, because one network would be a sample of one.


# %% tags=["remove-cell"]
gaps, rights, gradients = [], [], []
for qwen, prompts in zip(qwens, words, strict=True):
    for prompt in prompts[:qwen_prompts]:
        r = qwen.enumerate(prompt)
        gaps.append(gradient_gap(r))
        rights.append(conditional_means(r)[0])
        gradients.append(qwen.log_odds_and_gap(prompt)[1])


# %% tags=["remove-input"]
@ledger.claim(
    "1-qwen-gap-is-log-odds-gradient",
    headline="The gap of all responses of a Qwen is the gradient of its log-odds by backpropagation, to {measured:.0e} at worst of {n} {unit}.",
    statement="the gap from the scores of all responses against the gradient of the log-odds by backpropagation (largest relative error over checkpoints and prompts)",
    testbed="qwen",
    equals=0.0,
    within=1e-9,
    n=len(gaps),
    unit="prompts, over all checkpoints",
    paper=("P1.alignment", "sharpened"),
    sabotages={
        "scores of the right responses only": {"right_only": True},
        "the gap of another prompt": {"away": 1},
    },
)
def gap_error(right_only=False, away=0):
    found = rights if right_only else gaps
    pairs = zip(np.roll(found, away, axis=0), gradients, strict=True)
    return max(relative_error(*pair) for pair in pairs)


# %% [markdown]
# Differentiating once more says how fast the gap itself changes, and that is what limits a step.
#
# ```{prf:theorem} Curvature of the log-odds
# :label: thm-logit-curvature
# For every twice differentiable policy
#
# $$
# \nabla^2 \log\frac{J}{1-J} = \mathbb E_+[H] - \mathbb E_-[H] + \mathrm{Cov}_+(s) - \mathrm{Cov}_-(s) .
# $$
# ```
#
# ````{dropdown} Proof
# ```{prf:proof}
# $J = \sum_{o} \pi(o)$ over the correct responses, so the log-derivative trick gives $\nabla \log J = \frac1J\sum_o \pi s = \mathbb E_+[s]$.
# Once more it gives $\nabla \sum_o \pi s = \sum_o \pi\,(H + s s^\top)$, and therefore
#
# $$
# \begin{aligned}
# \nabla^2 \log J &= \mathbb E_+[H + s s^\top] - \mathbb E_+[s]\,\mathbb E_+[s]^\top \\
# &= \mathbb E_+[H] + \mathrm{Cov}_+(s) ,
# \end{aligned}
# $$
#
# with mean and covariance under the policy conditioned on success.
# The same holds for $\log(1-J)$ and the policy conditioned on failure, and the log-odds are the difference.
# SymPy confirms all three identities for arbitrary probabilities in the [evidence](evidence/01_gap_alignment).
# ```
# ````
#
# ## 1.2 Every estimator steps along the gap, with a gain of its own
#
# **On one prompt REINFORCE, RLOO, Dr. GRPO and GRPO have the same mean direction, the gap, and differ by a scalar that depends on the success rate and the group size only.**
# A group is $G$ responses to one prompt, with rewards $r_1, \dots, r_G \in \{0, 1\}$.
# An algorithm turns the rewards into *advantages* $A_i$ and steps along $\frac1G\sum_i A_i s_i$.
#
# ```{prf:theorem} Group advantages rescale the gap
# :label: thm-gain
# Let the responses of a group be independent and on-policy, drawn from the policy that the step will change, and let the advantages
#
# - depend on the group's rewards only, by one rule that treats all members alike,
# - sum to zero in the group,
# - not decrease in the reward: a correct response gets no less than a wrong one of its group.
#
# Then the expected update is $g\,D$ with a scalar $g \ge 0$, the *gain*, that depends on the rule, on $J$ and on $G$ only.
# With $k$ correct responses in a group and $\hat p = k/G$, the gain is
#
# - $(1-\frac1G)J(1-J)$ if the group's mean is subtracted (Dr. GRPO),
# - $J(1-J)$ if the mean of the other members is subtracted (RLOO),
# - $\mathbb E\sqrt{\hat p(1-\hat p)} = \sum_{k} \binom Gk J^k (1-J)^{G-k}\,\frac{\sqrt{k(G-k)}}{G}$ if the group's mean is subtracted and the result divided by the group's *population* standard deviation, zero where that is zero (GRPO),
# - $\sqrt{(G-1)/G}$ times that if the *sample* standard deviation is used instead, with $G-1$ below the squares (GRPO in TRL).
# ```
#
# ````{dropdown} Proof
# ```{prf:proof}
# Condition on the rewards: the responses are still independent, and $s_i$ has mean $\mathbb E_+[s]$ or $\mathbb E_-[s]$ according to $r_i$.
# Let $A_+$ be the sum of the advantages of the correct responses.
# The wrong ones sum to $-A_+$, so the conditional mean of the update is $A_+ D / G$.
# A rule that treats all members alike makes $A_+$ a function of $k$, so $g = \mathbb E[A_+]/G$ depends on $J$ and $G$ only.
# All correct responses of a group then share one advantage and all wrong ones another; the two sum to zero and the first is no smaller, so $A_+ \ge 0$.
#
# Subtracting the group mean gives $A_+/G = \hat p(1-\hat p)$, and $\mathbb E\,\hat p^2 = J^2 + J(1-J)/G$ makes its mean $(1-\frac1G)J(1-J)$.
# Leaving the own reward out of the mean multiplies every advantage by $G/(G-1)$.
# Dividing by $\sqrt{\hat p(1-\hat p)}$ leaves $A_+/G = \sqrt{\hat p(1-\hat p)}$, and the sample deviation is $\sqrt{G/(G-1)}$ times the population one.
# ```
# ````
#
# Plain REINFORCE, $A_i = r_i$, does not sum to zero but has the gain $J(1-J)$ too, because $\mathbb E[r s] = \nabla J$.
# The theorem says nothing of length weights, clipping, a KL term or reused batches, and TRL adds a small constant to the deviation, which we leave out.
# Exercise 2 shows what becomes of it when an advantage falls with the reward.

# %% tags=["hide-input"]
J = np.linspace(0, 1, 201)
fig, ax = figures.panels(height=3.2)
for G, color in ((2, "C0"), (4, "C1"), (16, "C2")):
    ax.plot(J, group_gain(J, G), color=color)
    y = group_gain(0.5, G) - 0.035
    ax.text(0.5, y, f"GRPO, G = {G}", color=color, ha="center")
ax.plot(J, np.sqrt(J * (1 - J)), **figures.PREDICTION)
ax.text(0.5, 0.52, "GRPO, large groups", ha="center")
ax.plot(J, J * (1 - J), color="gray", linestyle=":", linewidth=4, zorder=0)
ax.text(0.5, 0.17, "REINFORCE, RLOO: dotted", color="gray", ha="center")
ax.set(xlabel="success rate J", ylabel="gain: update per unit of gap")
ax.set(xlim=(0, 1), ylim=(0, 0.56))
figures.show(
    fig,
    "Gain against success rate. In groups of two GRPO has the parabola of REINFORCE and leave-one-out; with the group size its gain rises towards a semicircle. Every gain vanishes at success zero and one.",
)

# %%
at = np.array([0.5, 0.9, 0.99])
trl, dr_grpo = group_gain(at, 8, bessel=True), group_gain(at, 8, False)
print("GRPO as in TRL over Dr. GRPO:", (trl / dr_grpo).round(2))


# %% tags=["remove-input"]
def advantages(reward, estimator):
    """The library's choices, and GRPO with the sample deviation."""
    if estimator != "grpo, sample deviation":
        return group_advantages(reward, estimator)
    centred = reward - reward.mean(-1, keepdims=True)
    spread = reward.std(-1, ddof=1, keepdims=True)
    return np.divide(centred, spread, np.zeros_like(centred), where=spread > 0)


GAINS = {
    "reinforce": lambda J, G: J * (1 - J),
    "rloo": lambda J, G: J * (1 - J),
    "dr_grpo": lambda J, G: group_gain(J, G, normalize=False),
    "grpo": lambda J, G: group_gain(J, G),
    "grpo, sample deviation": lambda J, G: group_gain(J, G, bessel=True),
}


@ledger.claim(
    "1-bandit-expected-group-update",
    headline="Over all groups of two to four, each estimator's mean update is its gain times the gap, to {measured:.0e}.",
    statement="over all groups of two to four responses of six bandits, the mean update of REINFORCE, RLOO, Dr. GRPO and GRPO with either deviation is its gain times the gap (largest relative error)",
    testbed="bandit",
    equals=0.0,
    within=1e-9,
    n=6 * 3 * 5,
    unit="bandits, group sizes and estimators",
    paper=("P1.any-algorithm", "sharpened"),
    sabotages={
        "GRPO's gain that of large groups": {
            "gains": {"grpo": lambda J, G: np.sqrt(J * (1 - J))}
        },
        "population gain for the sample deviation": {
            "gains": {"grpo, sample deviation": group_gain}
        },
    },
)
def largest_gain_error(gains=GAINS):
    errors = []
    for k, G in itertools.product(range(6), (2, 3, 4)):
        r = SoftmaxBandit.random(seed + k, correct=1 + k % 4).enumerate()
        groups = np.array(list(itertools.product(range(len(r)), repeat=G)))
        weight = r.prob[groups].prod(1) / G
        for estimator, gain in gains.items():
            A = advantages(r.reward[groups], estimator)
            update = np.einsum("g,gi,gid->d", weight, A, r.score[groups])
            predicted = gain(success_rate(r), G) * gradient_gap(r)
            errors.append(relative_error(update, predicted))
    return max(errors)


# %% [markdown]
# Enumerating groups of eight of a Qwen is out of reach, so there the training loop itself is put to the test: one of its updates, on many sampled groups at once, against the gain times the exact gap.
# How far sampling noise may carry it is bounded, up to a small probability, by the variance of one group's update and Bernstein's inequality.

# %% tags=["remove-input"]
firsts = [prompts[0] for prompts in short]
KINDS = ("reinforce", "rloo", "grpo")


@ledger.claim(
    "1-qwen-expected-group-update",
    headline="The training loop's own update of a Qwen, over many sampled groups, is its gain times the gap: off by {measured:.2f} of what noise allows, at worst on {n} {unit}.",
    statement="one update of the loop by REINFORCE, RLOO and GRPO, over sampled groups of eight, along the gap: distance from gain times gap over its Bernstein radius (largest)",
    testbed="qwen",
    kind="statistical",
    at_most=1.0,
    false_alarm=1e-6,
    smallest_effect=1.0,
    n=len(qwens),
    unit="checkpoints",
    paper=("P1.any-algorithm", "sharpened"),
    sabotages={
        "responses weighted by their inverse length": {"weighted": True},
        "every batch used twice": {"passes": 2},
        "GRPO with the gain of Dr. GRPO": {"kinds": ("grpo",), "power": 0.0},
    },
)
def farthest_update(kinds=KINDS, weighted=False, passes=1, power=None):
    settings = {"length_normalize": weighted, "passes": passes}
    given = (qwens, firsts, kinds, qwen_groups, seed, 1e-6)
    return study.farthest_update(*given, power=power, **settings)


# %% [markdown]
# So at one success rate the learning rate of one algorithm translates into that of another exactly, in the mean.
# The translation holds for one step and is undone over a run, because the ratio of two gains moves with $J$, as the factors printed above show.
# Between prompts of a batch the gain differs too, and that is chapter {doc}`4 </notebooks/04_adaptive_curvature>`.
# P1 prints GRPO's direction, by a secondary source, as the exact expectation of $\frac{A}{\sigma}\frac{1}{|o|}\nabla\log\pi(o)$ with the prompt's exact mean and deviation $\sigma$; that is the limit of large groups, with length weights on top.
#
# ## 1.3 One step: at most an eighth of its squared width is lost
#
# **For a log-linear policy every step shorter than $8D_w/\mathrm{diam}_w^2$ raises success, and up to half of that it keeps half of its first-order gain.**
# We call a policy *log-linear* if it is one softmax over whole responses, $\pi(o) \propto \exp(\langle\theta, f(o)\rangle + c(o))$ with features $f$ and fixed offsets $c$.
# For a step $u$ let $\mathrm{diam}_u$ be the range over responses of $\langle u/|u|, f\rangle$: how wide the features are along the step.
#
# ```{prf:theorem} One step
# :label: thm-one-step
# For a log-linear policy and every step $u \ne 0$
#
# $$
# \log\frac{J(\theta+u)}{1-J(\theta+u)} \;\ge\; \log\frac{J(\theta)}{1-J(\theta)} + \langle u, D\rangle - \tfrac18\,|u|^2\,\mathrm{diam}_u^2 ,
# $$
#
# and the constant $\frac18$ cannot be improved.
# Hence for a log-linear policy, with $w = u/|u|$ and alignment $D_w = \langle w, D\rangle > 0$, every step length $\eta \le 4 D_w/\mathrm{diam}_w^2$ raises the log-odds by at least $\eta D_w/2$, half of their first-order gain, and every positive $\eta < 8 D_w/\mathrm{diam}_w^2$ raises them.
# ```
#
# ````{dropdown} Proof
# ```{prf:proof}
# The step multiplies the weight of response $o$ by $e^{\langle u, f(o)\rangle}$, so the odds of success change by the factor
#
# $$
# \mathbb E_+[e^{\langle u,f\rangle}]\,/\,\mathbb E_-[e^{\langle u,f\rangle}] .
# $$
#
# Jensen bounds the numerator below by $e^{\langle u, \mathbb E_+ f\rangle}$.
# Hoeffding's lemma bounds the denominator above by $e^{\langle u,\mathbb E_- f\rangle + |u|^2\mathrm{diam}_u^2/8}$.
# Scores are features minus their mean, so $\mathbb E_+ f - \mathbb E_- f = D$.
# For the constant let the wrong responses be two equally likely ones at distance $\mathrm{diam}_u$ and the correct one lie between them: the loss is $\log\cosh(|u|\,\mathrm{diam}_u/2)$, whose expansion starts with $|u|^2\mathrm{diam}_u^2/8$.
# ```
# ````

# %% tags=["hide-input"]
w = gap / np.linalg.norm(gap)
odds, _ = policy.log_odds_and_gap()
D_w, width = np.linalg.norm(gap), float(feature_range(policy.features[0], w))
longest = half_gain_step(D_w, width)
eta = np.linspace(-1.6, 3.2, 301) * longest
loss = eta**2 * width**2 / 8
fig, ax = figures.panels(height=3.3)
bounds = (eta * D_w - loss, eta * D_w + loss)
ax.fill_between(eta / longest, *bounds, color="gray", alpha=0.2)
ax.plot(eta / longest, policy.odds_along(0, w, eta) - odds, linewidth=2.5)
ax.plot(eta / longest, eta * D_w, **figures.PREDICTION)
ax.axvline(1, color="C3", linewidth=1)
ax.text(1.04, -2.2, "longest half-gain step", color="C3")
at = 2.3 * longest
ax.text(1.95, at * D_w + 0.4, "step times alignment", ha="right")
exact = policy.odds_along(0, w, at) - odds
ax.text(2.35, exact - 0.9, "exact", color="C0")
ax.set(xlabel="step along the gap / longest half-gain step")
ax.set(ylabel="change of the log-odds", ylim=(-4.5, 7.5))
figures.show(
    fig,
    "Change of the log-odds along the gap of one bandit, forwards to the right. The exact curve starts on the line whose slope is the alignment and stays inside the gray band of an eighth of the squared width of the step; up to the vertical line at least half of the first-order gain is guaranteed.",
)

# %% [markdown]
# The direction is free, so the bound holds for an Adam step as it does for a gradient step, and only $\langle u, D\rangle$ changes.
#
# P1 states such a bound, by a secondary source for its third version, with a loss in proportion to $(L + 8G^2)\,|u|^2$, where $L$ bounds the norm of $\nabla^2 \log \pi$ and $G$ that of a score; this $G$ is not the size of a group.
# For a policy that is not log-linear, Taylor's theorem puts the largest curvature of the log-odds on the way in the place of $\mathrm{diam}_u^2/4$.
# By {prf:ref}`thm-logit-curvature` that is at most $2L + G^2$, because a variance is at most a quarter of a squared range and scores no longer than $G$ have a range of at most $2G$.
# So the loss is at most $(L + \frac12 G^2)\,|u|^2$ for every policy under P1's conditions.
#
# What a constant decides is how long a step we dare to take.
# With features in the unit ball P1's condition has $L \le 1$ and $G \le 2$ and allows steps of $D_w/66$, where ours allows $D_w$, because the width is at most two.
# To see whether a longer one could be allowed we let an optimiser, differential evolution, look for the policy on which the shortest step fails.
# A step sees features only along itself, so policies on a line are enough.

# %% tags=["remove-input"]
failures = study.unit_ball_failures(instances, seed)
shortest = study.shortest_failure(seed)

# %% tags=["hide-input"]
fig, ax = figures.panels(height=2.9)
ax.hist(np.minimum(failures, 99), np.geomspace(1, 100, 31), color="C0")
ax.axvline(shortest, color="C3", linewidth=2.5)
ax.axvline(1 / 66, **figures.PREDICTION)
top = ax.get_ylim()[1]
ax.text(1 / 62, 0.9 * top, "P1's step")
ax.text(0.92 * shortest, 0.9 * top, "found by search", color="C3", ha="right")
ax.text(80, 0.9 * top, "random policies", color="C0", ha="right")
ax.set(xscale="log", xlabel="shortest step that keeps less than half / ours")
ax.set(ylabel="policies", xlim=(0.01, 110))
figures.show(
    fig,
    f"The shortest step that keeps less than half of its first-order gain, over our guaranteed step, for policies with features in the unit ball. On random policies it is {np.median(failures):.0f} in the median and {failures.min():.1f} at least (the last bar: a hundred or more, or never), on the worst that an optimiser found {shortest:.3f}; P1's step is the dashed line.",
)


# %% tags=["remove-input"]
@ledger.claim(
    "1-bandit-against-printed-step",
    headline="The shortest step that keeps less than half of its gain, over all policies that an optimiser tried, is {measured:.3f} of our guaranteed step, which is 66 times P1's.",
    statement="features in the unit ball: the infimum over policies, by differential evolution, of the shortest step along the gap that keeps less than half of its gain, over our guaranteed step",
    testbed="bandit",
    kind="numerical",  # the search stops at an alignment of .02
    equals=1.0,
    within=0.01,
    paper=("P1.half-gain", "sharpened"),
    sabotages={
        "P1's step taken as the longest": {"step": study.PRINTED_STEP},
        "twice our step": {"step": 2.0},
        "random policies only": {"search": False},
    },
)
def shortest_over_guaranteed(step=1.0, search=True):
    return (shortest if search else failures.min()) / step


# %% [markdown]
# Most policies are far kinder than the worst, so the guarantee is what one can promise without a look at the policy; chapter {doc}`2 </notebooks/02_step_threshold>` looks.
#
# ## 1.4 Many steps: success follows the progress
#
# **The log-odds rise by the accumulated alignment, the *progress* $M$, up to a band; with steps of the guaranteed length success therefore comes close to one exactly if the progress grows without bound.**
# Step $k$ has the unit direction $w_k$ and the length $\eta_k$.
# Write $J_k$ for success before it, $D_{w,k} = \langle w_k, D\rangle$ for its alignment with the gap at that moment, $\mathrm{diam}_k$ for the width of the features along $w_k$, and $[x]_+ = \max(x, 0)$.
#
# ```{prf:theorem} Convergence
# :label: thm-convergence
# Let a log-linear policy take $K$ steps $\eta_k w_k$ of lengths $0 \le \eta_k \le 4[D_{w,k}]_+/\mathrm{diam}_k^2$, and let $M = \sum_k \eta_k [D_{w,k}]_+$.
# Then
#
# $$
# J_K \ge \frac{J_0}{J_0 + (1-J_0)e^{-M/2}} .
# $$
# ```
#
# ````{dropdown} Proof
# ```{prf:proof}
# A step with $D_{w,k} \le 0$ has length zero.
# By {prf:ref}`thm-one-step` every other step raises the log-odds by at least $\eta_k D_{w,k}/2$, so they grow by at least $M/2$ in all; solve for $J_K$.
# ```
# ````
#
# ```{prf:theorem} Two sides
# :label: thm-two-sides
# For a log-linear policy and $K$ steps of any direction and length,
#
# $$
# \Big|\log\tfrac{J_K}{1-J_K} - \log\tfrac{J_0}{1-J_0} - \sum_k \eta_k D_{w,k}\Big| \le \tfrac18\sum_k \eta_k^2\,\mathrm{diam}_k^2 .
# $$
#
# If the partial sums of $\sum \eta_k D_{w,k}$ are bounded above and $\sum\eta_k^2$ is finite, success stays below a number less than one, however long the run.
# ```
#
# ````{dropdown} Proof
# ```{prf:proof}
# A step $u$ changes the log-odds by $\log\mathbb E_+[e^{\langle u,f\rangle}] - \log\mathbb E_-[e^{\langle u,f\rangle}]$, as in the proof of {prf:ref}`thm-one-step`.
# Jensen and Hoeffding apply to both terms: each lies between $\langle u, \mathbb E_\pm f\rangle$ and $\langle u, \mathbb E_\pm f\rangle + \frac18|u|^2\mathrm{diam}_u^2$.
# Their difference is therefore within $\frac18|u|^2\mathrm{diam}_u^2$ of $\langle u, D\rangle$; sum over the steps.
# Every $\mathrm{diam}_k$ is at most the diameter of the features, so under the last condition the log-odds stay below a finite number.
# ```
# ````
#
# For the steps of {prf:ref}`thm-convergence` the right-hand side is at most $M/2$, so the log-odds rise by between $M/2$ and $3M/2$.
# Reviewers of P1 asked what happens when $M$ stays finite, and this is the answer.
# We hold the angle between step and gap at seven cosines and let the step shrink as $0.3\,k^{-0.6}$, so that the sum of squares stays small.

# %% tags=["remove-input"]
COSINES = (1.0, 0.5, 0.2, 0.05, 0.0, -0.05, -0.2)
start = study.instances(instances, seed)
held = {
    c: study.follow(start, steps, c, study.shrinking_length, seed + 2)
    for c in COSINES
}

# %% tags=["hide-input"]
fig, (left, right) = figures.panels(columns=2, height=3.5)
for c, run in held.items():
    median = np.median(expit(run.after), axis=1)
    left.plot(np.arange(1, steps + 1), median)
    if c < 1:
        left.text(1.05 * steps, median[-1] - 0.015, f"{c:+.2f}")
left.text(3, 0.93, "cosine 1", color="C0")
left.set(xscale="log", xlim=(1, 4 * steps), ylim=(0, 1.02))
left.set(xlabel="step", ylabel="median success rate")
for run in held.values():
    right.plot(run.band[-1], (run.change - run.progress)[-1], "o", ms=2)
reach = np.quantile([run.band[-1] for run in held.values()], 0.99)
edge = np.array([0, reach])
for side in (-1, 1):
    right.fill_between(edge, side * edge, side * 9, color="C3", alpha=0.12)
    right.text(0.05 * reach, side * 0.85 * reach, "forbidden", color="C3")
right.set(xlim=(0, reach), ylim=(-reach, reach))
right.set(xlabel="half-width of the band", ylabel="change - progress")
figures.show(
    fig,
    "Left: median success at seven cosines between step and gap; the larger the cosine the faster it rises, at zero it stays level and below zero it falls. Right: how far each run's log-odds end from start plus progress, against the half-width of the band that the theorem allows; no run lies in the shaded part.",
)


# %% tags=["remove-input"]
@ledger.claim(
    "1-bandit-two-sided-band",
    headline="Of {n} runs at seven cosines to the gap, {measured:.0f} end outside the band around start plus progress.",
    statement="at seven cosines the log-odds end at start plus progress, up to the sum of diam^2 / 8 of squared steps (runs outside)",
    testbed="bandit",
    equals=0,
    n=len(COSINES) * instances,
    unit="runs",
    paper=("P1.alignment", "sharpened"),
    sabotages={
        "progress counted backwards": {"sign": -1.0},
        "an eighth of the band": {"share": 1 / 8},
        "the cosine left out of the progress": {"aligned": False},
    },
)
def runs_outside(sign=1.0, share=1.0, aligned=True):
    outside = 0
    for c, run in held.items():
        progress = run.progress[-1]
        if not aligned and c != 0:
            progress = progress / c
        off = np.abs(run.change[-1] - sign * progress)
        outside += (off > share * run.band[-1] + 1e-9).sum()
    return outside


# %% [markdown]
# Where the progress is smaller than the band the theorem is silent; in runs of their own, at a cosine of one fiftieth, the sign of the progress was still the right one in {claim}`1-bandit-sign-inside-the-band:measured:.0f` of {claim}`1-bandit-sign-inside-the-band:n`.
# And where the alignment fades so fast that the progress stays bounded, success stays below a ceiling that is known before the run starts (claim {claim}`1-bandit-summable-alignment-stalls:id`).
#
# ## 1.5 Many prompts: a step for the mean harms some of them
#
# **A step along the gradient of the mean lowers the prompts whose gap points against it, and if the signs of the cosines are random their share follows from the overlap of the gradients.**
# Every prompt $q$ has its own gap $D_q$, and {prf:ref}`thm-two-sides` holds for each, with its own alignment $D_{w,q} = \langle w, D_q\rangle$ and its own width $\mathrm{diam}_{w,q}$.
# So once $|D_{w,q}| > \eta\,\mathrm{diam}_{w,q}^2/8$ the sign of the alignment decides whether the prompt gains.
# Where it is negative, the step for all *interferes* with this prompt.
#
# How often that happens depends on what the others contribute along the prompt's own gradient $g_q = \nabla J_q$.
# Let $c_{qr}$ be the cosine between two gradients, and
#
# $$
# \omega_q = \sum_{r \ne q} \Big(\frac{|g_r|\,c_{qr}}{|g_q|}\Big)^2
# $$
#
# the *overlap* of prompt $q$ with the others.
#
# ```{prf:proposition} Interference by overlap
# :label: thm-overlap
# Let the signs of the cosines $c_{qr}$ be independent and either be as likely, given their sizes and the lengths of the gradients.
# Then the mean gradient points against prompt $q$ with a probability of at most
#
# $$
# \min\Big(\tfrac12,\ \frac{\omega_q}{1+\omega_q},\ e^{-1/(2\omega_q)}\Big) .
# $$
# ```
#
# ````{dropdown} Proof
# ```{prf:proof}
# The mean gradient has a negative product with $g_q$ exactly if $S = \sum_{r\ne q} \frac{|g_r|}{|g_q|}\,c_{qr} < -1$.
# Given the sizes, $S$ is a sum of independent symmetric terms with mean zero and variance $\omega_q$.
# It is symmetric, which gives $\frac12$; Cantelli's inequality gives the second bound and Hoeffding's the third.
# ```
# ````
#
# If many prompts contribute, $S$ is close to normal, and the probability is close to $\Phi(-1/\sqrt{\omega_q})$, with the normal distribution function $\Phi$.
# We drew batches of sixteen prompts of the bandit, easy and hard ones, whose gradients have random signs.

# %% tags=["remove-input"]
BINS = 5
shared = study.shared_steps(batches, seed)
far = study.shared_steps(min(batches, 1200), seed + 1, length=0.3)

# %% tags=["hide-input"]
fig, (left, right) = figures.panels(columns=2, height=3.3)
unit = far.length**2 * far.spread**2 / 8
x, y = far.length * far.alignment / unit, far.change / unit
left.plot(x, y, "o", markersize=2, alpha=0.6)
line = np.array([-4.0, 8.0])
left.fill_between(line, line + 1, 99, color="C3", alpha=0.12)
left.fill_between(line, -99, line - 1, color="C3", alpha=0.12)
left.plot([-4, 0, 0, 0, 0, 8], [0, 0, -4, 8, 0, 0], color="gray", linewidth=0.8)
left.text(3.4, -2.6, "forbidden", color="C3")
left.text(-3.7, 5.6, "forbidden", color="C3")
left.set(xlim=(-4, 8), ylim=(-4, 8))
left.set(xlabel="progress of a prompt / its band")
left.set(ylabel="change of its log-odds / its band")
middle, share, _ = shared.by_overlap(BINS)
right.plot(middle, share, "o", markersize=7)
o = np.geomspace(0.02, 300, 200)
right.plot(o, norm.sf(1 / np.sqrt(o)), **figures.PREDICTION)
bound = np.minimum(o / (1 + o), np.exp(-0.5 / o)).clip(max=0.5)
right.plot(o, bound, color="gray")
right.text(0.32, 0.42, "bound", color="gray", ha="right")
right.text(3, 0.2, "predicted")
right.set(xscale="log", xlim=(0.02, 300), ylim=(-0.01, 0.53))
right.set(xlabel="overlap", ylabel="share of prompts harmed")
figures.show(
    fig,
    f"Left: change of a prompt's log-odds against step times alignment, both over the band, after a step on the mean of sixteen prompts; the shaded parts are forbidden, so outside the square around zero the sign of the alignment is that of the change. Right: share of prompts that the step harms, from {share[0]:.1%} at the smallest overlaps to {share[-1]:.0%} at the largest.",
)

# %% tags=["remove-input"]
# The law of the sum is not quite normal, for which .03 is allowed; the rest is
# Hoeffding's radius in each of five bins.
per_bin = len(shared.overlap) // BINS
allowed = 0.03 + np.sqrt(np.log(2 * BINS / 1e-6) / (2 * per_bin))


@ledger.claim(
    "1-bandit-interference-follows-overlap",
    headline="The share of prompts that a step on the mean harms follows from the overlap of their gradients, to {measured:.3f} at worst from small to large overlaps.",
    statement="one step on the mean of sixteen prompts with random signs: share of prompts whose success falls, against the normal law of their overlap, in five bins (largest distance)",
    testbed="bandit",
    kind="statistical",
    equals=0.0,
    within=allowed,
    false_alarm=1e-6,
    smallest_effect=allowed,
    n=len(shared.overlap),
    unit="batches",
    sabotages={
        "lengths of the gradients left out": {"weighted": False},
        "no prompt opposed": {"signed": False},
    },
)
def farthest_share(weighted=True, signed=True):
    found = shared
    if not (weighted and signed):
        found = study.shared_steps(batches, seed, 0.02, 16, weighted, signed)
    _, share, predicted = found.by_overlap(BINS)
    return np.abs(share - predicted).max()


# %% [markdown]
# To first order success in the mean rises all the same, because the step follows its gradient, so a log of the mean does not show which prompts pay for it.
#
# ## 1.6 On networks: what the start of a step knows
#
# **On networks nothing bounds the curvature beforehand; on the transformer the curvature at the start of a step says to within a half what most steps cost or give, on the Qwen less reliably.**
# A transformer or a Qwen is not log-linear in its parameters, so no diameter bounds anything, and only the identities carry over.
# Taylor's theorem says that a step $u$ changes the log-odds by $\langle u, D\rangle$ plus half of a curvature somewhere on the way.
# If one measures that curvature along the whole step this is true of every smooth function and tests nothing, so we ask for more: is it known at the *start*?
# We call a step *foreseen* if its change beyond $\langle u, D\rangle$ is between half and one and a half times what the curvature at the start says, and count the foreseen steps of real training runs.
# A curvature that is too large by a factor of two would fail this count as one that is too small.
#
# The synthetic transformer multiplies a chain of elements of $S_3$: one attention layer looks up the clause that each step needs, a frozen layer multiplies, and only the attention is trained.
# Its runs are sampled GRPO on prompts of their own; log-odds and gap are those of the mean success, exact by dynamic programming.
# On the Qwen five ways to step are compared, because length weights, Adam and reused, clipped batches change the direction of a step and Taylor's theorem takes any direction.

# %% tags=["remove-cell"]
sizes = transformer_runs, transformer_steps
transformer = study.transformer_steps(*sizes, seed)
qwen_runs = study.all_variants(qwens, words, qwen_steps, seed)

# %% tags=["hide-input"]
fig, (left, right) = figures.panels(columns=2, height=3.4)
runs = list(qwen_runs.values())
on_qwen = np.concatenate([run.curved[run.moved] for run in runs])
for ratio, color in ((transformer.curved, "C0"), (on_qwen, "C1")):
    bars, edges = np.histogram(np.clip(ratio, -4, 6), np.linspace(-4, 6, 41))
    left.stairs(bars / bars.sum(), edges, color=color, linewidth=2)
left.text(1.9, 0.3, "transformer", color="C0")
left.text(2.2, 0.05, "Qwen", color="C1")
left.axvspan(0.5, 1.5, color="gray", alpha=0.18)
left.axvline(1, **figures.PREDICTION)
left.set(xlabel="second-order term / predicted", ylabel="share of steps")
for place, run in enumerate(runs):
    cosines = run.cosine[run.moved]
    spread = place + np.linspace(-0.25, 0.25, len(cosines))
    right.plot(cosines, spread, "o", markersize=3, alpha=0.7)
right.axvline(0, color="gray", linewidth=0.8)
right.set_yticks(range(len(qwen_runs)), list(qwen_runs))
right.invert_yaxis()
right.set(xlabel="cosine of step and gap", ylabel=" ")
figures.show(
    fig,
    f"Left: what a training step changes the log-odds by beyond its alignment, over the value that the curvature at its start predicts, cut at -4 and 6; in the shaded part a step is foreseen. Right: cosine of real steps of the Qwen with the gap of one of the prompts in the batch, which is at most {max(run.cosine.max() for run in runs):.2f}, because eight prompts share a step and groups are small.",
)

# %% tags=["remove-input"]
least, level = least_count(transformer_runs), max(3e-5, 0.5 ** len(qwens))
most = int(binom.isf(level, len(qwens), 0.5)) + 1  # asked by the sign test
BROKEN = {
    "twice the curvature": {"factor": 2.0},
    "half of the curvature": {"factor": 0.5},
    "alignment counted backwards": {"sign": -1.0},
}


@ledger.claim(
    "1-transformer-training-band",
    headline="The curvature at the start of a step foretells the second-order part of three quarters of the training steps of the transformer to within a half, for {measured:.0f} of {n} {unit}.",
    statement="sampled GRPO: for at least .75 of a run's steps the change of the log-odds less the alignment is .5 to 1.5 times half of the curvature at the start (runs; an exact test asks for so many against one half)",
    testbed="transformer",
    kind="statistical",
    at_least=least,
    false_alarm=1e-6,
    smallest_effect=least,
    n=transformer_runs,
    unit="runs",
    paper=("P1.alignment", "sharpened"),
    sabotages=BROKEN,
)
def foreseen_runs(factor=1.0, sign=1.0):
    return (transformer.share_foreseen(factor, sign) >= 0.75).sum()


# %% tags=["remove-input"]
@ledger.claim(
    "1-qwen-training-band",
    headline="The curvature at the start of a step foretells the second-order part of three quarters of the training steps of the Qwen to within a half, on {measured:.0f} of {n} {unit}.",
    statement="GRPO in five variants: for at least .75 of the steps the change of a prompt's log-odds less the alignment is .5 to 1.5 times half of the curvature at the start (checkpoints; a sign test asks for so many)",
    testbed="qwen",
    kind="statistical",
    at_least=most,
    false_alarm=level,
    smallest_effect=most,
    n=len(qwens),
    unit="checkpoints",
    paper=("P1.alignment", "sharpened"),
    sabotages=BROKEN,
)
def foreseen_checkpoints(factor=1.0, sign=1.0):
    shares = [run.share_foreseen(factor, sign).mean(1) for run in runs]
    return (np.mean(shares, 0) >= 0.75).sum()


# %% [markdown]
# Two checkpoints are too few for a verdict, so on this page the last line is not judged; of the full profile's {claim}`1-qwen-training-band@full:n` fresh ones {claim}`1-qwen-training-band@full:measured:.0f` passed, where our test asks for {claim}`1-qwen-training-band@full:predicted:.0f`, so there the claim fails.
# Some steps miss by far, so the alignment, even with the curvature at the start, is no guarantee.
# Exact steps along one prompt's gap tell the same: at half of the step that the curvature at their start allows most runs on the Qwen stay above the bound of {prf:ref}`thm-convergence` (on {claim}`1-qwen-success-lower-bound@full:measured:.0f` of the {claim}`1-qwen-success-lower-bound@full:n` checkpoints of the full profile), but not all, because the curvature can grow on the way.
# On any testbed the alignment of an update takes one line, and the responses should be ones that the update did not use:

# %%
qwen, prompt = qwens[0], words[0][0]
fresh = qwen.sample(prompt, 64, seed=1)
update = qwen.exact(words[0][1])[1]  # another prompt's gradient
print(f"{gap_alignment(fresh, update):.3f} nats per unit of step")

# %% [markdown]
# ## 1.7 The paper's sentences
#
# We read P1 through its abstracts, public reviews and secondary notes, not in full, so its sentences are paraphrases.
# Its sentences on thresholds, length and stagnation are in chapter {doc}`2 </notebooks/02_step_threshold>`.
#
# | sentence of P1 | what became of it |
# | --- | --- |
# | Convergence depends on aligning the update with the gradient gap. | **Sharpened**. The gap *is* the gradient of the log-odds ({prf:ref}`thm-gap`), and the progress along it gives the log-odds of success up to a band, for steps in any direction ({prf:ref}`thm-two-sides`). |
# | The theory covers any policy-gradient algorithm. | **Sharpened**. The mean update of REINFORCE, RLOO, Dr. GRPO and GRPO is a known scalar times the gap ({prf:ref}`thm-gain`); length weights and reused batches turn or stretch it. |
# | A step loses at most a multiple of $L + 8G^2$ of its squared length. | **Sharpened**. $L + \frac12 G^2$ is enough, and $\frac18\mathrm{diam}_u^2$ for log-linear policies, where no smaller constant will do ({prf:ref}`thm-one-step`). |
# | Steps of up to $[D_w]_+/(2(L + 8G^2))$ keep half of their first-order gain. | **Sharpened**. For log-linear policies with features in the unit ball the longest such step is $66$ times as long, and no longer one is safe. |
# | Success then exceeds $J_0/(J_0 + (1-J_0)e^{-M/2})$. | **Sharpened**. It does with those longer steps ({prf:ref}`thm-convergence`). |
# | Convergence to one assumes that the progress $M$ grows without bound. | **Confirmed** as a condition that is needed: with steps of the guaranteed length bounded progress alone keeps success below a number less than one; for other steps it does if their squares are summable ({prf:ref}`thm-two-sides`). |
#
# Reviews of P1 also objected that its analysis is of one prompt and of plain gradient steps.
# For log-linear policies both can be answered, because the theorems hold prompt by prompt (section 1.5) and for steps in any direction, Adam's included; on networks only the first order and a measured curvature remain (section 1.6).
# Every claim, its sabotages and both profiles stand in the [ledger](../book/ledger); what supports this page without being on it is in the [evidence](evidence/01_gap_alignment).
#
# (gap-what-to-do)=
# ## 1.8 What to do
#
# 1. **Log the alignment and not only the norm of the gradient**, with `gap_alignment(responses, update)` on responses that the update did not use. If it is negative beyond its noise for some prompts, they interfere; if the step points against the gradient of the mean success, look first for a wrong sign or a stale batch, and then at how the gains weigh the prompts (exercise 4).
# 2. **Watch the log-odds of success**, because at a constant alignment and step they are a straight line up to the band, near zero and near one alike.
# 3. **When you switch between GRPO, Dr. GRPO and RLOO on one prompt, multiply the rate by the old gain over the new one**, `group_gain(J, G, bessel=True)` for TRL's GRPO. This suits the next steps only, because the ratio moves with success, and Adam divides a constant factor out anyway.
# 4. **If progress stalls, look whether the alignments or the steps shrink** before you blame the reward.
# 5. **Before you enlarge a batch, look at the overlap.** Where the signs of the cosines are mixed, more prompts mean more overlap and more of them harmed by each step; prompts whose gradients agree help each other, so look at the signs too.
#
# ## 1.9 Exercises
#
# ```{exercise} A gap by hand
# :label: ex-gap
# Three responses with features $(1, 0)$, $(0, 1)$ and $(0, 0)$ are equally likely, and only the first is right.
# Compute $J$, $D$ and $\nabla J$.
# How long may a step along $D$ be?
# ```

# %% [markdown]
# ````{solution-start} ex-gap
# :class: dropdown
# ````
#
# $J = \frac13$, $D = (1, 0) - (0, \frac12) = (1, -\frac12)$ and $\nabla J = \frac29 D$.
# Along $w = D/|D|$ the features are $2$, $-1$ and $0$ over $\sqrt5$, so the width is $3/\sqrt5$ and every step below $8|D|\cdot\frac59$ raises success:

# %%
three = np.array([[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]])
policy = SoftmaxBandit(np.zeros(2), three, np.eye(3)[:1])
D = gradient_gap(policy.enumerate())
width = feature_range(three[0], D)
print(D, f"steps below {2 * half_gain_step(np.linalg.norm(D), width):.2f}")

# %% [markdown]
# ````{solution-end}
# ````
#
# ```{exercise} A rule with a negative gain
# :label: ex-rule
# Find a rule of advantages that depends on the group's rewards only and sums to zero, but steps against the gap.
# Which hypothesis of {prf:ref}`thm-gain` does it break, and where might one meet it?
# ```

# %% [markdown]
# ````{solution-start} ex-rule
# :class: dropdown
# ````
#
# $A_i = \bar r - r_i$ does, because it falls with the reward; its gain is $-(1-\frac1G)J(1-J)$.
# One meets it as a wrong sign, or in part as a bonus for answers that most of the group got wrong.
# With a weight that changes sign with $\hat p$ the gain has the sign of whatever groups are common:

# %%
k = np.arange(9)
weight = np.where(k <= 4, 1.0, -1.0)  # turned around in groups mostly right
for J in (0.2, 0.5, 0.8):
    gain = binom.pmf(k, 8, J) @ (weight * k / 8 * (1 - k / 8))
    print(f"J = {J}: gain {gain:+.3f}")

# %% [markdown]
# ````{solution-end}
# ````
#
# ```{exercise} A verifier that errs
# :label: ex-verifier
# A verifier accepts a right response with probability $1-b$ and a wrong one with probability $a$.
# What are the success rate $\tilde J$ and the gap $\tilde D$ that training sees?
# ```

# %% [markdown]
# ````{solution-start} ex-verifier
# :class: dropdown
# ````
#
# Extend a response by the verifier's coin, whose law does not depend on $\theta$: scores stay, and so do all theorems.
# Now $\tilde J = a + (1-a-b)J$, and $\nabla\tilde J = (1-a-b)\nabla J$ gives
#
# $$
# \tilde D = (1-a-b)\,\frac{J(1-J)}{\tilde J(1-\tilde J)}\,D .
# $$
#
# The direction is untouched as long as $a + b < 1$; only the length shrinks:

# %%
for J in (0.05, 0.5, 0.95):
    seen = 0.1 + 0.8 * J  # a = b = 0.1
    shrunk = 0.8 * J * (1 - J) / (seen * (1 - seen))
    print(f"J = {J}: the gap has {shrunk:.2f} of its length")

# %% [markdown]
# ````{solution-end}
# ````
#
# ```{exercise} GRPO may lower the mean
# :label: ex-mean
# Two prompts with $J_1 = 0.5$ and $J_2 = 0.01$ have opposite gaps, and the second is longer by a factor of six.
# Does the expected step of GRPO in large groups raise their mean success?
# ```

# %% [markdown]
# ````{solution-start} ex-mean
# :class: dropdown
# ````
#
# Let $D_1 = 1$ and $D_2 = -6$ along one line.
# The update is $\sigma_1 D_1 + \sigma_2 D_2$, and the slope of the mean its product with $\sigma_1^2 D_1 + \sigma_2^2 D_2$:

# %%
J, D = np.array([0.5, 0.01]), np.array([1.0, -6.0])
variance = J * (1 - J)
update, slope = np.sqrt(variance) @ D, variance @ D
print(f"update {update:+.3f}, slope of the mean {slope:+.3f}")

# %% [markdown]
# The update points against the slope, so mean success falls: between prompts the gains matter, and GRPO climbs another objective than the mean.
#
# ````{solution-end}
# ````

# %% tags=["remove-cell", "nbval-ignore-output"]
ledger.publish()
