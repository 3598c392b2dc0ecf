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
# # Evidence for chapter 2: Adam, signs, several passes, and how sure a rate is
#
# **With the momentum of Adam a run is stable up to nineteen times the rate at which one update would overshoot: the boundary is $2(1+b)/((1-b)\lambda)$ with the curvature $\lambda$ that the preconditioned step sees, within {claim}`2-qwen-adam-boundary:smallest_effect` of it on a Qwen.**
# So the ratio of a rate to the critical one, `learning_rate_ratio`, judges one update of any optimizer, and a run only without momentum.
# The factor is Cohen and others' {cite}`cohen2022adaptive`; what is added is that it holds next to the maximum of a penalised network over all its responses, what becomes of the logged ratio, and when a measured rate may be believed.

# %% tags=["parameters", "remove-cell"]
profile: str = "book"  # label of the profile that set these parameters
seed: int = 0  # [0, 4294967295] seed of every random draw
judged: bool = True  # whether sampled claims are large enough for a verdict
instances: int = 20  # [2, 10000] random bandits
replicas: int = 2000  # [20, 1000000] measurements whose intervals are counted
qwen_checkpoints: int = 1  # [1, 100] warm starts of the Qwen
qwen_first: int = 0  # [0, 100000] seed of the first of them

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
import torch
from scipy.special import log_softmax

from rlvr_lib import figures
from rlvr_lib.claims import Ledger
from rlvr_lib.intervals import FALSE_ALARM, share_lower_bound
from rlvr_lib.studies import preconditioned as study
from rlvr_lib.testbeds.bandit import SoftmaxBandit
from rlvr_lib.testbeds.lines import TokenChain
from rlvr_lib.testbeds.qwen import checkpoints
from rlvr_lib.testbeds.transformer import TransformerTestbed
from rlvr_lib.testbeds.transformer.architecture import AttentionPolicy
from rlvr_lib.testbeds.transformer.problems import draw_problems
from rlvr_lib.theory.confidence import measured_rate
from rlvr_lib.theory.groups import symmetric_group
from rlvr_lib.theory.preconditioned import (
    adam_scale,
    gaining_rate,
    largest_stable_rate,
    preconditioned_curvature,
)

figures.set_style()
ledger = Ledger(2, "P1", profile, [seed], judged, lane="evidence")

# %% [markdown]
# ## One step in any direction
#
# **Theorem 1 does not ask for the gradient: a step by signs raises the log-odds at every rate below $8\lVert D\rVert_1/\mathrm{range}^2$, and so does a step by any preconditioner.**


# %% tags=["remove-input"]
@ledger.claim(
    "2-bandit-sign-gains",
    headline="Steps by signs and by random preconditioners raise the log-odds at every rate tried below 8⟨D, u⟩/range², on {n} bandits.",
    statement="smallest change of log-odds over the first-order one, for u = sign(D) and u = P D, P random and diagonal, at 0.05, 0.5 and 0.999 times 8 <D, u> / range(<u, f>)^2",
    testbed="bandit",
    at_least=0.0,
    n=instances,
    unit="bandits",
    sabotages={"four times as long": {"factor": 4.0}},
)
def smallest_gain(factor=1.0):
    gains = []
    for k in range(instances):
        bandit = SoftmaxBandit.random(seed + k)
        gap = bandit.log_odds_and_gap()[1]
        scale = np.exp(np.random.default_rng([seed, k]).normal(0, 1, len(gap)))
        for update in (np.sign(gap), scale * gap):
            rate = gaining_rate(gap, update, bandit.features[0])
            steps = factor * rate * np.array([0, 0.05, 0.5, 0.999])
            odds = bandit.odds_along(0, update, steps)
            gains.append((odds[1:] - odds[0]) / (steps[1:] * (gap @ update)))
    return np.min(gains)


