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
# # 4. Dividing by the standard deviation
#
# GRPO subtracts the mean of a group's rewards and divides by their standard deviation.
# The division was introduced as whitening {cite:p}`shao2024deepseekmath`; Dr. GRPO removes it as a bias {cite:p}`liu2025drgrpo`; {cite:t}`ge2026normalization` defend it as a step adapted to curvature.
#
# This chapter settles when the division helps, why, by how much, and when it hurts.
# The variance of a prompt's reward scales the *curvature* of its success rate as it scales the gradient, so a prompt with less variance can take a longer step.
# We prove that with the best constant, place GRPO in a family of normalisations, correct a bound of the paper, and then look at the three things that limit the gain: small groups, noise, and prompts that overlap.
# The chapter ends in a table that says what to set `scale_rewards` to.

# %% tags=["parameters"]
profile: str = "book"  # label of the profile that set these parameters
seed: int = 0  # [0, 4294967295] seed of every random draw
judged: bool = True  # whether sampled claims are large enough for a verdict
qwen_model: str = "tiny"  # tiny, a hub name or a local path
instances: int = 2000  # [20, 1000000] random bandits an experiment
digit_instances: int = 40  # [4, 100000] bandits in 400-digit arithmetic
bandit_seeds: int = 48  # [2, 10000] sampled runs of each arm on the bandit
dial_draws: int = 100  # [2, 10000] sets of overlapping prompts
transformer_seeds: int = 8  # [2, 1000] sampled runs of each arm
transformer_steps: int = (
    2000  # [30, 100000] steps of the run on orthogonal prompts
)
qwen_prompts: int = 10  # [4, 36] words the Qwen is trained on
qwen_seeds: int = 2  # [1, 1000] sampled runs of each arm
qwen_steps: int = 180  # [4, 10000] longest run
qwen_pace: float = (
    0.01  # [0.0001, 0.1] rise of mean success in a run's first step
)
phase_seeds: int = 2  # [1, 1000] runs from each start
phase_steps: int = 200  # [2, 10000] steps of these runs

# %% tags=["remove-cell"]
import sys

if "google.colab" in sys.modules:  # Colab has none of this installed
    import subprocess

    source = "git+https://github.com/rlvr-companion/rlvr-companion"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", source], check=True
    )

# %%
import contextlib
import itertools

import mpmath
import numpy as np
import sympy as sp
import torch
from scipy.integrate import quad, solve_ivp
from scipy.special import expit, logit

from rlvr_lib import figures
from rlvr_lib.advantages import group_advantages
from rlvr_lib.claims import Ledger, relative_error
from rlvr_lib.curvature import (
    best_power,
    curvature_bound,
    curvature_constant,
    gradient_cosines,
    guaranteed_gain,
    guaranteed_gain_ratio,
    optimal_group_weight,
    power_gain,
    power_step,
    two_arm_time,
    within_class_noise,
)
from rlvr_lib.gap import gradient_gap
from rlvr_lib.groups import symmetric_group
from rlvr_lib.responses import conditional_weights, success_rate
from rlvr_lib.testbeds import bandit, grpo, transformer
from rlvr_lib.testbeds.chains import quotients
from rlvr_lib.testbeds.qwen import QwenTestbed
from rlvr_lib.testbeds.transformer_training import train as train_transformer

figures.set_style()
rng = np.random.default_rng(seed)
ledger = Ledger(
    theorem=4,
    paper="P4 (arXiv 2601.23135)",
    paper_version="v1, in full",
    profile=profile,
    seeds=[seed],
    judged=judged,
)

# %% [markdown]
# ## 4.1 The variance of the reward scales the curvature
#
# For one prompt $\sigma^2 = J(1-J)$ is the variance of its reward.
# Chapter {doc}`1 </notebooks/01_gap_alignment>` showed $\nabla J = \sigma^2 D$.
# The second derivative carries the same factor.
#
# ```{prf:theorem} Curvature and variance (I4, 4a)
# :label: thm-curvature-variance
# For every twice differentiable policy
#
# $$
# \nabla^2 J = \sigma^2\,(\mathbb E_+ - \mathbb E_-)[H + ss^\top] .
# $$
#
# For a log-linear policy, any set of correct responses and $m = \min(J, 1-J)$,
#
# $$
# \|\nabla^2 J\| \;\le\; c(J)\,\mathrm{diam}^2\,\sigma^2, \qquad c(J) = \begin{cases} 1-2m & m \le \frac14\\ \frac1{8m} & m \ge \frac14 , \end{cases}
# $$
#
# and no smaller $c(J)$ will do at any $J$.
# For other policies $|w^\top\nabla^2 J\,w| \le \sigma^2(R_w^2 + 2L)$, where $R_w$ is the range over responses of $\langle w, s\rangle$ and $|w^\top H w| \le L$.
# ```
#
# ```{prf:proof}
# $\nabla^2\pi = \pi\,(H + ss^\top)$, so $\nabla^2 J = \mathbb E[r(H+ss^\top)] = J\,\mathbb E_+[H + ss^\top]$.
# By Bartlett's second identity, equation {eq}`eq-bartlett`, $J\,\mathbb E_+[\cdot] + (1-J)\,\mathbb E_-[\cdot] = 0$ for the same matrix, hence $\mathbb E_+[\cdot] = (1-J)(\mathbb E_+-\mathbb E_-)[\cdot]$.
#
# In the log-linear case $H$ is the same for all responses and drops out.
# With $\mathbb E[s] = 0$ the conditional means are $\mathbb E_+[s] = (1-J)D$ and $\mathbb E_-[s] = -JD$, which gives $\mathrm{Cov}_+ - \mathrm{Cov}_- + (1-2J)DD^\top$.
# Along a unit vector let the features range over $[0, 1]$ after scaling, with conditional means $a$ and $b$ and $J\le\frac12$.
# A variance on $[0,1]$ with mean $a$ is at most $a(1-a)$, so the form is at most $a(1-a) + (1-2J)(a-b)^2$ and at least $-b(1-b)$.
# The first is largest at $b = 0$ (or $b=1$, by reflection), where it equals $a - 2Ja^2$: its maximum over $a\in[0,1]$ is $1-2J$ at $a=1$ when $J\le\frac14$ and $\frac1{8J}$ at $a = \frac1{4J}$ otherwise.
# The second is at most $\frac14 \le c(J)$ in size.
# Two points on a line attain the maximum, and exchanging right and wrong covers $J > \frac12$.
#
# In general a range of $w^\top Hw$ is at most $2L$; and since $\langle w,s\rangle$ has mean zero it takes both signs, so its square is at most $R_w^2$.
# ```
#
# The identity by algebra, for arbitrary probabilities of three responses of which the first two are correct; then the maximum.

# %%
t = sp.symbols("theta", real=True)
first, second = sp.Function("p1")(t), sp.Function("p2")(t)
p = [first, second, 1 - first - second]
bent = [sp.diff(sp.log(q), t, 2) + sp.diff(sp.log(q), t) ** 2 for q in p]
J_of_t = p[0] + p[1]
given_success = (p[0] * bent[0] + p[1] * bent[1]) / J_of_t
identity = sp.diff(J_of_t, t, 2) - J_of_t * (1 - J_of_t) * (
    given_success - bent[2]
)
print("Hess J - sigma^2 (E+ - E-)[H + s s'] =", sp.simplify(identity))

J, a, b = sp.symbols("J a b", positive=True)
form = a * (1 - a) + (1 - 2 * J) * (a - b) ** 2
print(
    "largest of a - 2 J a^2:", sp.simplify(form.subs(b, 0).subs(a, 1 / J / 4))
)
print("at a = 1:", form.subs({b: 0, a: 1}))

# %% [markdown]
# Next on numbers.
# Random bandits with heavy-tailed features, any number of correct arms, and success rates from one in a thousand up, and one whose right answers lie between its wrong ones; their Hessians by the complex-step method, which knows nothing of the theory.


# %%
def random_bandits(count, rng, spread=5.0, arms=6, dimension=4):
    """theta, features, reward and offset of ``count`` bandits; log-odds of success reach about ``spread``."""
    features = rng.standard_t(3, (count, arms, dimension))
    reward = (np.arange(arms) < rng.integers(1, arms, (count, 1))).astype(float)
    offset = rng.standard_normal((count, arms))
    offset += reward * spread * rng.uniform(-1, 1, (count, 1))
    return (
        rng.standard_normal((count, dimension)),
        features,
        reward,
        offset,
    )


def with_variance(drawn, least):
    J = expit(bandit.log_odds_and_gap(*drawn)[0])
    enough = least <= J * (1 - J)
    return tuple(x[enough] for x in drawn)


def success_gradient(theta, features, reward, offset):
    """grad J, also at complex parameters."""
    weight = np.exp(np.einsum("nd,nad->na", theta, features) + offset)
    prob = weight / weight.sum(1, keepdims=True)
    success = (prob * reward).sum(1, keepdims=True)
    return np.einsum("na,nad->nd", prob * (reward - success), features)


def numerical_hessian(theta, *rest):
    axes = 1e-30j * np.eye(theta.shape[1])
    columns = [np.imag(success_gradient(theta + e, *rest)) for e in axes]
    return np.stack(columns, -1) / 1e-30


between = np.zeros((1, 6, 4))  # right answers between wrong ones, on a line
between[0, :, 0] = [0, 0, -1, 1, -1, 1]
between_case = (
    0.1 * np.eye(4)[:1],
    between,
    np.array([[1.0, 1, 0, 0, 0, 0]]),
    np.zeros((1, 6)),
)
population = tuple(
    np.concatenate(pair)
    for pair in zip(
        between_case,
        with_variance(random_bandits(instances, rng), 1e-3),
        strict=True,
    )
)
success = expit(bandit.log_odds_and_gap(*population)[0])
hessian = numerical_hessian(*population)
norm = np.linalg.norm(hessian, 2, axis=(1, 2))
diameter = bandit.feature_diameter(population[1])
print(f"{len(success)} bandits, success {success.min():.3f}", end=" ")
print(f"to {success.max():.3f}")


# %%
def predicted_hessian(sign=-1.0, outer=1.0):
    theta, features, reward, offset = population
    weight = np.exp(bandit.log_policy(theta, features, offset))
    moments = []
    for chosen in (reward, 1 - reward):
        q = weight * chosen / (weight * chosen).sum(1, keepdims=True)
        mean = np.einsum("na,nad->nd", q, features)
        square = np.einsum("na,nad,nae->nde", q, features, features)
        moments.append((mean, square - mean[:, :, None] * mean[:, None]))
    gap = moments[0][0] - moments[1][0]
    inner = moments[0][1] + sign * moments[1][1]
    inner = inner + outer * (1 - 2 * success)[:, None, None] * (
        gap[:, :, None] * gap[:, None]
    )
    return (success * (1 - success))[:, None, None] * inner


ledger.check(
    "4-bandit-hessian-identity",
    "the Hessian of J is sigma^2 [Cov+ - Cov- + (1-2J) D D'] (largest relative error)",
    testbed="bandit",
    predicted=0.0,
    measured=relative_error(predicted_hessian(), hessian),
    tolerance=1e-9,
    sabotages={
        "covariances added": relative_error(predicted_hessian(1.0), hessian),
        "without the gap": relative_error(
            predicted_hessian(outer=0.0), hessian
        ),
    },
)

# %% [markdown]
# The paper's Lemma 3.1 has $4X^2\sigma^2$, with $X$ the spectral norm of the feature matrix.
# Since $\mathrm{diam}^2 \le 2X^2$, the theorem gives $2X^2\sigma^2$, and two arms with unit features show that this 2 is best possible as $J\to0$.


# %%
def worst_share(bound):
    return float((norm / bound).max())


sharp = curvature_constant(success) * curvature_bound(success, diameter)
ledger.check(
    "4-bandit-curvature-bound",
    "no Hessian exceeds c(J) diam^2 sigma^2 (largest share of the bound)",
    testbed="bandit",
    predicted=1.0,
    relation="at most",
    measured=worst_share(sharp),
    tolerance=1e-9,
    sabotages={
        "diam^2/16 in place of diam^2": worst_share(sharp / 16),
        "a quarter of diam^2 at every J": worst_share(
            curvature_bound(success, diameter) / 4
        ),
    },
    outcome="holds-sharper",
    printed="Lemma 3.1: at most 4 X^2 V, X the spectral norm of the features",
)

# %%
rare = 1e-6
two_arms = (
    np.array([[logit(rare), 0.0]]),
    np.eye(2)[None],
    np.array([[1.0, 0.0]]),
    np.zeros((1, 2)),
)
extreme = np.linalg.norm(numerical_hessian(*two_arms)[0], 2)
spectral = np.linalg.norm(np.eye(2), 2)
share = extreme / (2 * spectral**2 * rare * (1 - rare))
ledger.check(
    "4-bandit-curvature-constant",
    "two arms with unit features reach 2 X^2 sigma^2 as J -> 0 (share of it)",
    testbed="bandit",
    predicted=1.0,
    measured=share,
    tolerance=1e-5,
    sabotages={"4 X^2 sigma^2, as printed": share / 2},
    outcome="holds-sharper",
    printed="Lemma 3.1 has 4 X^2 V",
)

# %% tags=["hide-input"]
grid = np.linspace(0, 1, 401)
fig, axes = figures.panels(columns=2, height=3.1)
for row, scale in enumerate((1.0, success * (1 - success))):
    axes[row].scatter(
        success, norm / diameter**2 / (success * (1 - success)) * scale, s=4
    )
scaled = (np.ones(401), grid * (1 - grid))
for ax, scale in zip(axes, scaled, strict=True):
    ax.plot(
        grid,
        curvature_constant(grid) * scale,
        **figures.PREDICTION,
        label=r"sharp bound $c(J)$",
    )
    ax.plot(grid, scale, color="grey", linestyle=":", label="constant 1")
axes[0].set(
    xlabel="success rate J",
    ylabel=r"$\|\nabla^2 J\| / (\mathrm{diam}^2\sigma^2)$",
)
axes[1].set(
    xlabel="success rate J", ylabel=r"$\|\nabla^2 J\| / \mathrm{diam}^2$"
)
axes[1].legend(fontsize="small")
figures.show(
    fig,
    "Norm of the Hessian of J for random bandits against success. Left: in units of diam^2 sigma^2, below a bound that "
    "falls from one at the ends to a quarter at one half. Right: in units of diam^2, below a bound with two maxima.",
)

# %% [markdown]
# Two things to keep.
# Far from one half the bound is $\mathrm{diam}^2\sigma^2$, and this is the paper's idea in one line: less variance, less curvature, longer step.
# But it is a bound.
# Near one half the worst curvature is four times smaller than $\mathrm{diam}^2\sigma^2$: as a function of $J$ it has two humps, which SymPy locates below, and the variance has one.

# %%
hump = [
    q for q in sp.solve(sp.diff(J * (1 - J) * (1 - 2 * J), J), J) if q < 0.5
]
print(
    "the worst curvature peaks at J =", hump[0], "=", round(float(hump[0]), 3)
)

# %% [markdown]
# ## 4.2 A family of normalisations, and where GRPO sits
#
# Divide the gradient by a power $a$ of the standard deviation: $a=0$ is REINFORCE (and Dr. GRPO, RLOO), $a=1$ is GRPO, $a=2$ divides by the variance and steps along the gap itself.
# The constant in front is chosen so that all of them take the same step at $J=\frac12$, where $2\sigma = 1$.
#
# ```{prf:theorem} The power family (4b)
# :label: thm-power-family
# Let the policy be log-linear with exact gradients, let features of different prompts be orthogonal, $C \ge \mathrm{diam}^2$, $x = 2\sigma$ and $0\le a\le 2$.
# The step $u = \frac4C\,x^{-a}\,\nabla J$ gains
#
# $$
# J(\theta+u) - J(\theta) \;\ge\; \frac2C\,|\nabla J|^2\Big[\frac1{x^2} - \Big(\frac1x - x^{1-a}\Big)^2\Big] .
# $$
#
# For $a = 0, 1, 2$ the right side is $\frac4C|\nabla J|^2$ times $1-2\sigma^2$, $\frac1{2\sigma}-\frac12$ and $\frac1{8\sigma^2}$.
# It increases with $a$, at every $\sigma$.
# The gain itself comes arbitrarily close to it for every $a < 2$; for $a=2$ it is at least $2(1-e^{-1})$ times as large.
# ```
#
# ```{prf:proof}
# Put $\tau = x^{2-a} \in (0,1]$ and $\delta^2 = |D|^2/C \le 1$.
# Then $u = \tau D/C$, and the bracket turns the claim into $J(\theta+u)-J \ge \sigma^2\,\delta^2\,\tau(1-\frac\tau2)$.
# If the odds of success grow by a factor $R$, $J$ grows by $\sigma^2 (R-1)/(1+J(R-1)) \ge \sigma^2(1-1/R)$, so it is enough that $1-1/R \ge \delta^2\tau(1-\frac\tau2)$.
#
# *Small gaps, $\delta^2\le\frac34$.*
# {prf:ref}`thm-one-step` gives $\log R \ge y = \delta^2\tau(1-\frac\tau8)$, and $1-e^{-y}\ge y-\frac{y^2}2$ exceeds the target by $\frac{\delta^2\tau^2}{2}\big[\frac34 - \delta^2(1-\frac\tau8)^2\big] \ge 0$.
#
# *Large gaps.*
# On the line along $D$, in units of $\sqrt C$, all features lie in an interval of length one; let $q$ be the distance of the wrong responses' mean from its lower end, so $q+\delta\le1$, and $s=\tau\delta$.
# Jensen for the correct responses and convexity of the exponential between the two ends for the wrong ones give $R \ge e^{s(q+\delta)}/(1+q(e^s-1))$.
# The logarithm of the right side is convex in $q$ and still falling at $q = 1-\delta < \frac1s-\frac1{e^s-1}$, so the worst case is $q=1-\delta$, where $1/R = 1-\delta+\delta e^{-s}$.
# Hence $1-1/R \ge \delta(1-e^{-s}) \ge \delta(s-\frac{s^2}2) \ge \delta^2\tau(1-\frac\tau2)$.
#
# $\tau(1-\frac\tau2)$ increases on $[0,1]$ and $\tau$ increases with $a$.
# Two arms at distance $\sqrt C$ have $1/R=e^{-\tau}$; with $J\to1$ the ratio of the two sides is $(1-e^{-\tau})/(\tau-\frac{\tau^2}2)$, which tends to one with $\tau$.
# At $a=2$, $\tau=1$: the large-gap case gives the ratio $2(1-e^{-\delta})/\delta\ge 2(1-e^{-1})$, and the small-gap case more.
# Orthogonal prompts do not feel each other's steps.
# ```
#
# We let the machine check the algebra of that proof, line by line.

# %%
tau, delta, x, C, g = sp.symbols("tau delta x C g", positive=True)
q, s, power = sp.symbols("q s a", positive=True)
bracket = x**-2 - (1 / x - x ** (1 - power)) ** 2
reduced = x**-power * (2 - x ** (2 - power))
print("bracket:", sp.simplify(sp.expand(bracket - reduced, power_base=True)))
y = delta**2 * tau * (1 - tau / 8)
margin = y - y**2 / 2 - delta**2 * tau * (1 - tau / 2)
claimed = (
    delta**2 * tau**2 / 2 * (sp.Rational(3, 4) - delta**2 * (1 - tau / 8) ** 2)
)
print("small gaps:", sp.simplify(margin - claimed))
odds_factor = sp.exp(s * (q + delta)) / (1 + q * (sp.exp(s) - 1))
worst_case = sp.simplify(1 / odds_factor.subs(q, 1 - delta))
print(
    "large gaps:",
    sp.simplify(worst_case - (1 - delta + delta * sp.exp(-s))),
)
square = ((sp.exp(s) - 1) / (1 + q * (sp.exp(s) - 1))) ** 2
print(
    "log R convex in q, its second derivative a square:",
    sp.simplify(sp.diff(sp.log(odds_factor), q, 2) - square),
)
sigma = sp.symbols("sigma", positive=True)
for value, form in (
    (0, 4 * (1 - 2 * sigma**2)),
    (1, 2 * (1 / sigma - 1)),
    (2, 1 / (2 * sigma**2)),
):
    family = 2 * bracket.subs(power, value).subs(x, 2 * sigma)
    print(f"a = {value}:", sp.simplify(family - form))

# %% [markdown]
# The derivative of $\tau(1-\frac\tau2)$ is $1-\tau\ge0$.
# In the large-gap case $s\le1$, so the turning point is at least $1 - \frac1{e-1}$ (the expression falls with $s$), which is more than $1-\sqrt{3/4}$:

# %%
turning = 1 / s - 1 / (sp.exp(s) - 1)
print(
    f"turning point {float(turning.subs(s, 1)):.3f},",
    f"largest q {1 - np.sqrt(3 / 4):.3f}",
)
places = np.linspace(0.01, 1, 500)
print(
    "falls with s:",
    bool((np.diff(sp.lambdify(s, turning)(places)) < 0).all()),
)

# %% [markdown]
# ### GRPO against REINFORCE
#
# Taking $a=1$ over $a=0$:
#
# ```{prf:corollary} GRPO's guarantee is never the smaller one
# :label: thm-grpo-reinforce
# The ratio of the guarantees is $\dfrac{1-\sigma}{2\sigma(1-2\sigma^2)} \ge 1$ for every $\sigma\in(0,\frac12]$, with equality at $\frac12$ only, because
#
# $$
# 4\sigma^3 - 3\sigma + 1 = (2\sigma-1)^2(\sigma+1) .
# $$
# ```
#
# This is pointwise: it asks nothing of the average $\sigma$.
# The paper's condition, a mean of $\sigma$ below $\frac38$, belongs to its own bounds at its own step sizes.

# %%
cubic = 4 * sigma**3 - 3 * sigma + 1
print("factors:", sp.factor(cubic))
ratio = (1 - sigma) / (2 * sigma * (1 - 2 * sigma**2))
excess = sp.simplify((ratio - 1) * 2 * sigma * (1 - 2 * sigma**2) - cubic)
print("ratio - 1, over its positive denominator, minus the cubic:", excess)
deviations = np.concatenate([np.geomspace(1e-9, 0.49, 4000), [0.5]])
ratios = guaranteed_gain_ratio(deviations)
ledger.check(
    "4-none-grpo-over-reinforce",
    "GRPO's guarantee over REINFORCE's, at every standard deviation (least)",
    testbed="none",
    predicted=1.0,
    relation="at least",
    measured=float(ratios.min()),
    tolerance=1e-12,
    sabotages={"arms exchanged": float((1 / ratios).min())},
    outcome="holds-sharper",
    printed="GRPO's bound is the better one when the mean of sigma is below 3/8",
)

# %% tags=["hide-input"]
POWERS = np.array([0.0, 0.5, 1.0, 1.5, 2.0])
deviations = np.linspace(0.02, 0.5, 300)
fig, axes = figures.panels(columns=2, height=3.4)
at_deviation = 0.5 * (1 + np.sqrt(1 - 4 * deviations**2))
for value in POWERS:
    bound = guaranteed_gain(at_deviation, value, 1.0, 2.0)
    label = {0: "0: REINFORCE", 1: "1: GRPO", 2: "2: the gap"}.get(
        value, f"{value:g}"
    )
    axes[0].plot(
        deviations,
        bound,
        label=label,
        linewidth=3 if value == 1 else 1.4,
    )
axes[0].set(
    xlabel=r"standard deviation $\sigma$ of the reward",
    ylabel=r"guaranteed gain $\times\, C/(4|\nabla J|^2)$",
    yscale="log",
)
axes[0].legend(title="power a", fontsize="x-small", title_fontsize="small")
rates = np.linspace(0.003, 0.997, 400)
for group_size in (4, 16, None):
    weight = power_gain(rates, 1, group_size) / power_gain(rates, 0, group_size)
    even = power_gain(0.5, 1, group_size) / power_gain(0.5, 0, group_size)
    axes[1].plot(
        rates,
        weight / even,
        label="no limit" if group_size is None else f"G = {group_size}",
        **(figures.PREDICTION if group_size is None else {}),
    )
axes[1].set(
    xlabel="success rate J",
    ylabel="GRPO's weight over the one at J = 1/2",
    ylim=(0.8, 4.5),
)
axes[1].legend(fontsize="small")
figures.show(
    fig,
    "Left: the guaranteed gain of one step against the standard deviation for five powers; all meet at one half, and "
    "towards small deviations the larger power guarantees more, GRPO in the middle. Right: the extra weight GRPO gives "
    "a prompt against its success rate; in groups of 4 it hardly exceeds one, in groups of 16 it stops at two.",
)

# %% [markdown]
# The left panel is the power family: GRPO is the half-way house between no normalisation and the gap.
# The right panel is the fine print that section 4.4 works out: in a finite group GRPO does not do what $1/\sigma$ says.
#
# ### The guarantee on random bandits
#
# Five powers each; the worst ratio of the gain to its guarantee.


# %%
def gains_and_guarantees(drawn, sign=1.0, stretch=1.0):
    """Gain of each power's step, stretched, or multiplied by the power if sign is -1, and the power's guarantee."""
    odds, gap = bandit.log_odds_and_gap(*drawn)
    J, diameter = expit(odds), bandit.feature_diameter(drawn[1])
    gradient = (J * expit(-odds))[:, None] * gap
    gain, bound, x = [], [], 2 * np.sqrt(J * expit(-odds))
    for a in POWERS:
        step = stretch * power_step(J, a, diameter) * x ** ((1 - sign) * a)
        theta = drawn[0] + step[:, None] * gradient
        after, _ = bandit.log_odds_and_gap(theta, *drawn[1:])
        rise = np.expm1(after - odds)
        gain.append(J * expit(-odds) * rise / (1 + J * rise))
        size = np.linalg.norm(gradient, axis=1)
        bound.append(guaranteed_gain(J, a, size, diameter))
    return np.array(gain), np.array(bound)


def worst_ratio(**variant):
    gain, bound = gains_and_guarantees(population, **variant)
    clear = bound > 1e-9  # below, the rounding of log-odds is of its size
    return float((gain / bound)[clear].min())


print(f"{population[0].shape[0] * len(POWERS)} steps")
ledger.check(
    "4-bandit-guaranteed-gain",
    "each power's step gains at least what it guarantees (worst gain over guarantee)",
    testbed="bandit",
    predicted=1.0,
    relation="at least",
    measured=worst_ratio(),
    tolerance=1e-6,
    sabotages={
        "anti-normalised: multiplied by the power": worst_ratio(sign=-1.0),
        "diam^2/16 in place of diam^2": worst_ratio(stretch=16.0),
    },
    outcome="holds-sharper",
    printed="bounds for REINFORCE and GRPO at smaller steps (Theorem 3.2)",
)

# %% [markdown]
# Where the variance is tiny the two terms of the bracket cancel and float64 has nothing left; the library therefore evaluates the equal form $x^{-a}(2 - x^{2-a})$ from the proof.

# %%
tiny = 1e-20
x_tiny = 2 * np.sqrt(tiny)
kept = guaranteed_gain(tiny, 0, tiny, 1.0) / tiny**2 / 2
print("bracket as it stands:", x_tiny**-2 - (1 / x_tiny - x_tiny) ** 2)
print("bracket as evaluated:", round(float(kept), 12))