# %% [markdown]
# Signs have no stable rate, because their steps do not shrink: they end in a cycle as wide as the rate, whose loss is quadratic in it.


# %% tags=["remove-input"]
@ledger.claim(
    "2-bandit-sign-plateau",
    headline="Steps by signs end below the maximum by an amount that goes as the rate to the power {measured:.2f}.",
    statement="chain of 32 tokens, signs of the exact gradient: exponent of the final loss of log J, the mean over starts, between the rates 0.02 and 0.01; two by the cycle {a, a - rate}",
    testbed="bandit",
    equals=2.0,
    within=0.02,
    kind="numerical",
    sabotages={"rates of 4 and 2, far from quadratic": {"largest": 4.0}},
)
def exponent_of_the_plateau(largest=0.02):
    chain = TokenChain.with_peak(length=32, success=0.5)
    best = chain.along(0.0).log_success
    losses = []
    for rate in (largest, largest / 2):
        starts = -rate * (50 + (np.arange(200) + 0.5) / 200)
        end, _ = study.signs_on_a_line(chain, starts, rate, 200)
        losses.append(np.mean(best - end))
    return np.log2(losses[0] / losses[1])


# %% [markdown]
# ## A run with Adam's momentum
#
# **Its boundary is sharp: at {claim}`2-bandit-adam-boundary:smallest_effect` below it every policy returned to its maximum, and at as much above it every one left.**
# A policy without a maximum has no such boundary, so each climbs $J-\beta\,\mathrm{KL}$ from beside its own tilt, over all responses ({doc}`evidence on a penalty </notebooks/evidence/02_penalty>`).
# The preconditioner is Adam's at the gradient of $J$ there, and held.

# %% tags=["hide-input"]
BETA, MOMENTUM, MARGIN = 0.5, 0.9, 0.05


def transformer(steps=3):
    """Chains of some steps over S3 in a context that holds every element, so that no response is impossible."""
    policy = AttentionPolicy(names=12)
    draws = (
        draw_problems(symmetric_group(3), [steps], 1, seed + k, names=12)
        for k in itertools.count()
    )
    problems = next(draw for draw in draws if len(draw.element.unique()) == 6)
    noise = np.random.default_rng(seed).standard_normal(policy.size)
    theta = policy.initial(2.0).numpy() + 0.3 * noise
    return TransformerTestbed(policy, problems, theta)


class OwnTiltOfBandit:
    """As ``study.OwnTilt``, for a log-linear bandit, with the Hessian in closed form."""

    def __init__(self, k):
        bandit = SoftmaxBandit.random(seed + k, dimension=4)
        r, self.theta = bandit.enumerate(), bandit.theta
        self.features, self.reward = bandit.features[0], r.reward
        self.reference = log_softmax(np.log(r.prob) - r.reward / BETA)
        self.fisher = (r.prob[:, None] * r.score).T @ r.score

    def gradient(self, theta):
        law = log_softmax(self.features @ theta)
        got = self.reward - BETA * (law - self.reference)
        return (np.exp(law) * (got - np.exp(law) @ got)) @ self.features

    def success_gradient(self):
        prob = np.exp(log_softmax(self.features @ self.theta))
        return (prob * (self.reward - prob @ self.reward)) @ self.features

    def top_eigenvector(self, scale):
        scale = np.broadcast_to(scale, self.theta.shape)
        root = np.sqrt(scale)
        vectors = np.linalg.eigh(root[:, None] * self.fisher * root)[1]
        value = preconditioned_curvature(-BETA * self.fisher, scale)
        return value, vectors[:, -1]


qwens = checkpoints(
    range(qwen_first, qwen_first + qwen_checkpoints), dtype=torch.float64
)
policies = {
    "bandit": [OwnTiltOfBandit(k) for k in range(instances)],
    "transformer": [study.OwnTilt(transformer(), 0, BETA)],
    "qwen": [
        study.OwnTilt(qwen, qwen.task.prompt((1, 2, 3)), BETA) for qwen in qwens
    ],
}