# %% [markdown]
# So the same again in 400 digits, with the bracket as it stands, for variances down to $10^{-40}$ and below; there the bound is close to what two arms gain.


# %%
def digits(case, a, sign=1):
    """Gain over guarantee, and the variance, in the precision of mpmath."""
    theta, features, reward, offset = (
        mpmath.matrix(x.tolist()) if x.ndim == 2 else list(map(mpmath.mpf, x))
        for x in case
    )
    rows = [list(features[i, :]) for i in range(features.rows)]

    def policy(at):
        w = [
            mpmath.exp(mpmath.fdot(at, f) + o)
            for f, o in zip(rows, offset, strict=True)
        ]
        total = mpmath.fsum(w)
        good = mpmath.fdot(w, reward) / total
        bad = (
            mpmath.fsum(v for v, r in zip(w, reward, strict=True) if not r)
            / total
        )
        return good, bad, [v / total for v in w]

    J, failure, prob = policy(theta)
    pull = [
        v * (failure if r else -J) for v, r in zip(prob, reward, strict=True)
    ]
    gradient = [mpmath.fdot(pull, column) for column in zip(*rows, strict=True)]
    squares = [
        mpmath.fsum((v - u) ** 2 for v, u in zip(f, h, strict=True))
        for f, h in itertools.combinations(rows, 2)
    ]
    C, x = max(squares), 2 * mpmath.sqrt(J * failure)
    step = 4 / C * x ** (-sign * mpmath.mpf(a))
    moved = [v + step * d for v, d in zip(theta, gradient, strict=True)]
    good, bad, _ = policy(moved)
    gain = good - J if J < 0.5 else failure - bad
    bound = 2 / C * mpmath.fdot(gradient, gradient)
    bound *= x**-2 - (1 / x - x ** (1 - mpmath.mpf(a))) ** 2
    return float(gain / bound), float(mpmath.log10(J * failure))


spreads = (3.0, 30.0, 200.0)
cases = [
    case
    for spread in spreads
    for case in zip(
        *random_bandits(digit_instances, rng, spread, 4, 2), strict=True
    )
]
apart = (np.zeros(1), np.array([[0.0], [1.0]]), np.array([0.0, 1.0]))
cases += [(*apart, np.array([0.0, depth])) for depth in (5.0, 40.0, 90.0)]
with mpmath.workdps(400):
    found = [(a, *digits(case, a)) for case in cases for a in POWERS]
    wrong_way = [digits(case, 1.0, sign=-1)[0] for case in cases]
found = np.array([row for row in found if row[2] > -150])

# %%
print(
    f"{len(found)} steps, log10 of the variance {found[:, 2].min():.0f}", end=""
)
print(f" to {found[:, 2].max():.1f}")
ledger.check(
    "4-bandit-guaranteed-gain-digits",
    "in 400 digits, at any variance: worst gain over guarantee, powers below 2",
    testbed="bandit",
    predicted=1.0,
    relation="at least",
    measured=float(found[found[:, 0] < 2, 1].min()),
    tolerance=1e-12,
    sabotages={"GRPO's step multiplied by sigma": min(wrong_way)},
    outcome="holds-sharper",
    printed="not examined",
)

# %%
at_two = float(found[found[:, 0] == 2, 1].min())
ledger.check(
    "4-bandit-gap-step-reserve",
    "dividing by the variance, the worst gain over guarantee is 2(1 - 1/e)",
    testbed="bandit",
    predicted=2 * (1 - np.exp(-1)),
    measured=at_two,
    tolerance=1e-9,
    sabotages={"1, as for the smaller powers": float(found[:, 1].min())},
    outcome="holds-sharper",
    printed="not examined",
)

# %% [markdown]
# ## 4.3 A bound that says less than was printed
#
# Sum the guarantee over a run and the paper's convergence theorem should come out.
# It nearly does.
#
# ```{prf:theorem} Weighted sum and smallest gradient (4c)
# :label: thm-smallest-gradient
# For one log-linear prompt, $C\ge\mathrm{diam}^2$ and steps $\theta_{k+1} = \theta_k + \nabla J_k/(C\sigma_k)$,
#
# $$
# \sum_{k<T}\frac{|\nabla J_k|^2}{\sigma_k} \le \frac{4C}3\,(J_T - J_0), \qquad \min_{k<T} |\nabla J_k|^2 \le \frac{4C}{3}\,(J_T-J_0)\,\frac1T\cdot\frac1T\sum_{k<T}\sigma_k .
# $$
# ```
#
# ```{prf:proof}
# This is the step of {prf:ref}`thm-power-family` with $\tau = x/2$ in place of $x$; the proof used $\tau\le1$ only, so each step gains at least $\sigma^2\delta^2\tau(1-\frac\tau2) = \frac{|\nabla J|^2}{C\sigma}(1-\frac\sigma2) \ge \frac34\,\frac{|\nabla J|^2}{C\sigma}$.
# Add up.
# The smallest squared gradient is at most the weighted sum over $\sum 1/\sigma_k$, and $T/\sum\sigma_k^{-1} \le \frac1T\sum\sigma_k$.
# ```
#
# With $C = 2X^2$ this is the paper's step $1/(2X^2)$ with $\sigma$ as the divisor, and $\frac{4C}3$ is $\frac83X^2$.
# Its Theorem 3.2 prints the *sum* of $|\nabla J_k|^2$ on the left and the mean of $\sigma$ on the right.
# (We infer the constant from its proof, and read $J_T-J_0$ as one, which is the most generous reading.)
# That cannot be: the left side never decreases with $T$, and the right side goes to zero whenever the run succeeds.
# Two arms, one prompt, $X = 1$, starting at even odds:


# %%
def two_arm_run(count):
    """Squared gradient and standard deviation along the paper's steps, two arms with unit features."""
    z, squared, std = 0.0, np.empty(count), np.empty(count)
    for k in range(count):
        std[k] = 0.5 / np.cosh(z / 2)
        squared[k] = 2 * std[k] ** 4  # |grad J|^2 = sigma^4 |D|^2, |D|^2 = 2
        z += std[k]  # grad J / (2 sigma) moves the log-odds by sigma |D|^2 / 2
    return squared, std


squared, std = two_arm_run(10_000)
LENGTHS = (100, 1000, 10_000)
printed_right = {T: 8 / 3 * std[:T].mean() for T in LENGTHS}
for T in LENGTHS:
    print(
        f"T = {T:6d}: sum {squared[:T].sum():.4f},",
        f"printed bound {printed_right[T]:.4f},",
        f"T x smallest {T * squared[:T].min():.1e}",
    )
ledger.check(
    "4-bandit-printed-sum-bound",
    "two arms: the sum of squared gradients over the bound printed for it (least of three lengths)",
    testbed="bandit",
    predicted=1.0,
    relation="at least",
    measured=min(squared[:T].sum() / printed_right[T] for T in LENGTHS),
    sabotages={
        "T times the smallest in place of the sum": min(
            T * squared[:T].min() / printed_right[T] for T in LENGTHS
        )
    },
    outcome="contradicted",
    printed="Theorem 3.2: the sum is bounded by a constant times the mean of sigma",
)


# %%
def along_paper_steps(drawn, count):
    """Squared gradients, standard deviations and success along steps grad J / (C sigma), all bandits at once."""
    theta, C = drawn[0].copy(), bandit.feature_diameter(drawn[1]) ** 2
    rows = []
    for _ in range(count + 1):
        odds, gap = bandit.log_odds_and_gap(theta, *drawn[1:])
        std = np.sqrt(expit(odds) * expit(-odds))
        gradient = (std**2)[:, None] * gap
        rows.append(((gradient**2).sum(1), std, expit(odds)))
        theta = theta + gradient / (C * std)[:, None]
    squared, std, J = (np.array(column) for column in zip(*rows, strict=True))
    return squared[:-1] / C, std[:-1], J[-1] - J[0]


few = tuple(x[:200] for x in population)
squared, std, gained = along_paper_steps(few, 200)
weighted = float(((squared / std).sum(0) / gained).max())
smallest = 200 * squared.min(0) / (std.mean(0) * gained)
ledger.check(
    "4-bandit-smallest-gradient-bound",
    "200 steps: weighted sum and smallest gradient over 4C/3 of the gain (largest share)",
    testbed="bandit",
    predicted=1.0,
    relation="at most",
    measured=max(weighted, float(smallest.max())) / (4 / 3),
    tolerance=1e-9,
    sabotages={
        "the plain sum over the mean of sigma": float(
            (squared.sum(0) / (std.mean(0) * gained)).max()
        )
        / (4 / 3),
        "diam^2/16 in place of diam^2": 16 * weighted / (4 / 3),
    },
    outcome="holds-with-limits",
    printed="Theorem 3.2 for the sum; its proof gives the minimum",
)

# %% [markdown]
# ## 4.4 Times, and what a finite group leaves of them
#
# Two arms show the speed in closed form.
# Let $c$ be the squared distance of their features times the learning rate, $z$ the log-odds of success; the update along $\nabla J/\sigma^a$ is the flow $\dot z = c\,\sigma^{2-a}$.
#
# ```{prf:theorem} Times of the power family (4d)
# :label: thm-power-times
# From log-odds $0$ to $z$ the flow takes
#
# $$
# \frac{2z + 2\sinh z}{c}, \qquad \frac{4\sinh(z/2)}{c}, \qquad \frac zc \qquad\text{for } a = 0, 1, 2,
# $$
#
# and twice that from $-z$ to $z$.
# The failure rate $1-J$ then falls as $1/t$, as $1/t^2$ and exponentially.
# ```
#
# ```{prf:proof}
# $\sigma^{-2} = 2 + 2\cosh z$ and $\sigma^{-1} = 2\cosh(z/2)$; integrate.
# For large $z$, $1-J\approx e^{-z}$, while the times grow as $e^z$, $e^{z/2}$ and $z$.
# ```

# %%
z = sp.symbols("z", real=True)
deviation = 1 / (2 * sp.cosh(z / 2))
odds_form = sp.exp(z) / (1 + sp.exp(z)) ** 2
print("sigma^2:", sp.simplify((odds_form - deviation**2).rewrite(sp.exp)))
for value, time in (
    (0, 2 * z + 2 * sp.sinh(z)),
    (1, 4 * sp.sinh(z / 2)),
    (2, z),
):
    rest = sp.diff(time, z) * deviation ** (2 - value) - 1
    print(
        f"a = {value}: speed x dt/dz - 1 =", sp.simplify(rest.rewrite(sp.exp))
    )

# %% [markdown]
# The same against the flow of a real two-armed bandit with random features, integrated numerically.

# %%
pair = rng.standard_normal((1, 2, 3))
rate = float(((pair[0, 0] - pair[0, 1]) ** 2).sum())
armed = bandit.SoftmaxBandit(np.zeros(3), pair, [[1, 0]], [[-3.0, 0.0]])


def log_odds_after(time, value):
    def velocity(_, theta):
        success, gradient = armed.at(theta).exact()
        return gradient * (success * (1 - success)) ** (-value / 2)

    path = solve_ivp(
        velocity, (0, time), armed.theta, "DOP853", rtol=1e-10, atol=1e-12
    )
    return logit(armed.at(path.y[:, -1]).exact()[0])


def time_error(power_of):
    return max(
        abs(
            log_odds_after(two_arm_time(power_of(a), -3.0, 4.0, rate), a) / 4
            - 1
        )
        for a in (0, 1, 2)
    )


ledger.check(
    "4-bandit-two-arm-times",
    "the flow of a bandit arrives when the closed form says (largest relative error of the log-odds)",
    testbed="bandit",
    predicted=0.0,
    measured=time_error(lambda a: a),
    tolerance=1e-6,
    sabotages={
        "sigma called sigma^2: the time of the next power": time_error(
            lambda a: min(a + 1, 2)
        )
    },
    printed="not stated",
)

# %% [markdown]
# ### Finite groups
#
# GRPO does not know $\sigma$.
# It divides by the deviation of $G$ rewards, and groups whose rewards are all equal contribute nothing.
#
# ```{prf:theorem} Gain of a power in a finite group (4d)
# :label: thm-power-gain
# With $\hat p$ the share of correct responses in a group and $v = \hat p(1-\hat p)$, mean-removed rewards divided by $v^{a/2}$ have the expected update
#
# $$
# \mathbb E\big[v^{1-a/2}\,\mathbf 1\{v>0\}\big]\,D .
# $$
#
# At $G=2$ and $G=3$ all powers are one algorithm up to a constant.
# As $J\to 0$ or $1$ the gain is proportional to $\sigma^2$ for every $a$ and $G$: failure falls as $1/t$ again, and the weight of GRPO over that of $a=0$, which is $1/\sigma$ without limit, stops at $G/\sqrt{G-1}$.
# ```
#
# ```{prf:proof}
# Given the rewards, the correct responses have mean score $\mathbb E_+[s]$ and total advantage $G\,v^{1-a/2}$, as in {prf:ref}`thm-gain`.
# With two or three responses $v$ has one non-zero value, $\frac14$ or $\frac29$.
# Near the ends only groups with a single odd response count: their probability is $G\,\sigma^2$ to first order, and their $v$ is $(G-1)/G^2$.
# ```
#
# Every pattern of rewards in groups of up to nine, through the library's own advantages:


# %%
def pattern_gain(J, estimator, group_size):
    """Gain from all 2^G patterns of rewards."""
    patterns = np.array(list(itertools.product((0, 1), repeat=group_size)))
    count = patterns.sum(1)
    prob = J**count * (1 - J) ** (group_size - count)
    pull = (group_advantages(patterns, estimator) * patterns).sum(1)
    return prob @ pull / group_size


ESTIMATOR = {0: "dr_grpo", 1: "grpo", 2: "grpo_variance"}


def gain_error(gain, sizes=(2, 3, 5, 9)):
    table = [
        (pattern_gain(J, ESTIMATOR[a], G), gain(J, a, G))
        for J in (1e-3, 0.1, 0.4, 0.8)
        for a in ESTIMATOR
        for G in sizes
    ]
    measured, expected = np.array(table).T
    return float(np.abs(measured / expected - 1).max())


ledger.check(
    "4-bandit-power-gain",
    "over all patterns of rewards, the mean update is E[v^(1-a/2) 1{v>0}] times the gap (largest relative error)",
    testbed="bandit",
    predicted=0.0,
    measured=gain_error(power_gain),
    tolerance=1e-9,
    sabotages={
        "the gain of an infinite group": gain_error(
            lambda J, a, G: power_gain(J, a)
        ),
        "GRPO's and no normalisation exchanged": gain_error(
            lambda J, a, G: power_gain(J, {0: 1, 1: 0, 2: 2}[a], G)
        ),
    },
)


# %%
def spread_of_arms(group_size):
    """How far GRPO's advantages are from a constant multiple of those without std, over all patterns."""
    patterns = np.array(list(itertools.product((0, 1), repeat=group_size)))
    bare = group_advantages(patterns, "dr_grpo")
    rows = bare.any(1)
    worst = 0.0
    for estimator in ("grpo", "grpo_variance"):
        quotient = group_advantages(patterns, estimator)[rows] / bare[rows]
        worst = max(worst, float(np.ptp(quotient) / quotient.min()))
    return worst


ledger.check(
    "4-bandit-groups-of-two-and-three",
    "groups of two and of three: none, std and variance are one algorithm up to a constant (spread of the ratio)",
    testbed="bandit",
    predicted=0.0,
    measured=max(spread_of_arms(2), spread_of_arms(3)),
    tolerance=1e-12,
    sabotages={"groups of four": spread_of_arms(4)},
    outcome="holds-sharper",
    printed="not stated; the paper assumes the exact sigma",
)

# %%
SIZES = (4, 8, 16)


def boost(J, group_size):
    """Weight GRPO gives a prompt over the one without std, relative to a prompt at even odds."""
    gains = [
        pattern_gain(rate, ESTIMATOR[a], group_size)
        for rate in (J, 0.5)
        for a in (1, 0)
    ]
    return gains[0] / gains[1] / (gains[2] / gains[3])


boosts = {G: boost(1e-7, G) for G in SIZES}
limits = {
    G: G / np.sqrt(G - 1) * power_gain(0.5, 0, G) / power_gain(0.5, 1, G)
    for G in SIZES
}
print(
    "largest boost:", ", ".join(f"G = {G}: {b:.2f}" for G, b in boosts.items())
)
ledger.check(
    "4-bandit-boost-saturates",
    "GRPO's boost of rare outcomes stops at G/sqrt(G-1) over its value at even odds (largest relative error)",
    testbed="bandit",
    predicted=0.0,
    measured=max(abs(boosts[G] / limits[G] - 1) for G in SIZES),
    tolerance=1e-5,
    sabotages={
        "1/sigma, the boost of an infinite group": max(
            abs(boosts[G] * 2 * np.sqrt(1e-7) - 1) for G in SIZES
        )
    },
    outcome="holds-with-limits",
    printed="the boost is 1/sigma",
)


# %%
def flow_time(z, value, group_size):
    """Time from even odds to log-odds z for two arms, the rate chosen so that all powers start alike."""
    even = power_gain(0.5, value, group_size)
    return quad(
        lambda y: even / power_gain(expit(y), value, group_size),
        0,
        z,
        limit=200,
    )[0]


def tail_slope(value, group_size):
    """d log(1 - J) / d log t where one response in e^12 fails."""
    times = [flow_time(z, value, group_size) for z in (12.0, 14.0)]
    return np.log(expit(-14.0) / expit(-12.0)) / np.log(times[1] / times[0])


slopes = {(a, G): tail_slope(a, G) for a in (0, 1) for G in (4, 16, None)}
for (a, G), slope in slopes.items():
    print(f"power {a}, G {G or 'without limit'}: failure ~ t^{slope:.2f}")
ledger.check(
    "4-bandit-failure-tail",
    "in groups of 16 failure under GRPO falls as 1/t again (exponent)",
    testbed="bandit",
    predicted=-1.0,
    measured=slopes[1, 16],
    tolerance=0.02,
    sabotages={"infinite-G gain in place of finite G": slopes[1, None]},
    outcome="holds-with-limits",
    printed="a rate with the exact sigma",
)

# %% tags=["hide-input"]
fig, axes = figures.panels(columns=2, height=3.2)
places = np.linspace(0, 12, 60)
for column, group_size in enumerate((None, 16)):
    for value in (0, 1, 2):
        times = [flow_time(z, value, group_size) for z in places]
        axes[column].plot(times[1:], expit(-places[1:]), label=f"a = {value}")
    axes[column].set(
        xlabel="time (same start for all)",
        ylabel="failure rate 1 - J",
        xscale="log",
        yscale="log",
        title="exact sigma" if group_size is None else f"G = {group_size}",
        xlim=(0.1, 3e4),
    )
    axes[column].legend(fontsize="small")
figures.show(
    fig,
    "Failure rate of two arms over time for powers 0, 1 and 2, from even odds. Left, with the exact deviation: slopes "
    "of minus one, minus two, and a plunge. Right, in groups of 16: all three end in the slope minus one.",
)

# %% [markdown]
# ### Heterogeneous prompts: the predicted speed-up is the measured one
#
# Sixty-four two-armed prompts with orthogonal features, log-odds spread evenly from $-3$ to $3$.
# All arms have the learning rate that moves a prompt at even odds equally fast.
# The prediction integrates $\dot z_q = \text{rate}\times\mathbb E[v^{1-a/2}]$ for each prompt and asks when mean success reaches $0.95$; nothing is fitted.
# The measurement draws groups and takes small steps.
# One more arm divides all prompts by *one* deviation, pooled over the batch, which TRL calls `scale_rewards="batch"`.

# %%
STARTS = np.linspace(-3, 3, 64)
ARMS = (0, 1, 2, "batch")
TARGET = 0.95


def mean_gain(success, arm, group_size):
    """Expected update over the gap, for prompts along the last axis."""
    if arm == "batch":
        bare = power_gain(success, 0, group_size)
        return bare / np.sqrt(bare.mean(-1, keepdims=True))
    return power_gain(success, arm, group_size)


def even_gain(arm, group_size):
    return float(np.ravel(mean_gain(np.array([0.5]), arm, group_size))[0])


def crossing(times, means, level=TARGET):
    """When a curve first exceeds a level, by linear interpolation; NaN if never."""
    above = np.flatnonzero(np.asarray(means) > level)
    if len(above) == 0 or above[0] == 0:
        return np.nan
    k = above[0]
    share = (level - means[k - 1]) / (means[k] - means[k - 1])
    return times[k - 1] + share * (times[k] - times[k - 1])


def predicted_time(arm, group_size, dt=0.02, longest=40.0):
    even, z = even_gain(arm, group_size), STARTS.copy()
    times = np.arange(0, longest, dt)
    means = [expit(z).mean()]
    for _ in times[1:]:
        slope = mean_gain(expit(z), arm, group_size) / even
        middle = expit(z + dt / 2 * slope)
        z = z + dt * mean_gain(middle, arm, group_size) / even
        means.append(expit(z).mean())
    return crossing(times, means)


# %%
def sampled_times(arm, group_size, rng, dt=0.02, longest=40.0):
    """Times of ``bandit_seeds`` runs that draw the groups; a power of -1 multiplies by the deviation."""
    z = np.repeat(STARTS[None], bandit_seeds, 0)
    even = even_gain(max(arm, 0) if arm != "batch" else arm, group_size)
    times, means = np.arange(0, longest, dt), []
    for _ in times:
        means.append(expit(z).mean(1))
        if (means[-1] > TARGET).all():
            break
        share = rng.binomial(group_size, expit(z)) / group_size
        v = share * (1 - share)
        power = 1.0 if arm == "batch" else 1 - arm / 2
        pull = np.where(v > 0, np.where(v > 0, v, 1) ** power, 0)
        if arm == "batch":
            pull = pull / np.sqrt(np.maximum(v.mean(1, keepdims=True), 1e-9))
        z = z + dt * pull / even
    return np.array([crossing(times, run) for run in np.array(means).T])


SPEED_SIZES = (2, 4, 16)
predicted = {
    (arm, G): predicted_time(arm, G) for arm in ARMS for G in SPEED_SIZES
}
limits_of = {arm: predicted_time(arm, None) for arm in ARMS}
unlimited = {(arm, G): limits_of[arm] for arm, G in predicted}
measured = {(arm, G): sampled_times(arm, G, rng) for arm, G in predicted}
wrong_way = {(1, 16): sampled_times(-1, 16, rng)}

# %% tags=["nbval-ignore-output"]
print("time to 95%, mean of the runs (predicted); speed-up over no std")
for G in SPEED_SIZES:
    row = [
        f"{arm}: {measured[arm, G].mean():5.2f} ({predicted[arm, G]:5.2f})"
        f" x{measured[0, G].mean() / measured[arm, G].mean():.2f}"
        for arm in ARMS
    ]
    print(f"G = {G:2d}  " + "   ".join(row))


def largest_departure(expected, found=measured, keys=None):
    return max(
        abs(np.mean(found[key]) / expected[key] - 1) for key in keys or expected
    )


ledger.check(
    "4-bandit-speed-up",
    "64 heterogeneous prompts: mean time to 95% over the finite-G flow, four arms, G = 2, 4, 16 (largest departure from 1)",
    testbed="bandit",
    kind="training",
    predicted=0.0,
    measured=largest_departure(predicted),
    tolerance=0.1,
    sabotages={
        "infinite-G gain in place of finite G": largest_departure(unlimited),
        "anti-normalised arm": largest_departure(
            predicted, wrong_way, [(1, 16)]
        ),
    },
    outcome="holds-with-limits",
    printed="GRPO is faster; no group size in the theorem",
)

# %% [markdown]
# Three readings of that table.
# In groups of two the arms coincide, and in groups of four dividing by each prompt's deviation gains next to nothing: the deviation of four rewards is too coarse.
# In groups of sixteen it does gain.
# And one deviation for the whole batch gains at *every* group size, and here more than the prompt's own, because a pooled deviation does not saturate: at matched rates much of the benefit is a step that grows as training proceeds.

# %% tags=["nbval-ignore-output"]
pooled = float(measured[1, 4].mean() / measured["batch", 4].mean())
ledger.check(
    "4-bandit-batch-std-small-groups",
    "groups of four: time with each prompt's std over time with one std for the batch",
    testbed="bandit",
    kind="training",
    predicted=predicted[1, 4] / predicted["batch", 4],
    measured=pooled,
    tolerance=0.15,
    sabotages={
        "infinite-G gain in place of finite G": unlimited[1, 4]
        / unlimited["batch", 4],
        "no std in place of the batch's": float(
            measured[1, 4].mean() / measured[0, 4].mean()
        ),
    },
    printed="not compared",
)

# %% [markdown]
# ## 4.5 When the division hurts
#
# So far gradients were exact and prompts did not meet.
# Both matter.
#
# ```{prf:theorem} Best weight of a group (4e)
# :label: thm-group-weight
# Let the scores of correct and of wrong responses have the same covariance, with trace $k|D|^2$, and let the curvature be proportional to $\sigma^2$.
# Given rewards with $v=\hat p(1-\hat p)$, the mean-removed update of a group of $G$ has mean $vD$ and variance $vk|D|^2/G$, and the weight that maximises its expected gain to second order is proportional to
#
# $$
# \frac{1}{v + k/G} .
# $$
# ```
#
# ```{prf:proof}
# $\frac1G\sum_i(r_i-\hat p)s_i$ has mean $vD$, and variance $\frac1{G^2}\sum_i(r_i-\hat p)^2\,k|D|^2 = \frac vG k|D|^2$.
# With weight $\omega$ and curvature $C\sigma^2$ the expected gain is $\sigma^2\big[\omega v|D|^2 - \frac C2\omega^2(v^2+\frac{vk}G)|D|^2\big]$, largest at $\omega = \frac1{C(v+k/G)}$.
# ```
#
# So *without* noise the best weight is $1/v$, power two; with much noise it is constant, power zero; GRPO's $1/\sqrt v$ is right when $k/G$ is about $v$.
# Over all groups of three and five of a bandit with equal covariances:


# %%
def equal_covariances(angle):
    """Two correct and two wrong arms whose features differ within a class by the same vector."""
    centre, within = np.random.default_rng(angle).standard_normal((2, 2, 3))
    arms = [c + side * within[0] for c in centre for side in (0.8, -0.8)]
    return bandit.SoftmaxBandit(
        np.zeros(3), [arms], [[1, 1, 0, 0]], [[0.4, 0.4, 0, 0]]
    ).enumerate()


def weight_error(weigh, sizes=(3, 5)):
    ratios = []
    for size, angle in itertools.product(sizes, range(4)):
        r = equal_covariances(seed + angle)
        gap, noise = gradient_gap(r), within_class_noise(r)
        groups = np.array(list(itertools.product(range(4), repeat=size)))
        prob, reward = r.prob[groups].prod(1), r.reward[groups]
        pull = reward - reward.mean(1, keepdims=True)
        update = np.einsum("og,ogd->od", pull, r.score[groups]) / size
        for correct in range(1, size):
            given = prob * (reward.sum(1) == correct)
            given /= given.sum()
            mean, energy = given @ update, given @ (update**2).sum(1)
            v = correct * (size - correct) / size**2
            ratios.append((mean @ gap) / energy / weigh(v, noise, size))
    ratios = np.array(ratios)
    return float(np.ptp(ratios) / ratios.mean())