def bounded(testbed, momentum=MOMENTUM, seen=True):
    """Share of the policies that return just below the predicted rate and leave just above it."""
    found = []
    for own in policies[testbed]:
        slope = own.success_gradient()
        scale = adam_scale(slope**2, 1e-3 * np.abs(slope).max())
        value, vector = own.top_eigenvector(scale if seen else 1.0)
        rate = largest_stable_rate(value, momentum)
        nudge = 1e-6 * np.sqrt(scale) * vector
        below, above = (
            study.growth(
                own.gradient, own.theta, nudge, rate * f, scale, MOMENTUM, 80
            )
            for f in (1 - MARGIN, 1 + MARGIN)
        )
        found.append(below < 1 < above)
    return np.mean(found)


ADAM = {
    "equals": 1.0,
    "kind": "numerical",
    "within": 1e-6,
    "smallest_effect": MARGIN,
    "sabotages": {
        "the critical rate of one step": {"momentum": 0.0},
        "the curvature without the preconditioner": {"seen": False},
    },
}


# %% tags=["remove-input"]
@ledger.claim(
    "2-bandit-adam-boundary",
    headline="With Adam's momentum and preconditioner bandits leave their maximum at 2(1 + b)/((1 - b)λ), to 5%.",
    statement="share of log-linear bandits that return to the maximum of J - KL/2 at 0.95 times the predicted rate and leave it at 1.05 times that, momentum 0.9, lambda the largest eigenvalue of the preconditioned Hessian",
    testbed="bandit",
    n=instances,
    unit="bandits",
    **ADAM,
)
def bounded_bandits(momentum=MOMENTUM, seen=True):
    return bounded("bandit", momentum, seen)


@ledger.claim(
    "2-transformer-adam-boundary",
    headline="So does the transformer.",
    statement="whether the transformer returns to the maximum of J - KL/2 at 0.95 times the predicted rate and leaves it at 1.05 times that, over all its responses, momentum 0.9",
    testbed="transformer",
    **ADAM,
)
def bounded_transformer(momentum=MOMENTUM, seen=True):
    return bounded("transformer", momentum, seen)


@ledger.claim(
    "2-qwen-adam-boundary",
    headline="So does the Qwen, on {n} {unit}.",
    statement="share of checkpoints that return to the maximum of J - KL/2 at 0.95 times the predicted rate and leave it at 1.05 times that, over all 1,555 responses, momentum 0.9",
    testbed="qwen",
    n=qwen_checkpoints,
    unit="checkpoints",
    **ADAM,
)
def bounded_qwens(momentum=MOMENTUM, seen=True):
    return bounded("qwen", momentum, seen)


# %% [markdown]
# What does the logged ratio say of such a run?
# With momentum an update holds old gradients, so it overshoots and comes back: a stable run passes one, and moves downhill, again and again.


# %% tags=["remove-input"]
@ledger.claim(
    "2-bandit-momentum-ratio-is-no-alarm",
    headline="With momentum 0.9, at a tenth of its stable rate, a run that ends at the maximum takes {measured:.2f} of its steps downhill or beyond the critical one.",
    statement="chain of 32 tokens, exact gradients of log J, averaging momentum 0.9 at a tenth of its stable rate, 400 steps that end within 1e-3 of the maximum: share of steps that do not raise log J",
    testbed="bandit",
    at_least=0.25,
    kind="numerical",
    within=1e-6,
    sabotages={"no momentum, at a tenth of its stable rate": {"momentum": 0.0}},
)
def share_beyond(momentum=MOMENTUM):
    chain = TokenChain.with_peak(length=32, success=0.5)
    rate = 0.1 * largest_stable_rate(chain.along(0.0).curvature, momentum)
    run = study.momentum_on_a_line(chain, -0.1, rate, momentum, 400)
    moving = run.ratio
    return np.mean((moving == 0) | (moving > 1)) * (abs(run.last) < 1e-3)