ledger.check(
    "4-bandit-best-group-weight",
    "over all groups of 3 and 5: the best weight over 1/(v + k/G) is constant (relative spread)",
    testbed="bandit",
    predicted=0.0,
    measured=weight_error(optimal_group_weight),
    tolerance=1e-9,
    sabotages={
        "noise not divided by the group size": weight_error(
            lambda v, k, G: optimal_group_weight(v, k * G, G)
        ),
        "GRPO's 1/sigma": weight_error(lambda v, k, G: v**-0.5),
    },
    outcome="holds-sharper",
    printed="not stated",
)

# %% [markdown]
# ### Overlap
#
# The second reason is that prompts share parameters.
# With $n$ prompts whose gradients have random cosines, $o = n\,\mathbb E[\cos^2]$ measures how much of the curvature a prompt's step meets belongs to *others*, and that part does not shrink with its own variance.
# On average over the signs of the cosines the expected gain to second order is $\sum_q \omega_q v_q^2 - \frac12\sum_q \omega_q^2 v_q(v_q + \frac kG)(v_q + o\bar v)$ in suitable units, so that
#
# ```{math}
# :label: eq-overlap-weight
# \omega_q \propto \frac{v_q}{(v_q + k/G)(v_q + o\,\bar v)} .
# ```
#
# The local power of that weight runs from two over one and zero to below zero as noise and overlap grow: `best_power` in the library.
#
# We test it on an exact bandit in its *quadratic regime*.
# Each of 64 prompts has two correct and two wrong arms on a line, at distance one between the classes and spread within them; the lines are random directions in as many dimensions as the overlap asks for.
# Success rates lie between $0.95$ and $0.9999$, where the curvature $\sigma^2(2J-1)$ is negative and close to $-\sigma^2$.
# For every power the step length is optimised, on the exact gradient and Hessian, with the noise of large groups taken exactly.

# %%
TRIED = np.linspace(-2, 3, 101)
PROMPTS = 64
OVERLAPS = (0.0, 0.0625, 0.25, 1.0, 4.0, 16.0)


def one_draw(overlap, rng, low=0.95, high=0.9999):
    """Cosines between the lines [n, n] and success rates [n] of one set of prompts."""
    if overlap == 0:
        cosines = np.eye(PROMPTS)
    else:
        shape = (PROMPTS, round(PROMPTS / overlap))
        lines = rng.standard_normal(shape)
        lines /= np.linalg.norm(lines, axis=1, keepdims=True)
        cosines = lines @ lines.T
    return cosines, expit(rng.uniform(logit(low), logit(high), PROMPTS))


def best_measured(overlap, noise, rng, draws):
    """The power whose expected second-order gain is largest, over sets of prompts."""
    slope = curvature = 0.0
    for cosines, success in (one_draw(overlap, rng) for _ in range(draws)):
        v = success * (1 - success)
        weight = v[:, None] ** (-TRIED / 2)
        mean = cosines @ (weight * v[:, None])
        spread = cosines**2 @ (weight**2 * v[:, None] * noise)
        slope = slope + v @ mean
        curvature = curvature + (v * (2 * success - 1)) @ (mean**2 + spread)
    return TRIED[np.argmax(slope**2 / curvature)]


def best_predicted(overlap, noise, rng, draws):
    """The same from the averaged formula, which knows the variances and the overlap only."""
    slope = curvature = 0.0
    for _, success in (one_draw(0.0, rng) for _ in range(draws)):
        v = (success * (1 - success))[:, None]
        weight = v ** (-TRIED / 2)
        slope = slope + (weight * v**2).sum(0)
        felt = weight**2 * v * (v + noise) * (v + overlap * v.mean())
        curvature = curvature + felt.sum(0)
    return TRIED[np.argmax(slope**2 / curvature)]


# %% tags=["nbval-ignore-output"]
NOISES = (0.0, 0.003, 0.01, 0.03)
table = {
    (k, o): (
        best_measured(o, k, rng, dial_draws),
        best_predicted(o, k, rng, dial_draws),
    )
    for k in NOISES
    for o in OVERLAPS
}
print("best power, measured (predicted), by noise k/G (rows) and overlap o")
print(" " * 6 + "".join(f"{o:>13g}" for o in OVERLAPS))
for k in NOISES:
    cells = [f"{table[k, o][0]:5.1f} ({table[k, o][1]:4.1f})" for o in OVERLAPS]
    print(f"{k:6g}" + "".join(f"{cell:>13}" for cell in cells))
dial = {o: table[0.0, o] for o in OVERLAPS}

# %% tags=["nbval-ignore-output"]
ledger.check(
    "4-bandit-orthogonality-dial",
    "without noise, best power measured minus predicted, six overlaps from 0 to 16 (largest)",
    testbed="bandit",
    kind="training",
    predicted=0.0,
    measured=max(abs(m - f) for m, f in dial.values()),
    tolerance=0.35,
    sabotages={
        "overlap ignored": max(abs(m - 2.0) for m, _ in dial.values()),
        "the power of GRPO at every overlap": max(
            abs(m - 1.0) for m, _ in dial.values()
        ),
    },
    outcome="holds-sharper",
    printed="orthogonality is assumed (Assumption 4: non-negative products)",
)

# %% tags=["nbval-ignore-output"]
ledger.check(
    "4-bandit-std-hurts",
    "noise and overlap both large: the best power is below zero, so multiplying by the std beats dividing",
    testbed="bandit",
    kind="training",
    predicted=0.0,
    relation="at most",
    measured=table[NOISES[-1], OVERLAPS[-1]][0],
    sabotages={
        "no noise": table[0.0, OVERLAPS[-1]][0],
        "no overlap and no noise": table[0.0, 0.0][0],
    },
    outcome="holds-sharper",
    printed="normalisation helps whenever gradients are orthogonal",
)


# %% tags=["nbval-ignore-output"]
def table_error(formula):
    return max(abs(table[key][0] - formula(*key)) for key in table)


ledger.check(
    "4-bandit-noise-and-overlap",
    "best power measured minus predicted, four noises by six overlaps (largest)",
    testbed="bandit",
    kind="training",
    predicted=0.0,
    measured=table_error(lambda k, o: table[k, o][1]),
    tolerance=0.5,
    sabotages={
        "noise ignored": table_error(lambda k, o: table[0.0, o][1]),
        "overlap ignored": table_error(lambda k, o: table[k, 0.0][1]),
    },
    printed="not stated",
)

# %% [markdown]
# The dial is a statement about short steps.
# Away from the quadratic regime it fails: with success between $0.1$ and $0.9$ and the best step found by exact line search, one step is long enough for other terms to decide, and at an overlap of one the best power is still near two.


# %% tags=["nbval-ignore-output"]
def line_search_power(overlap, rng, draws, low, high):
    """The power whose best single step gains most in mean success, exactly, by line search."""
    reach, total = np.geomspace(0.05, 500, 50), 0.0
    powers = TRIED[::5]
    for cosines, success in (
        one_draw(overlap, rng, low, high) for _ in range(draws)
    ):
        move = cosines @ (success * (1 - success))[:, None] ** (1 - powers / 2)
        move /= np.abs(move).max(0)
        odds = logit(success)[:, None, None] + move[:, :, None] * reach
        total = total + expit(odds).mean(0).max(-1)
    return powers[np.argmax(total)]


far = line_search_power(1.0, rng, dial_draws, 0.1, 0.9)
near = dial[1.0][0]
print(f"overlap 1: best power {near:.1f} in the quadratic regime,", end=" ")
print(f"{far:.1f} by line search from success 0.1 to 0.9")
ledger.check(
    "4-bandit-dial-needs-short-steps",
    "overlap 1, success 0.1 to 0.9, exact line search: the best power",
    testbed="bandit",
    kind="training",
    predicted=1.5,
    relation="at least",
    measured=far,
    sabotages={"the quadratic regime": near},
    outcome="holds-with-limits",
    printed="not stated",
)

# %% tags=["hide-input"]
fig, axes = figures.panels(columns=2, height=3.2)
for k, marker in zip(NOISES, "osD^", strict=True):
    axes[0].plot(
        [o + 0.02 for o in OVERLAPS],
        [table[k, o][0] for o in OVERLAPS],
        marker,
        label=f"k/G = {k:g}",
    )
    axes[0].plot(
        [o + 0.02 for o in OVERLAPS],
        [table[k, o][1] for o in OVERLAPS],
        **figures.PREDICTION,
    )
for value, name in ((0, "none"), (1, "std"), (2, "variance")):
    axes[0].axhline(value, color="grey", linewidth=0.7)
    axes[0].annotate(name, (6, value + 0.06), fontsize="x-small")
axes[0].set(
    xlabel="overlap o (shifted by 0.02)", ylabel="best power a", xscale="log"
)
axes[0].legend(fontsize="x-small")
overlaps = np.geomspace(0.02, 10, 60)
noises = np.geomspace(0.002, 2, 60)
surface = best_power(0.1, noises[:, None], 1, overlaps[None], 0.1)
levels = np.linspace(-2, 2, 9)
drawn = axes[1].contourf(overlaps, noises, surface, levels, cmap="cividis")
lines = axes[1].contour(overlaps, noises, surface, [0, 1], colors="white")
axes[1].clabel(lines, fontsize=8)
axes[1].set(
    xlabel="overlap o",
    ylabel="noise k/G (variance 0.1)",
    xscale="log",
    yscale="log",
)
fig.colorbar(drawn, ax=axes[1], label="local best power")
figures.show(
    fig,
    "Left: best power against the overlap for four noises, measured on the bandit and predicted; it falls from two to "
    "below one half without noise and below zero with it. Right: map of the local best power over overlap and noise: "
    "two at the lower left, one along two arms, below zero at the upper right.",
)

# %% [markdown]
# ## 4.6 On a transformer
#
# The transformer of chapter {doc}`1 </notebooks/01_gap_alignment>` multiplies a chain of group elements; only its attention is trained.
# It is not log-linear, so the general form of {prf:ref}`thm-curvature-variance` applies.
# We enumerate all responses with their scores *and* Hessians, take the direction of the largest curvature of $J$, and measure $R_w$ and $L$ there.

# %%
small_policy = transformer.AttentionPolicy(names=4, sharpness=3.0)
small_problems = transformer.draw_problems(
    symmetric_group(3), (2,), 4, seed, names=4
)
small = transformer.TransformerTestbed(
    small_policy, small_problems, small_policy.initial(1.0)
)


def response_hessians(prompt):
    """Hessian of the log-probability of every response, in the order of ``enumerate``."""
    chosen = small_problems.select([prompt])
    elements = torch.arange(chosen.group.order)
    first, second = torch.cartesian_prod(elements, elements).T
    second = quotients(chosen.group, first, second)

    def log_probs(theta):
        law = small_policy.step_law(theta, chosen)[..., 0].log()
        return law[0][first] + law[1][second]

    return torch.func.hessian(log_probs)(small.theta.detach()).numpy()


def hessian_of_success(policy, problems, theta):
    theta = torch.as_tensor(theta).detach()
    return torch.func.hessian(lambda x: policy.success(x, problems))(
        theta
    ).numpy()


enumerated = [
    (small.enumerate(prompt), response_hessians(prompt))
    for prompt in range(len(small_problems))
]
exact_hessians = hessian_of_success(small_policy, small_problems, small.theta)


# %%
def identity_error(scale=lambda J: J * (1 - J), with_scores=1.0):
    errors = []
    for (r, second), exact in zip(enumerated, exact_hessians, strict=True):
        correct, wrong = conditional_weights(r)
        outer = np.einsum("nd,ne->nde", r.score, r.score)
        both = second + with_scores * outer
        found = np.einsum("n,nde->de", correct - wrong, both)
        errors.append(relative_error(scale(success_rate(r)) * found, exact))
    return max(errors)


ledger.check(
    "4-transformer-hessian-identity",
    "all responses with their Hessians: Hess J is sigma^2 (E+ - E-)[H + s s'] (largest relative error)",
    testbed="transformer",
    predicted=0.0,
    measured=identity_error(),
    tolerance=1e-9,
    sabotages={
        "sigma in place of sigma^2": identity_error(
            lambda J: np.sqrt(J * (1 - J))
        ),
        "without the scores": identity_error(with_scores=0.0),
    },
)


# %%
def share_of_general_bound(shrink=1.0):
    shares = []
    for (r, second), exact in zip(enumerated, exact_hessians, strict=True):
        value, vectors = np.linalg.eigh(exact)
        worst = np.abs(value).argmax()
        w, J = vectors[:, worst], success_rate(r)
        bend = np.abs(np.einsum("d,nde,e->n", w, second, w)).max()
        bound = J * (1 - J) * (np.ptp(r.score @ w) ** 2 + 2 * bend)
        shares.append(abs(value[worst]) / bound / shrink)
    return max(shares)


ledger.check(
    "4-transformer-curvature-bound",
    "the largest curvature of J is at most sigma^2 (R_w^2 + 2L) along its own direction (largest share)",
    testbed="transformer",
    predicted=1.0,
    relation="at most",
    measured=share_of_general_bound(),
    sabotages={"a sixteenth of the bound": share_of_general_bound(1 / 16)},
    outcome="holds-sharper",
    printed="log-linear policies only",
)

# %% [markdown]
# ### Does the curvature follow the variance over training?
#
# The bound allows less curvature than variance suggests, so proportionality has to be looked at.
# Exact gradient training from three starts, exact Hessian of every prompt along the way:
# a linear head that can solve the task, the same head started at the floor of guessing, and a softmax head too blunt to solve it.

# %% tags=["nbval-ignore-output"]
STUDIES = {
    "solvable": {"sharpness": None, "weight": 2.0, "rate": 12.0},
    "from the chance floor": {"sharpness": None, "weight": -2.0, "rate": 12.0},
    "saturated head": {"sharpness": 4.0, "weight": 0.0, "rate": 30.0},
}