# %% [markdown]
# ## Several passes with clipped ratios
#
# **Clipping never touches a first pass, at any rate; it ends the passes, and not the step.**


# %% tags=["hide-input"]
ANSWERS, SIZE, MANY = 3, 4, 128
laws = log_softmax(
    np.random.default_rng(seed).standard_normal((4, ANSWERS)), -1
)
REWARD = np.array([1.0, 0.0, 0.0])


def moved(rate, passes, clip=0.2):
    """Mean movement of log-odds after each pass, over all groups, for every law."""
    moves = np.array(
        [
            study.several_passes(law, REWARD, SIZE, rate, passes, clip, "grpo")
            for law in laws
        ]
    )
    return moves[..., 0] - moves[..., 1]


# %% tags=["remove-input"]
@ledger.claim(
    "2-bandit-clipped-first-pass",
    headline="In one pass clipping changes no update, at any rate.",
    statement="all groups of four of three answers, rates from 0.1 to 100: largest difference that clipping at 0.2 makes to the mean movement",
    testbed="bandit",
    equals=0.0,
    within=1e-9,
    sabotages={"two passes": {"passes": 2}},
)
def changed_by_clipping(passes=1):
    return max(
        np.abs(moved(rate, passes) - moved(rate, passes, None)).max()
        for rate in (0.1, 1.0, 10.0, 100.0)
    )