def curvature_study(sharpness, weight, rate, iterations=400):
    """Success, largest curvature and gradient norm of 8 prompts at geometrically spaced iterations."""
    policy = transformer.AttentionPolicy(names=6, sharpness=sharpness)
    problems = transformer.draw_problems(
        symmetric_group(3), (4,), 8, seed, names=6
    )
    start = policy.initial(weight)[None].numpy()
    run = train_transformer(
        policy, start, problems, iterations, rate, keep_parameters=True
    )
    kept = np.unique(np.geomspace(1, iterations + 1, 14).astype(int)) - 1
    rows = []
    for theta in torch.tensor(run.snapshots[kept, 0]):
        J, gradient = transformer.TransformerTestbed(
            policy, problems, theta
        ).exact_all()
        second = hessian_of_success(policy, problems, theta)
        rows.append(
            (
                J,
                np.linalg.norm(second, 2, axis=(1, 2)),
                np.linalg.norm(gradient, axis=1),
            )
        )
    return [np.array(column) for column in zip(*rows, strict=True)]


studies = {name: curvature_study(**case) for name, case in STUDIES.items()}


def log_slope(x, y):
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def over_time(name, above=0.5):
    """Mean variance and mean curvature at the records whose mean success is above a level."""
    J, curvature, _ = studies[name]
    late = J.mean(1) > above
    return (J * (1 - J)).mean(1)[late], curvature.mean(1)[late]


variance, curvature = over_time("solvable")
blunt = over_time("saturated head")
print(f"correlation over time {np.corrcoef(variance, curvature)[0, 1]:.2f}")
ledger.check(
    "4-transformer-curvature-follows-variance",
    "solvable task, past one half: slope of log mean curvature against log mean variance over training",
    testbed="transformer",
    kind="training",
    predicted=1.0,
    measured=log_slope(variance, curvature),
    tolerance=0.15,
    sabotages={
        "slope on sigma called slope on sigma^2": log_slope(
            np.sqrt(variance), curvature
        ),
        "a head that saturates": log_slope(*blunt),
    },
    printed="curvature scales with the variance",
)

# %% [markdown]
# The two other starts are counterexamples to proportionality.
# At the floor of guessing the reward varies as much as it ever will, but no parameter moves it much yet; with a blunt head the variance that is left at the end cannot be reduced.
# *Variance that training cannot remove carries no curvature.*
# The bound holds in both; the law does not.


# %% tags=["nbval-ignore-output"]
def curvature_per_variance(name):
    J, curvature, _ = studies[name]
    return curvature.mean(1) / (J * (1 - J)).mean(1)


floor = curvature_per_variance("from the chance floor")
head = curvature_per_variance("saturated head")
steady = curvature_per_variance("solvable")[-6:]
ledger.check(
    "4-transformer-variance-without-curvature",
    "curvature per variance, at the floor over the end, and at a saturated end over the start (larger)",
    testbed="transformer",
    kind="training",
    predicted=0.5,
    relation="at most",
    measured=float(max(floor[0] / floor[-1], head[-1] / head[0])),
    sabotages={"the solvable task, late": float(steady.min() / steady.max())},
    outcome="holds-with-limits",
    printed="curvature scales with the variance",
)

# %% tags=["hide-input"]
fig, ax = figures.panels(height=3.4)
for (name, (J, curvature, _)), marker in zip(
    studies.items(), "os^", strict=True
):
    variance = (J * (1 - J)).mean(1)
    ax.plot(variance, curvature.mean(1), marker + "-", ms=4, lw=0.8, label=name)
ends = np.array([1e-3, 0.25])
ax.plot(ends, 0.55 * ends, **figures.PREDICTION, label="slope one")
ax.set(
    xlabel=r"mean variance $\sigma^2$ of the prompts",
    ylabel=r"mean $\|\nabla^2 J\|$",
    xscale="log",
    yscale="log",
)
ax.legend(fontsize="small")
figures.show(
    fig,
    "Mean curvature against mean variance along three trainings of the transformer. The solvable task follows a line of "
    "slope one; from the chance floor and with a saturated head the curvature changes while the variance stays.",
)

# %% [markdown]
# ### Speed against the finite-group flow
#
# Twenty-four prompts of three lengths that share one attention table.
# All arms get the learning rate that raises mean success equally fast at the start.
# The prediction replaces the sampled groups by their mean, {prf:ref}`thm-power-gain`; nothing is fitted.

# %%
chain_policy = transformer.AttentionPolicy(names=8)
chain_problems = transformer.draw_problems(
    symmetric_group(3), (1, 2, 4), 8, seed, names=8
)
chain = transformer.TransformerTestbed(
    chain_policy, chain_problems, chain_policy.initial(1.5)
)
PACE = 0.01  # rise of mean success in the first step, to first order
chain_start = chain.theta.detach().numpy()


def prompt_weight(success, value, group_size):
    """What multiplies a prompt's gradient: gain over variance."""
    success = np.clip(success, 1e-12, 1 - 1e-12)
    return power_gain(success, value, group_size) / (success * (1 - success))


def matched_rate(success, gradients, value, group_size):
    """Learning rate at which mean success rises by PACE in the first step."""
    weight = prompt_weight(success, value, group_size)
    update = weight @ gradients / len(success)
    return PACE / (gradients.mean(0) @ update)


# %%
def chain_times(value, group_size, sampled):
    """Times to 95%: of the expected run, or of ``transformer_seeds`` sampled ones."""
    rate = matched_rate(*chain.exact_all(), value, group_size)
    runs = transformer_seeds if sampled else 1

    def expected(J):
        return torch.tensor(prompt_weight(J.numpy(), value, group_size))

    record = train_transformer(
        chain_policy,
        np.repeat(chain_start[None], runs, 0),
        chain_problems,
        240,
        rate,
        estimator=ESTIMATOR[value] if sampled else expected,
        group_size=group_size if sampled else None,
        seeds=range(seed, seed + runs) if sampled else None,
    )
    means = record.success.mean(-1).T
    return np.array([crossing(PACE * record.iteration, run) for run in means])


chain_sizes = (2, 4, 16)
chain_keys = list(itertools.product(ESTIMATOR, chain_sizes))
# Without std the matched flow is the same for every group size, and in groups of two all arms are.
plain = float(chain_times(0, 16, False)[0])
chain_predicted = {
    (a, G): float(chain_times(a, G, False)[0]) if a and G > 2 else plain
    for a, G in chain_keys
}
limit = [float(chain_times(a, None, False)[0]) for a in ESTIMATOR]
chain_unlimited = {(a, G): limit[a] for a, G in chain_keys}
chain_measured = {k: chain_times(*k, True) for k in chain_keys}

# %% tags=["nbval-ignore-output"]
print("time to 95%, mean of the runs (predicted)")
for G in chain_sizes:
    cells = [
        f"{ESTIMATOR[a]}: {chain_measured[a, G].mean():.2f}"
        f" ({chain_predicted[a, G]:.2f})"
        for a in ESTIMATOR
    ]
    print(f"G = {G:2d}  " + "   ".join(cells))
ledger.check(
    "4-transformer-speed",
    "mean time to 95% over the finite-G flow, three arms, G = 2, 4, 16 (largest departure from 1)",
    testbed="transformer",
    kind="training",
    predicted=0.0,
    measured=largest_departure(chain_predicted, chain_measured),
    tolerance=0.1,
    sabotages={
        "infinite-G gain in place of finite G": largest_departure(
            chain_unlimited, chain_measured
        ),
        "anti-normalised: std and none exchanged": largest_departure(
            {
                (1, 16): chain_predicted[0, 16],
                (0, 16): chain_predicted[1, 16],
            },
            chain_measured,
        ),
    },
    outcome="holds-with-limits",
    printed="GRPO is faster; no group size in the theorem",
)

# %% [markdown]
# ### Rise and fall of the advantage, without any overlap
#
# The paper sees three phases: little advantage at first, a large one in the middle, and none at the end, and explains the end by a loss of orthogonality between prompts.
# Here twelve prompts use disjoint names, so their gradients are orthogonal *for ever*, exactly.
# They start with different success rates, and a control starts them all alike.
#
# Advantage has to be measured free of the learning rate.
# A step along $\sum_q\omega_q\nabla J_q$ whose length is limited by curvature gains $(\sum_q\omega_q|\nabla J_q|^2)^2 / (2\sum_q\omega_q^2\,|\nabla J_q^\top\nabla^2J_q\nabla J_q|)$; the advantage is the ratio of that gain for $\omega=1/\sigma$ and $\omega=1$.
# (A literal line search says nothing here: without interference an infinite step solves every prompt.)

# %%
DISJOINT, STEPS_EACH = 12, 2
disjoint_policy = transformer.AttentionPolicy(names=DISJOINT * STEPS_EACH)
disjoint = transformer.WordProblems(
    symmetric_group(3),
    torch.full((DISJOINT,), STEPS_EACH),
    torch.arange(DISJOINT * STEPS_EACH).view(DISJOINT, STEPS_EACH),
    torch.tensor(
        np.random.default_rng(seed).integers(
            0, 6, (DISJOINT, DISJOINT * STEPS_EACH)
        )
    ),
)


def advantage_along(weights, iterations=transformer_steps):
    """Mean success, advantage of std, and largest |cosine|, along exact GRPO training from prompt-wise weights."""
    start = np.diag(np.repeat(weights, STEPS_EACH)).ravel()
    run = train_transformer(
        disjoint_policy,
        start[None],
        disjoint,
        iterations,
        2.0,
        estimator=lambda J: torch.tensor(prompt_weight(J.numpy(), 1, None)),
        keep_parameters=True,
    )
    kept = np.unique(np.geomspace(1, iterations + 1, 24).astype(int)) - 1
    rows = []
    for theta in torch.tensor(run.snapshots[kept, 0]):
        at = transformer.TransformerTestbed(disjoint_policy, disjoint, theta)
        J, gradient = at.exact_all()
        along = torch.tensor(gradient)

        def success(shift, theta=theta, along=along):
            moved = theta + shift[:, None] * along
            own = disjoint_policy.success(moved, disjoint)
            return own.diagonal().sum()

        zero = torch.zeros(DISJOINT, dtype=torch.float64)
        bend = torch.func.hessian(success)(zero).diagonal().abs().numpy()
        squared = (gradient**2).sum(1)
        gains = [
            (w @ squared) ** 2 / (w**2 @ bend)
            for w in ((J * (1 - J)) ** -0.5, np.ones(DISJOINT))
        ]
        cosines = np.abs(gradient_cosines(gradient)).max()
        rows.append((J.mean(), gains[0] / gains[1], cosines))
    return np.array(rows).T


different = advantage_along(np.linspace(1.0, 6.5, DISJOINT))
alike = advantage_along(np.full(DISJOINT, 3.4))


# %% tags=["nbval-ignore-output"]
ledger.check(
    "4-transformer-zero-cosine",
    "prompts with disjoint names: largest |cosine| of two gradients over training",
    testbed="transformer",
    predicted=0.0,
    measured=float(different[2].max()),
    tolerance=1e-12,
    sabotages={
        "prompts that share names": float(
            np.abs(gradient_cosines(chain.exact_all()[1])).max()
        )
    },
)
ledger.check(
    "4-transformer-advantage-rises",
    "zero cosines, different starts: largest advantage of std over training",
    testbed="transformer",
    kind="training",
    predicted=1.1,
    relation="at least",
    measured=float(different[1].max()),
    sabotages={"prompts that start alike": float(alike[1].max())},
    printed="the advantage comes with orthogonality",
)
ledger.check(
    "4-transformer-advantage-falls",
    "zero cosines throughout: the advantage at the end, over its largest value",
    testbed="transformer",
    kind="training",
    predicted=0.9,
    relation="at most",
    measured=float(different[1, -1] / different[1].max()),
    sabotages={
        "prompts that start alike": float(alike[1, -1] / alike[1].max())
    },
    outcome="contradicted",
    printed="the advantage ends because orthogonality is lost",
)

# %% tags=["hide-input"]
fig, ax = figures.panels(height=3.2)
ax.plot(1 - different[0], different[1], "o-", ms=3, label="different starts")
ax.plot(1 - alike[0], alike[1], "s-", ms=3, label="same start")
ax.axhline(1, **figures.PREDICTION)
ax.set(
    xlabel="mean failure rate 1 - J (training goes to the right)",
    ylabel="advantage of std over none",
    xscale="log",
)
ax.invert_xaxis()
ax.legend(fontsize="small")
figures.show(
    fig,
    "Advantage of dividing by the deviation over the mean failure rate, for prompts whose gradients are orthogonal "
    "throughout. From different starts it rises above one in the middle of training and returns to one; from equal "
    "starts it stays at one.",
)

# %% [markdown]
# With cosines at zero the advantage still rises and falls.
# It follows the *heterogeneity* of the deviations: it appears when prompts are at different stages and goes when the hardest of them decide alone.

# %% [markdown]
# ## 4.7 On a Qwen
#
# The Qwen of chapter {doc}`1 </notebooks/01_gap_alignment>` multiplies two elements of $S_3$ by a chain of thought.
# All 259 responses to each word are enumerated, so success, gradients and curvatures are exact.
#
# First what needs no statistics: in groups of two, dividing by the standard deviation or by the variance is the same update as dividing by nothing, at half or a quarter of the learning rate.