@ledger.claim(
    "2-bandit-clipped-passes-end",
    headline="At a rate of one half 128 passes with clipped ratios move the policy {measured:.3f} times as far as 64 do, at most.",
    statement="all groups of four of three answers, rate 0.5: largest ratio over laws of the mean movement after 128 passes to that after 64, ratios clipped at 0.2",
    testbed="bandit",
    at_most=1.01,
    kind="numerical",
    within=1e-6,
    sabotages={"without clipping": {"clip": None}},
)
def further_passes(clip=0.2):
    moves = moved(0.5, MANY, clip)
    return (moves[:, -1] / moves[:, MANY // 2 - 1]).max()


# %% tags=["remove-input"]
fig, axes = figures.panels(2)
for ax, rate in zip(axes, (0.1, 4.0), strict=True):
    for clip, label in ((0.2, "clipped at 0.2"), (None, "not clipped")):
        ax.plot(np.arange(1, 33), moved(rate, 32, clip)[0], label=label)
    ax.set(xlabel="passes over one group", ylabel="mean movement, nats")
    ax.set_title(f"learning rate {rate:g}")
axes[0].legend()
figures.show(
    fig,
    "Mean movement of a policy over all groups against the number of passes over one group, with clipped ratios and without, at a small learning rate, left, and at a large one, right. Left, both rise alike at first, and the clipped one then stays level; right, the first pass alone goes beyond the bound of the ratio, both with clipping and without.",
    caption="Clipping ends the passes over a batch. It does not shorten the first one, which at a large rate goes far beyond the bound by itself.",
)

# %% [markdown]
# ## How sure is a measured rate?
#
# **Where prompts agree, an interval by Fieller's theorem over two dozen of them held the true critical step in at least {claim}`2-bandit-rate-interval:measured:.3f` of the measurements, asked for $0.95$.**
# Where the slope may be zero it is no number, because not even its sign is known, and where the curvature may be, it has no upper end.
# Where prompts differ much, most measurements give none.

# %% tags=["hide-input"]
PROMPTS, GROUP, LEVEL, POPULATION = 24, 16, 0.95, 200
draw = np.random.default_rng([seed, 3])
shared = draw.standard_normal((8, 6))
theta = 0.2 * draw.standard_normal(6)


def population_of(spread):
    """Prompts whose features are those of one prompt, and Gaussian noise of a spread."""
    noise = draw.standard_normal((POPULATION, 8, 6))
    reward = np.broadcast_to(np.arange(8) < 2, (POPULATION, 8)).astype(float)
    return SoftmaxBandit(theta, shared + spread * noise, reward)


populations = {spread: population_of(spread) for spread in (0.3, 3.0)}


def exact_along(population):
    """A unit direction, and success of the population and its two derivatives along it."""
    prompts = range(POPULATION)
    gradient = np.mean([population.exact(q)[1] for q in prompts], axis=0)
    direction = gradient / np.linalg.norm(gradient)
    along = [population.along(q, direction) for q in prompts]
    return direction, np.mean(along, axis=0)


def measurements(population, direction):
    """Unbiased estimates of success and its two derivatives, [replicas, P], each prompt from a group of its own."""
    draw = np.random.default_rng([seed, 2])
    shape = (replicas, PROMPTS)
    prompts = draw.integers(POPULATION, size=shape)
    r = [population.enumerate(q) for q in range(POPULATION)]
    laws = np.array([one.prob for one in r]).cumsum(1)[prompts]
    arms = (draw.random((*shape, GROUP, 1)) > laws[..., None, :]).sum(-1)
    arms = np.minimum(arms, 7)
    slopes = np.array([one.score @ direction for one in r])
    slope = slopes[prompts[..., None], arms]
    reward = population.reward[prompts[..., None], arms]
    weight = (reward - reward.mean(-1, keepdims=True)) / (GROUP - 1)
    return (
        reward.mean(-1),
        (weight * slope).sum(-1),
        (weight * slope**2).sum(-1),
    )


judgements = {}
for spread, population in populations.items():
    direction, along = exact_along(population)
    bend = along[1] ** 2 / along[0] - along[2]
    true = 2 * along[1] / bend if bend > 0 else np.inf
    judgements[spread] = true, measurements(population, direction)


def counted(spread, shrunk=1.0):
    """Shares of measurements: with an interval that holds the truth, with none, without an upper end."""
    true, drawn = judgements[spread]
    holds, none, open_end = 0, 0, 0
    for one in zip(*drawn, strict=True):
        rate = measured_rate(*one)
        rate = rate._replace(covariance=shrunk**2 * rate.covariance)
        interval = rate.interval(LEVEL)
        none += interval is None
        if interval is not None:
            holds += interval.low <= true <= interval.high
            open_end += np.isinf(interval.high)
    return np.array([holds, none, open_end]) / replicas


figures.table(
    [
        (
            f"{spread:g}",
            f"{judgements[spread][0]:.2f}",
            *(f"{x:.3f}" for x in counted(spread)),
        )
        for spread in populations
    ],
    (
        "spread of the prompts",
        "true critical step",
        "interval holds it",
        "no interval",
        "no upper end",
    ),
)


# %% tags=["remove-input"]
@ledger.claim(
    "2-bandit-rate-interval",
    headline="Of the 95% intervals of a critical step from 24 prompts at least {measured:.3f} hold the true one.",
    statement="exact lower bound, from all measurements, of the share of Fieller intervals that hold the exact critical step of the mean success of a population of 200 prompts, from 24 of them drawn at random with 16 responses each",
    testbed="bandit",
    at_least=0.90,
    kind="statistical",
    false_alarm=FALSE_ALARM,
    smallest_effect=0.05,
    n=replicas,
    unit="measurements",
    sabotages={"errors taken for half as large": {"shrunk": 0.5}},
)
def share_that_holds(shrunk=1.0):
    held = round(counted(0.3, shrunk)[0] * replicas)
    return share_lower_bound(held, replicas)


# %% [markdown]
# What is not here: a threshold made by the noise of samples, for policies that have no maximum to overshoot, remains a conjecture.
# Adam's own preconditioner moves with the run; held fixed it is exact, and how it moves at the edge is another subject.

# %% tags=["remove-cell", "nbval-ignore-output"]
ledger.publish()