# %%
qwen = QwenTestbed(model=qwen_model)
chosen = np.random.default_rng(seed).permutation(36)[:qwen_prompts]
batch = [qwen.task.prompt((int(word) // 6, int(word) % 6)) for word in chosen]
qwen_start = qwen.theta


def trained(group_size, estimator, rate, steps=5):
    policy = qwen.at(qwen_start)
    settings = grpo.GRPO(
        group_size=group_size, estimator=estimator, learning_rate=rate
    )
    grpo.train(policy, batch, settings, steps, seed)
    return policy.theta - qwen_start


def arms_apart(group_size):
    bare = trained(group_size, "dr_grpo", 0.02)
    return max(
        relative_error(trained(group_size, "grpo", 0.01), bare),
        relative_error(trained(group_size, "grpo_variance", 0.005), bare),
    )


ledger.check(
    "4-qwen-groups-of-two",
    "groups of two: five steps with none, std and variance lead to the same parameters (largest relative difference)",
    testbed="qwen",
    predicted=0.0,
    measured=arms_apart(2),
    tolerance=1e-4,
    sabotages={"groups of four": arms_apart(4)},
    outcome="holds-sharper",
    printed="the paper assumes the exact sigma",
)

# %% [markdown]
# ### Time to nearly certain success
#
# As on the transformer: rates matched at the start, the prediction by exact gradients with the finite-group gain of each prompt, the measurement by sampled groups.
# Real runs add noise to every step, and a nonlinear policy pays for noise, so measured times may exceed the noiseless ones.

# %%
FLOW_PACE = (
    1.25 * qwen_pace
)  # rise of mean success in the prediction's first step


def success_and_gradients(theta, prompts=None):
    """Exact J [Q] and grad J [Q, d]."""
    at = qwen.at(theta)
    found = [at.exact(prompt) for prompt in prompts or batch]
    return [np.array(column) for column in zip(*found, strict=True)]


def exact_success(theta, prompts=None):
    """Exact J [Q], without gradients."""
    with torch.no_grad(), grpo.one_thread():
        values = qwen.unflatten("theta", theta)
        return np.array(
            [float(qwen.success(prompt, values)) for prompt in prompts or batch]
        )


def arm_weight(success, arm, group_size):
    gain = mean_gain(success, arm, group_size)
    return gain / (success * (1 - success))


at_start = success_and_gradients(qwen_start)


def qwen_rate(arm, group_size, pace=qwen_pace):
    success, gradients = at_start
    update = arm_weight(success, arm, group_size) @ gradients / len(success)
    return pace / (gradients.mean(0) @ update)


def expected_run(arm, group_size, prompts=batch, pace=FLOW_PACE):
    """Parameters [k, d], success [k, Q] and gradient norms [k, Q] along the exact mean update, up to 95%."""
    theta, rows = qwen_start, []
    rate = qwen_rate(arm, group_size, pace)
    for _ in range(int(qwen_steps * qwen_pace / pace) + 1):
        success, gradients = success_and_gradients(theta, prompts)
        rows.append((theta, success, np.linalg.norm(gradients, axis=1)))
        if success.mean() > TARGET:
            break
        weight = arm_weight(success, arm, group_size)
        theta = theta + rate * weight @ gradients / len(success)
    return [np.array(column) for column in zip(*rows, strict=True)]


print(
    f"success at the start {at_start[0].min():.2f} to {at_start[0].max():.2f}"
)


# %%
class Reached(Exception):
    """Raised by a run that has reached its target."""


EVERY = 4
QWEN_ESTIMATOR = ESTIMATOR | {"batch": "grpo_batch"}


def sampled_run(settings, run_seed, steps=qwen_steps, target=TARGET):
    """Exact mean success every fourth step of one GRPO run, until it exceeds the target."""
    means = []

    def record(step):
        if step.number % EVERY:
            return
        means.append(exact_success(step.before.double().numpy()).mean())
        if means[-1] > target:
            raise Reached

    policy = qwen.at(qwen_start)
    with contextlib.suppress(Reached):
        grpo.train(policy, batch, settings, steps, run_seed, record)
    return np.array(means)


def sampled_runs(arm, group_size, rate, optimizer="sgd", **options):
    settings = grpo.GRPO(
        group_size=group_size,
        estimator=QWEN_ESTIMATOR[arm],
        learning_rate=rate,
        optimizer=optimizer,
    )
    return [
        sampled_run(settings, seed + k, **options) for k in range(qwen_seeds)
    ]


def mean_steps(runs, every=EVERY):
    """Mean number of steps to 95%; a run that does not arrive counts with its whole length."""
    found = [crossing(every * np.arange(len(run)), run) for run in runs]
    return float(np.mean(np.nan_to_num(found, nan=qwen_steps)))


# %%
QWEN_KEYS = [(arm, G) for G in (16, 4) for arm in ARMS] + [(0, 2)]
qwen_found = {key: sampled_runs(*key, qwen_rate(*key)) for key in QWEN_KEYS}
qwen_steps_to = {key: mean_steps(runs) for key, runs in qwen_found.items()}
FLOWS = [(0, 16), (1, 16), (2, 16), (1, 4), (2, 4), (2, None)]
flows = {key: expected_run(*key) for key in FLOWS}
qwen_expected = {
    key: mean_steps([run[1].mean(1)], FLOW_PACE / qwen_pace)
    for key, run in flows.items()
}
qwen_expected |= {(0, G): qwen_expected[0, 16] for G in (2, 4)}

# %% tags=["nbval-ignore-output"]
print("steps to 95%, measured and predicted; speed-up over none")
for arm, G in QWEN_KEYS:
    steps_to, expected = qwen_steps_to[arm, G], qwen_expected.get((arm, G))
    faster = qwen_steps_to[0, G] / steps_to
    flow = "     -" if expected is None else f"{expected:6.0f}"
    print(
        f"G = {G:2d} {QWEN_ESTIMATOR[arm]:14}{steps_to:5.0f}{flow}   x{faster:.2f}"
    )


# %% [markdown]
# In groups of sixteen the order is the predicted one; in groups of four dividing by each prompt's own deviation does little.
# All runs are slower than the flow, the more so the smaller the group: that is the price of noise, which the flow leaves out and which largely cancels in the speed-ups.


# %% tags=["nbval-ignore-output"]
def speed_up(steps_to, arm, group_size, base=16):
    return steps_to[0, base] / steps_to[arm, group_size]


def qwen_speed_error(size_of=lambda G: G, direction=1):
    """Largest difference between measured and predicted speed-up over no normalisation."""
    return max(
        abs(
            speed_up(qwen_steps_to, arm, G, G)
            - speed_up(qwen_expected, arm, size_of(G)) ** direction
        )
        for arm, G in ((2, 16), (2, 4))
    )


ledger.check(
    "4-qwen-speed-up",
    "speed-up to 95% over none (variance at G = 16 and 4), measured minus finite-G flow (larger)",
    testbed="qwen",
    kind="training",
    predicted=0.0,
    measured=qwen_speed_error(),
    tolerance=0.3,
    sabotages={
        "infinite-G gain in place of finite G": qwen_speed_error(
            lambda G: None
        ),
        "anti-normalised arm": qwen_speed_error(direction=-1),
    },
    seeds=range(seed, seed + qwen_seeds),
    outcome="holds-with-limits",
    printed="GRPO is faster; no group size in the theorem",
)

# %% tags=["hide-input"]
fig, axes = figures.panels(columns=2, height=3.2, sharey=True)
for ax, group_size in zip(axes, (16, 4), strict=True):
    for k, arm in enumerate(ARMS):
        for run in qwen_found[arm, group_size]:
            ax.plot(
                EVERY * np.arange(len(run)),
                run,
                color=f"C{k}",
                alpha=0.7,
                label=QWEN_ESTIMATOR[arm],
            )
        if (arm, group_size) in flows:
            flow = flows[arm, group_size][1].mean(1)
            steps_of = np.arange(len(flow)) * FLOW_PACE / qwen_pace
            ax.plot(steps_of, flow, **figures.PREDICTION)
    ax.axhline(TARGET, color="grey", linewidth=0.7)
    ax.set(
        xlabel="step", ylabel="exact mean success", title=f"G = {group_size}"
    )
handles, labels = axes[0].get_legend_handles_labels()
chosen = dict(zip(labels, handles, strict=True))
axes[0].legend(chosen.values(), chosen.keys(), fontsize="x-small")
figures.show(
    fig,
    "Exact mean success of the Qwen over GRPO steps, for four normalisations with matched first steps. In groups of 16 "
    "variance, batch and std lead, none is last, each somewhat behind its dashed prediction; in groups of 4 only the "
    "batch deviation leads clearly.",
)

# %% [markdown]
# ### Gradient and curvature against variance
#
# Exact mean updates of GRPO on four of the words, half as long as the steps above: the norm of every prompt's gradient, and the curvature of its success along its own gradient.
# The gradient is $\sigma^2 D$, so its slope against $\sigma^2$ on logarithmic axes is one exactly if gaps keep their length.


# %%
def own_curvature(theta, prompts):
    """|second derivative of J| along each prompt's own unit gradient, exact."""
    at, found = qwen.at(theta), []
    for prompt in prompts:
        gradient = at.exact(prompt)[1]
        unit = gradient / np.linalg.norm(gradient)
        found.append(abs(at.derivatives_along(prompt, unit)[2]))
    return found


few_words = batch[:4]
thetas, success, norms = expected_run(1, 16, few_words, qwen_pace / 2)
variance = success * (1 - success)
some = np.unique(np.linspace(0, len(thetas) - 1, 8).astype(int))
curvatures = np.array(
    [own_curvature(theta, few_words) for theta in thetas[some]]
)


def pearson(x, y):
    return float(np.corrcoef(x, y)[0, 1])


over_steps = pearson(variance[some].mean(1), curvatures.mean(1))
within = [
    pearson(v, c) for v, c in zip(variance[some], curvatures, strict=True)
]

# %% tags=["nbval-ignore-output"]
print("Pearson correlation of curvature and variance")
print(
    f"  across prompts, median over steps {np.median(within):5.2f}  (P4: .342)"
)
print(f"  over steps, means of the prompts  {over_steps:5.2f}  (P4: -.028)")
print(
    "curvature, mean of the prompts:",
    ", ".join(f"{c:.0f}" for c in curvatures.mean(1)),
)

# %% tags=["nbval-ignore-output"]
ledger.check(
    "4-qwen-gradient-follows-variance",
    "prompts and steps of a mean GRPO run: slope of log |grad J| against log sigma^2",
    testbed="qwen",
    kind="training",
    predicted=1.0,
    measured=log_slope(variance.ravel(), norms.ravel()),
    tolerance=0.35,
    sabotages={
        "slope on sigma called slope on sigma^2": log_slope(
            np.sqrt(variance.ravel()), norms.ravel()
        )
    },
    outcome="holds-with-limits",
    printed="the gradient's variance scales with that of the reward",
)

# %% tags=["nbval-ignore-output"]
ledger.check(
    "4-qwen-curvature-over-training",
    "over a run the mean curvature follows the mean variance (Pearson correlation)",
    testbed="qwen",
    kind="training",
    predicted=0.5,
    relation="at most",
    measured=over_steps,
    sabotages={
        "the transformer's solvable task": pearson(*over_time("solvable"))
    },
    outcome="contradicted",
    printed="curvature scales with the variance; its Fisher proxy: -.028 over steps",
)

# %% [markdown]
# The gradient follows the variance, roughly.
# The curvature does not: it stays where it is, with spikes where the run crosses a narrow valley, while the variance falls.
# There is no contradiction to {prf:ref}`thm-curvature-variance`: the bound's other factor, $R_w^2 + 2L$, is a constant for log-linear policies only, and here the curvature per variance rises.
# The paper's own proxy, a diagonal Fisher information, shows no relation over steps either.

# %% [markdown]
# ### Adam, and one deviation for the batch
#
# Adam divides the update by its own running size, so a scalar that grows over training is divided out again: what remains of the normalisation is the balance between prompts.
# And a deviation pooled over the batch is such a scalar.

# %%
ADAM_RATE = 2e-4
adam_steps = {
    arm: mean_steps(sampled_runs(arm, 16, ADAM_RATE, "adam")) for arm in (0, 2)
}
adam_gain = adam_steps[0] / adam_steps[2]
sgd_gain = qwen_steps_to[0, 16] / qwen_steps_to[2, 16]

# %% tags=["nbval-ignore-output"]
print(
    f"speed-up of variance over none: SGD {sgd_gain:.2f}, Adam {adam_gain:.2f}"
)

# %% tags=["nbval-ignore-output"]
ledger.check(
    "4-qwen-adam",
    "Adam: speed-up of dividing by the variance, as a share of that under SGD",
    testbed="qwen",
    kind="training",
    predicted=0.9,
    relation="at most",
    measured=adam_gain / sgd_gain,
    sabotages={"SGD in place of Adam": 1.0},
    seeds=range(seed, seed + qwen_seeds),
    outcome="holds-with-limits",
    printed="experiments with AdamW, theory for SGD",
)

# %% tags=["nbval-ignore-output"]
batch_gain = qwen_steps_to[1, 4] / qwen_steps_to["batch", 4]
ledger.check(
    "4-qwen-batch-std",
    "groups of four: steps with each prompt's std over steps with one std for the batch",
    testbed="qwen",
    kind="training",
    predicted=1.0,
    relation="at least",
    measured=batch_gain,
    sabotages={
        "no std in place of the batch's": qwen_steps_to[1, 4]
        / qwen_steps_to[0, 4]
    },
    seeds=range(seed, seed + qwen_seeds),
    printed="not compared",
)

# %% [markdown]
# Does a step that grows over training overshoot?
# Runs whose first step would raise mean success by four hundredths, on past the target.
# A *dip* is a drop of exact mean success by more than a tenth between two records, four steps apart.

# %%
STRESS_PACE, DIP = 0.04, 0.1


def drops(runs):
    return np.array([-np.diff(run).min(initial=0) for run in runs])


stressed = {
    arm: drops(
        sampled_runs(
            arm,
            16,
            qwen_rate(arm, 16, STRESS_PACE),
            steps=int(2 * qwen_steps * qwen_pace / STRESS_PACE),
            target=1.0,
        )
    )
    for arm in ARMS
}

# %% tags=["nbval-ignore-output"]
for arm, fall in stressed.items():
    print(
        f"{QWEN_ESTIMATOR[arm]:14} runs with a dip: {(fall > DIP).sum()} of {len(fall)},",
        f"median drop {np.median(fall):.2f}",
    )

# %% tags=["nbval-ignore-output"]
growing = np.concatenate([stressed[arm] for arm in (1, 2, "batch")])
calm = np.concatenate([drops(qwen_found[arm, 16]) for arm in (1, 2, "batch")])
ledger.check(
    "4-qwen-dips",
    "first step of four hundredths, steps that grow (std, variance, batch std): share of runs with a dip",
    testbed="qwen",
    kind="training",
    predicted=0.5,
    relation="at least",
    measured=float((growing > DIP).mean()),
    sabotages={"the rate of the comparison above": float((calm > DIP).mean())},
    seeds=range(seed, seed + qwen_seeds),
    outcome="holds-with-limits",
    printed="not stated",
)

# %% [markdown]
# ### Three phases
#
# The paper divides training into three phases by eye and finds the largest advantage of the normalisation in the second.
# We identify phases objectively, by the window of mean success a checkpoint falls in, and measure the advantage by line search: the best gain in exact mean success along $\sum_q D_q\sigma_q$ over the best along $\sum_q D_q\sigma_q^2$, with steps that move no prompt by more than two nats to first order.
#
# Two starts with the same mean success are made from the warm-started model by moving the log-odds of eight words to given values: in one they are spread out, in the control they are equal.
# Both are then trained with GRPO.

# %%
PHASE_WORDS = [(1, 2), (4, 3), (5, 5), (2, 4), (3, 1), (0, 5), (4, 1), (2, 2)]
phase_batch = [qwen.task.prompt(word) for word in PHASE_WORDS]


def log_odds_and_gaps(theta):
    at = qwen.at(theta)
    found = [at.log_odds_and_gap(prompt) for prompt in phase_batch]
    return [np.array(column) for column in zip(*found, strict=True)]


def steered(target, most=30):
    """Parameters at which the words have the target log-odds, by damped Gauss-Newton steps of least norm."""
    theta = qwen_start
    for _ in range(most):
        odds, gaps = log_odds_and_gaps(theta)
        rest = target - odds
        if np.abs(rest).max() < 0.02:
            break
        gram = gaps @ gaps.T
        damped = gram + 1e-3 * gram.diagonal().mean() * np.eye(len(gram))
        step = gaps.T @ np.linalg.solve(damped, rest)
        theta = theta + step * min(1, 0.5 / np.abs(gaps @ step).max())
    return theta


spread_out = np.linspace(-2.2, 3.2, len(phase_batch))
common = np.full(len(phase_batch), logit(expit(spread_out).mean()))
phase_starts = {"spread out": steered(spread_out), "alike": steered(common)}

# %%
REACHES = np.geomspace(0.03, 2, 8)  # nats


def line_search_advantage(theta, odds, gaps):
    success = expit(odds)
    best = []
    for power in (1, 2):
        update = (success * (1 - success)) ** (power / 2) @ gaps
        update = update / np.abs(gaps @ update).max()
        after = [
            exact_success(theta + reach * update, phase_batch).mean()
            for reach in REACHES
        ]
        best.append(max(after) - success.mean())
    return best[0] / best[1] if min(best) > 0 else np.nan


def follow(start, run_seed, checkpoints=8):
    """Success, advantage and cosines between gradients at the checkpoints of one GRPO run."""
    kept = []
    every = max(1, phase_steps // checkpoints)

    def record(step):
        if step.number % every == 0:
            kept.append(step.before.double().numpy())

    settings = grpo.GRPO(group_size=16, learning_rate=0.0018)
    grpo.train(
        qwen.at(start), phase_batch, settings, phase_steps, run_seed, record
    )
    rows = []
    for theta in kept:
        odds, gaps = log_odds_and_gaps(theta)
        rows.append(
            {
                "success": expit(odds),
                "advantage": line_search_advantage(theta, odds, gaps),
                "cosines": gradient_cosines(gaps),
            }
        )
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


followed = {
    name: [follow(start, seed + k) for k in range(phase_seeds)]
    for name, start in phase_starts.items()
}

# %%
WINDOWS = {"I": (0.0, 0.75), "II": (0.75, 0.9), "III": (0.9, 1.0)}


def in_window(means, advantages, low, high):
    """Median and quartiles of the advantages whose mean success lies in a window; one where there are none."""
    kept = advantages[(low <= means) & (means < high) & np.isfinite(advantages)]
    return np.quantile(kept, (0.25, 0.5, 0.75)) if len(kept) else np.ones(3)


def phases(runs):
    means = np.concatenate([run["success"].mean(1) for run in runs])
    found = np.concatenate([run["advantage"] for run in runs])
    return {name: in_window(means, found, *w) for name, w in WINDOWS.items()}


by_phase = {name: phases(runs) for name, runs in followed.items()}


def largest_median(windows):
    return float(max(middle for _, middle, _ in windows.values()))


# %% tags=["nbval-ignore-output"]
print("advantage of std by window of mean success: median (quartiles)")
for name, windows in by_phase.items():
    cells = [
        f"{phase}: {m:.2f} ({low:.2f}-{high:.2f})"
        for phase, (low, m, high) in windows.items()
    ]
    print(f"{name:12} " + "   ".join(cells))

# %% tags=["nbval-ignore-output"]
ledger.check(
    "4-qwen-phases",
    "different starts: median advantage of std by line search, in the best of three windows of mean success",
    testbed="qwen",
    kind="training",
    predicted=1.2,
    relation="at most",
    measured=largest_median(by_phase["spread out"]),
    sabotages={
        "the largest advantage on the transformer": float(different[1].max())
    },
    seeds=range(seed, seed + phase_seeds),
    outcome="contradicted",
    printed="three phases, a clear advantage in the second",
)

# %% [markdown]
# The transformer's rise and fall does not show on the Qwen: the advantage by line search is small in every window, and the control is flat.
# One number that the paper prints can be put beside ours: the cosines between gradients of different prompts.
# With $n=100$ prompts its table amounts to overlaps $o = n\,\mathbb E[\cos^2]$ of $.2$, $.6$ and $2.0$ at steps $0$, $260$ and $500$, half of the cosines negative at the first.

# %% tags=["nbval-ignore-output"]
print("by mean success: overlap of 100 such prompts, share of negative cosines")
for name, runs in followed.items():
    cosines = np.array([run["cosines"] for run in runs])
    means = np.array([run["success"].mean(1) for run in runs]).mean(0)
    overlap = 100 * (cosines**2).mean((0, 2))
    below = (cosines < 0).mean((0, 2))
    for k in np.unique((0, len(means) // 2, len(means) - 1)):
        print(
            f"{name:10} J = {means[k]:.2f}   o = {overlap[k]:5.1f}   {below[k]:4.0%}"
        )


# %% tags=["nbval-ignore-output"]
def negative_share(transform=lambda x: x):
    every = [run["cosines"] for runs in followed.values() for run in runs]
    return float((transform(np.concatenate(every)) < 0).mean())


ledger.check(
    "4-qwen-negative-cosines",
    "share of negative cosines between gradients of two prompts, over training",
    testbed="qwen",
    kind="training",
    predicted=0.05,
    relation="at least",
    measured=negative_share(),
    sabotages={"cosines without their sign": negative_share(np.abs)},
    seeds=range(seed, seed + phase_seeds),
    outcome="contradicted",
    printed="Assumption 4: non-negative inner products; its table has half negative at step 0",
)

# %% tags=["hide-input"]
fig, axes = figures.panels(columns=2, height=3.2)
for (name, runs), marker in zip(followed.items(), "os", strict=True):
    for k, run in enumerate(runs):
        axes[0].plot(
            run["success"].mean(1),
            run["advantage"],
            marker,
            ms=4,
            color="C0" if name == "spread out" else "C1",
            label=name if k == 0 else None,
        )
axes[0].axhline(1, **figures.PREDICTION)
for edge in (0.75, 0.9):
    axes[0].axvline(edge, color="grey", linewidth=0.7)
axes[0].set(
    xlabel="mean success",
    ylabel="advantage of std (line search)",
    ylim=(0.4, 2),
)
axes[0].legend(fontsize="small")
axes[1].plot(
    variance[some].mean(1),
    norms[some].mean(1),
    "o-",
    ms=4,
    label=r"$|\nabla J|$",
)
axes[1].plot(
    variance[some].mean(1),
    curvatures.mean(1),
    "s-",
    ms=4,
    label="curvature along it",
)
ends = np.array([variance[some].mean(1).min(), variance[some].mean(1).max()])
axes[1].plot(ends, 9 * ends, **figures.PREDICTION, label="slope one")
axes[1].set(
    xlabel=r"mean variance $\sigma^2$ (training goes left)",
    ylabel="mean of the prompts",
    xscale="log",
    yscale="log",
)
axes[1].legend(fontsize="small")
figures.show(
    fig,
    "Left: line-search advantage of dividing by the deviation against mean success, for words that start apart and "
    "alike: scattered around one, without a peak in the middle. Right: along a mean GRPO run the gradient falls with "
    "the variance, while the curvature along it does not.",
)

# %% [markdown]
# ## 4.8 What the paper printed and what we found
#
# | sentence of P4 (v1) | verdict | evidence |
# | --- | --- | --- |
# | The curvature of $J$ is at most $4X^2$ times the variance of the reward (Lemma 3.1). | sharpened: $2X^2$, and $c(J)\,\mathrm{diam}^2$ at each $J$ is best possible | `4-bandit-curvature-bound`, `4-bandit-curvature-constant` |
# | Curvature scales with the variance. | confirmed as a bound; as a law only for variance that training can remove, and not on the Qwen | `4-transformer-curvature-follows-variance`, `4-transformer-variance-without-curvature`, `4-qwen-curvature-over-training` |
# | GRPO's bound beats REINFORCE's when the mean of $\sigma$ is below $\frac38$. | sharpened: at every $\sigma$, no condition | `4-none-grpo-over-reinforce`, `4-bandit-guaranteed-gain` |
# | The sum of squared gradients is bounded by a multiple of the mean of $\sigma$ (Theorem 3.2). | contradicted for the sum, confirmed for the minimum | `4-bandit-printed-sum-bound`, `4-bandit-smallest-gradient-bound` |
# | Dividing by $\sigma$ is the adaptive step. | sharpened: one of a family, the guarantee of $a=2$ is larger | `4-bandit-guaranteed-gain-digits`, `4-bandit-gap-step-reserve` |
# | The deviation of the group stands in for $\sigma$. | holds with limits: nothing at $G=2, 3$, little at 4, saturation at $G/\sqrt{G-1}$ | `4-bandit-groups-of-two-and-three`, `4-bandit-boost-saturates`, `4-bandit-speed-up`, `4-transformer-speed`, `4-qwen-speed-up` |
# | Inner products of gradients are non-negative (Assumption 4). | contradicted on the Qwen, and by its own table | `4-qwen-negative-cosines` |
# | The advantage needs near-orthogonal prompts. | sharpened: the best power falls with the overlap, for short steps | `4-bandit-orthogonality-dial`, `4-bandit-dial-needs-short-steps` |
# | There are three phases, and the advantage ends because orthogonality is lost. | rise and fall confirmed on the transformer, the reason contradicted there; no middle phase on the Qwen | `4-transformer-zero-cosine`, `4-transformer-advantage-rises`, `4-transformer-advantage-falls`, `4-qwen-phases` |
# | Its curves for a language model of more than a billion parameters. | not tested here: needs a GPU | `rlvr train --model Qwen/Qwen2.5-Math-1.5B --task gsm8k --engine trl --steps 500 --out runs/normalised`, once with each setting of the estimator |
#
# ## 4.9 Should I set `scale_rewards`?
#
# TRL's `scale_rewards` is `"group"` (each prompt's own deviation), `"batch"` (one for all) or `"none"`.
#
# | your run | setting | because |
# | --- | --- | --- |
# | groups of 2 or 3 | any; only the learning rate changes | `4-bandit-groups-of-two-and-three`, `4-qwen-groups-of-two` |
# | groups of 4 | `"batch"`; the group's deviation is too coarse to help | `4-bandit-batch-std-small-groups`, `4-qwen-batch-std`, `4-bandit-boost-saturates` |
# | groups of 16 or more, prompts at different stages, little overlap, plain SGD | `"group"` where curvature limits the step; at matched moderate rates it beats `"none"`, and `"batch"` was faster still | `4-transformer-advantage-rises`, `4-transformer-speed`, `4-bandit-speed-up` |
# | groups of 16 or more, prompts all alike | `"batch"` is as good: the gain is a step that grows over time | `4-transformer-advantage-rises` (its control), `4-bandit-speed-up` |
# | Adam | matters less: Adam already removes a common scale | `4-qwen-adam` |
# | much overlap *or* noisy groups ($k/G$ about $\sigma^2$) | `"group"` is near the best power | `4-bandit-noise-and-overlap`, `4-bandit-best-group-weight` |
# | much overlap *and* noisy groups | `"none"` | `4-bandit-std-hurts` |
# | near convergence, high learning rate | decay the rate: every normalisation that lengthens the step also overshoots | `4-qwen-dips`, `4-qwen-curvature-over-training` |
#
# Compare settings only after rescaling the learning rate.
# At even odds `"group"` takes a step about twice as long as `"none"`; `power_gain` gives the ratio for your group size.
#
# ## 4.10 Verdicts

# %% tags=["nbval-ignore-output"]
ledger.publish()
