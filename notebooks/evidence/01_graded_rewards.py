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
# # Evidence for chapter 1: graded rewards and what GRPO climbs
#
# **For every theorem about one prompt a reward between zero and one is a coin flipped after the response, so the theorems hold for partial credit and for verifiers that err; what does not survive is the division by a group's standard deviation, which in groups of up to {claim}`1-bandit-coin-std-turns@full:n` can step away from a higher mean reward.**
# Chapter {doc}`1 </notebooks/01_gap_alignment>` is about answers that are right or wrong.
# Here rewards are graded, the verifier errs, and the last two sections ask what GRPO climbs and whom a shared step harms.
# No paper that the book follows states any of this; what others have found is named where it is used.

# %% tags=["parameters", "remove-cell"]
profile: str = "book"  # label of the profile that set these parameters
seed: int = 0  # [0, 4294967295] seed of every random draw
judged: bool = True  # whether sampled claims are large enough for a verdict
qwen_model: str = "tiny"  # tiny, a hub name or a local path
instances: int = 60  # [3, 100000] random bandits an experiment
transformer_prompts: int = 4  # [1, 100] prompts of the transformer
qwen_checkpoints: int = 2  # [1, 100] warm starts of the Qwen
qwen_first: int = 0  # [0, 100000] seed of the first of them
qwen_prompts: int = 2  # [2, 36] prompts a checkpoint, words of two elements

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
from scipy.special import logit, softmax

from rlvr_lib import figures
from rlvr_lib.claims import Ledger, relative_error
from rlvr_lib.responses import conditional_covariances, success_rate
from rlvr_lib.studies.gap import instances as draw_instances
from rlvr_lib.studies.threshold import qwen as qwen_study
from rlvr_lib.testbeds import partial_credit as credit
from rlvr_lib.testbeds.bandit import SoftmaxBandit, feature_diameter
from rlvr_lib.testbeds.transformer import (
    AttentionPolicy,
    TransformerTestbed,
    draw_problems,
)
from rlvr_lib.theory.climb import group_potential, harmed_share_bound
from rlvr_lib.theory.curvature import (
    curvature_bound,
    guaranteed_gain,
    power_step,
)
from rlvr_lib.theory.gap import gradient_gap, policy_gradient
from rlvr_lib.theory.graded import (
    coin_responses,
    expected_advantages,
    noisy_gap_factor,
    noisy_rate_factor,
    noisy_success,
)
from rlvr_lib.theory.groups import symmetric_group
from rlvr_lib.theory.threshold import critical_step, first_return_step

figures.set_style()
ledger = Ledger(1, "P1", profile, [seed], judged, lane="evidence")

# %% [markdown]
# ## Is a graded reward a coin?
#
# **Yes: gap, curvature, the bound on a step, its critical length and the gain of theorem 4 hold for the mean reward with $\sigma^2 = J(1-J)$, on {claim}`1-bandit-coin-one-step-bound@full:n` steps without a violation.**
#
# ```{prf:theorem} Coin lemma
# :label: thm-coin
# Let the reward $r(o)$ of a response lie in $[0,1]$, let $J = E[r]$, $E_+[\cdot] = E[r\,\cdot]/J$ and $E_-[\cdot] = E[(1-r)\,\cdot]/(1-J)$.
# Then $\nabla \operatorname{logit} J = E_+[s] - E_-[s]$, and every statement of chapters 1, 2 and 4 about the expected update, the gap or the curvature of one prompt's success holds for $J$, with $\sigma^2 = J(1-J)$.
# ```
#
# ````{dropdown} Proof
# ```{prf:proof}
# Let a coin fall on success with probability $r(o)$ after the response $o$.
# The pair of response and coin has the probability $\pi(o)\,r(o)$ or $\pi(o)\,(1-r(o))$, and since $r$ does not depend on the parameters, its score is $s(o)$ and its Hessian that of $o$.
# In a log-linear policy the pair has the features of $o$ and a fixed offset $\log r(o)$ or $\log(1-r(o))$, so the policy over pairs is log-linear with the same diameter.
# The pair is right or wrong, with probability $J$ of being right, so all that was proved for right and wrong answers applies. $\square$
# ```
# ````
#
# The variance that counts is the coin's.
# That of the rewards is smaller, $\operatorname{Var} r = J(1-J) - E[r(1-r)]$, and the bounds fail with it.
# The bandits have eight responses; their rewards fill an interval of length one, one half or a tenth.

# %% tags=["remove-cell"]
start = draw_instances(instances, seed)
rng = np.random.default_rng(seed + 1)
width = np.array([1.0, 0.5, 0.1])[np.arange(instances) % 3, None]
low = (1 - width) * rng.uniform(size=(instances, 1))
reward = low + width * rng.uniform(size=start.reward.shape)


def probabilities(theta):
    return softmax(np.einsum("nad,nd->na", start.features, theta), axis=1)


def mean_reward(theta):
    return (probabilities(theta) * reward).sum(1)


prob = probabilities(start.theta)
score = start.features - np.einsum("na,nad->nd", prob, start.features)[:, None]
coins = [coin_responses(*row) for row in zip(reward, score, prob, strict=True)]
J = np.array([success_rate(r) for r in coins])
gap = np.array([gradient_gap(r) for r in coins])
spread = (prob * (reward - J[:, None]) ** 2).sum(1)  # variance of the reward
HALVED = [
    coin_responses(r > np.median(r), *row)
    for r, *row in zip(reward, score, prob, strict=True)
]

# %% tags=["hide-input"]
leaf = torch.tensor(start.theta, requires_grad=True)
features = torch.tensor(start.features)
logits = torch.einsum("nad,nd->na", features, leaf)
torch_mean = (torch.softmax(logits, 1) * torch.tensor(reward)).sum(1)
line = rng.standard_normal(start.theta.shape)
line /= np.linalg.norm(line, axis=1, keepdims=True)


def derivatives(value):
    """Gradient and second derivative along ``line``, by autograd."""
    (gradient,) = torch.autograd.grad(value.sum(), leaf, create_graph=True)
    slope = (gradient * torch.tensor(line)).sum()
    (second,) = torch.autograd.grad(slope, leaf, retain_graph=True)
    return gradient.detach().numpy(), (second.numpy() * line).sum(1)


found_gap, found_bend = derivatives(torch.logit(torch_mean))
_, found_second = derivatives(torch_mean)


# %% tags=["remove-input"]
@ledger.claim(
    "1-bandit-coin-identities",
    headline="Gap and curvatures of the coin are those of the mean reward on {n} bandits with graded rewards.",
    statement="I1, I3 and I4 on the population of response and coin, against automatic differentiation of the mean reward (largest relative error)",
    testbed="bandit",
    equals=0.0,
    within=1e-9,
    n=instances,
    unit="bandits",
    sabotages={
        "variance of the reward in place of J(1-J)": {"variance": spread},
        "the better half of the responses counted as right": {
            "population": HALVED
        },
    },
)
def coin_error(variance=J * (1 - J), population=coins):
    both = [conditional_covariances(r) for r in population]
    parts = np.array(
        [(w @ a @ w, w @ b @ w) for w, (a, b) in zip(line, both, strict=False)]
    )
    D = np.array([gradient_gap(r) for r in population])
    D *= (J * (1 - J) / variance)[:, None]
    mixed = np.array([success_rate(r) for r in population])
    outer = (1 - 2 * mixed) * (D * line).sum(1) ** 2
    bend = parts[:, 0] - parts[:, 1]
    return max(
        relative_error(D, found_gap),
        relative_error(bend, found_bend),
        relative_error(variance * (bend + outer), found_second),
    )


# %% tags=["remove-cell"]
DIRECTIONS = 24
diameter = feature_diameter(start.features)
tries = []
for _ in range(DIRECTIONS):
    w = rng.standard_normal(start.theta.shape)
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    along = np.einsum("nad,nd->na", start.features, w)
    length = rng.uniform(0, 24, instances) * np.abs((w * gap).sum(1))
    length /= np.ptp(along, axis=1) ** 2
    after = mean_reward(start.theta + length[:, None] * w)
    tries.append((w, length, np.ptp(along, axis=1), logit(after) - logit(J)))


# %% tags=["remove-input"]
@ledger.claim(
    "1-bandit-coin-one-step-bound",
    headline="Of {n} steps on graded rewards {measured:.0f} lost more log-odds of the mean reward than the bound for right and wrong answers allows.",
    statement="log-linear policies, rewards in [0, 1]: every step raises logit E[r] by at least its product with the coin's gap minus diam^2 / 8 of its squared length (steps that do not)",
    testbed="bandit",
    equals=0,
    n=DIRECTIONS * instances,
    unit="steps",
    sabotages={
        "variance of the reward in place of J(1-J)": {"variance": spread},
        "the better half of the responses counted as right": {
            "population": HALVED
        },
    },
)
def coin_violations(variance=J * (1 - J), population=coins):
    D = np.array([gradient_gap(r) for r in population])
    D *= (J * (1 - J) / variance)[:, None]
    count = 0
    for w, length, range_, gained in tries:
        least = length * (w * D).sum(1) - length**2 * range_**2 / 8
        count += (gained < least - 1e-12).sum()
    return count


# %% [markdown]
# Along the gap some mean rewards return to where they began.
# The return lies beyond the critical step of chapter 2 on all of them, with the largest curvature of $\log J$ on the way.

# %% tags=["remove-cell"]
unit_gap = gap / np.linalg.norm(gap, axis=1, keepdims=True)
short = 1e-3 / diameter
returns = first_return_step(
    lambda eta: (
        logit(mean_reward(start.theta + eta[:, None] * unit_gap)) - logit(J)
    ),
    short,
    1e6 * short,
)
back = np.flatnonzero(np.isfinite(returns))
projected = np.einsum("nad,nd->na", start.features, unit_gap)


def log_curvature(eta):
    """Minus the second derivative of log J along the gap, [n]."""
    p = probabilities(start.theta + eta[:, None] * unit_gap)
    q = p * reward / (p * reward).sum(1, keepdims=True)
    moments = [
        (law * projected**2).sum(1) - (law * projected).sum(1) ** 2
        for law in (p, q)
    ]
    return moments[0] - moments[1]


shares = np.linspace(0, 1, 401)
reach = np.where(np.isfinite(returns), returns, 1.0)
steepest = np.max([log_curvature(c * reach) for c in shares], axis=0)


# %% tags=["remove-input"]
@ledger.claim(
    "1-bandit-coin-critical-step",
    headline="Of {n} mean rewards that return along the gap {measured:.0f} return before the critical step.",
    statement="graded rewards: the mean reward returns to its start no earlier than 2 (1-J) alignment / l, l the largest curvature of log J up to there (bandits on which it does)",
    testbed="bandit",
    equals=0,
    n=len(back),
    unit="bandits",
    sabotages={
        "a constant of 8 in place of 2": {"times": 4.0},
        "variance of the reward in place of J(1-J)": {"variance": spread},
    },
)
def early_returns(times=1.0, variance=J * (1 - J)):
    alignment = np.linalg.norm(gap, axis=1) * J * (1 - J) / variance
    bound = times * critical_step(J[back], alignment[back], steepest[back])
    return (returns[back] < bound * (1 - 1e-9)).sum()


# %% tags=["remove-cell"]
weighted = prob * (reward - J[:, None])
hessian = np.einsum("na,nai,naj->nij", weighted, score, score)
largest = np.abs(np.linalg.eigvalsh(hessian)).max(1)
steep = np.linalg.norm(np.einsum("na,nad->nd", weighted, score), axis=1)


def like(variance):
    """The success rate below one half of that variance."""
    return (1 - np.sqrt(1 - 4 * variance)) / 2


# %% tags=["remove-input"]
@ledger.claim(
    "1-bandit-coin-curvature-bound",
    headline="The curvature of the mean reward is at most {measured:.2f} of what J(1-J) allows, on {n} bandits.",
    statement="graded rewards: the spectral norm of Hess E[r] over diam^2 J(1-J) (largest)",
    testbed="bandit",
    at_most=1.0,
    n=instances,
    unit="bandits",
    sabotages={
        "variance of the reward in place of J(1-J)": {"at": like(spread)}
    },
)
def curvature_share(at=J):
    return (largest / curvature_bound(at, diameter)).max()


# %% tags=["remove-input"]
@ledger.claim(
    "1-bandit-coin-guaranteed-gain",
    headline="The gain that theorem 4 guarantees is kept by {n} steps on graded rewards, with {measured:.0f} exceptions.",
    statement="steps of 4 / (diam^2 (2 sigma)^a) times grad E[r], a = 0, 1, 2, sigma^2 = J(1-J): E[r] gains at least what is guaranteed (steps that do not)",
    testbed="bandit",
    equals=0,
    n=3 * instances,
    unit="steps",
    sabotages={
        "variance of the reward in place of J(1-J)": {"at": like(spread)}
    },
)
def short_gains(at=J):
    count, gradient = 0, steep[:, None] * unit_gap
    for power in (0.0, 1.0, 2.0):
        step = power_step(at, power, diameter)[:, None] * gradient
        gained = mean_reward(start.theta + step) - J
        count += (
            gained < guaranteed_gain(at, power, steep, diameter) * (1 - 1e-9)
        ).sum()
    return count


# %% [markdown]
# ### On the networks
#
# A chain of group elements earns the share of its running products that are right.
# The coin's gap comes from all responses and their scores; the testbeds' own exact methods, which know no graded rewards, give the mean reward as a mean of tasks, one for each place of the chain.

# %% tags=["remove-cell"]
HORIZON = 3
policy = AttentionPolicy(6)
problems = draw_problems(
    symmetric_group(3), [HORIZON], transformer_prompts, seed, names=6
)
theta = policy.initial(2.0).numpy() + rng.standard_normal(policy.size) / 2
transformer = TransformerTestbed(policy, problems, theta)
qwens = qwen_study.warm_starts(qwen_model, qwen_checkpoints, qwen_first)
words = [
    qwen_study.words(q, 2, qwen_prompts, (seed, k)) for k, q in enumerate(qwens)
]
B, A = 0.2, 0.05  # right answers rejected, wrong ones accepted
GROUPS = (2, 4, 8, 16)


def sine(update, gradient):
    """Sine of the angle between two vectors."""
    u, g = (x / np.linalg.norm(x) for x in (update, gradient))
    return float(np.linalg.norm(u - (u @ g) * g))


def measure(testbed, steps, graded, prompt):
    """What is claimed of one prompt of a network; its scores are not kept."""
    every = testbed.enumerate(prompt)
    p, right = every.prob, every.reward
    mean, gradient = credit.mean_success(steps, prompt)
    _odds, D = testbed.log_odds_and_gap(prompt)
    own = {"mean": mean, "success": success_rate(every), "gap": D}
    own["deviation"] = np.sqrt(p @ (graded - mean) ** 2)
    thrown = coin_responses(graded, every.score, p)
    own["thrown"] = thrown.prob @ ((thrown.reward - mean) ** 2 * thrown.energy)
    own["graded"] = p @ ((graded - mean) ** 2 * every.energy)
    own["spared"] = p @ (graded * (1 - graded) * every.energy)
    own["plain"] = p @ (graded * (1 - graded)) * (p @ every.energy)
    own["want"] = gradient / (mean * (1 - mean))
    for name, r in (
        ("coin", graded),
        ("all right", right),
        ("noisy", A + (1 - A - B) * right),
    ):
        own[name] = gradient_gap(coin_responses(r, every.score, p))
    for power, G in itertools.product((0.0, 1.0), GROUPS):
        update = (p * expected_advantages(graded, p, G, power)) @ every.score
        own[power, G] = sine(update, gradient)
    return own


on_transformer = [
    measure(
        transformer,
        credit.transformer_steps(transformer),
        credit.transformer_credit(transformer, prompt),
        prompt,
    )
    for prompt in range(transformer_prompts)
]
on_qwen = []
for qwen, prompts in zip(qwens, words, strict=True):
    steps = credit.qwen_steps(qwen, 2)
    on_qwen += [
        measure(qwen, steps, credit.qwen_credit(steps, prompt), prompt)
        for prompt in prompts
    ]
COIN = {
    "statement": "share of right steps as reward: gap of the coins from all responses against the gradient of the log-odds of the mean reward from the testbed's exact methods (largest relative error)",
    "equals": 0.0,
    "within": 1e-9,
    "unit": "prompts",
    "sabotages": {
        "only whole chains count": {"name": "all right"},
        "variance of the reward in place of J(1-J)": {"coin": False},
    },
}


def gap_error(prompts, name, coin):
    errors = []
    for own in prompts:
        J = own["mean"]
        factor = 1.0 if coin else J * (1 - J) / own["deviation"] ** 2
        errors.append(relative_error(factor * own[name], own["want"]))
    return max(errors)


# %% tags=["remove-input"]
@ledger.claim(
    "1-transformer-coin-gap",
    headline="The coin's gap is the gradient of the log-odds of partial credit on {n} prompts of the transformer.",
    testbed="transformer",
    n=len(on_transformer),
    **COIN,
)
def transformer_gap_error(name="coin", coin=True):
    return gap_error(on_transformer, name, coin)


# %% tags=["remove-input"]
@ledger.claim(
    "1-qwen-coin-gap",
    headline="The coin's gap is the gradient of the log-odds of partial credit on {n} prompts of the Qwen.",
    testbed="qwen",
    n=len(on_qwen),
    **COIN,
)
def qwen_gap_error(name="coin", coin=True):
    return gap_error(on_qwen, name, coin)


# %% [markdown]
# The coin is for the means only, so do not throw it: a gradient from graded rewards has the baseline of theorem 5 and less noise, by $E[r(1-r)|s|^2]$ of its second moment.


# %% tags=["remove-input"]
@ledger.claim(
    "1-qwen-coin-thrown",
    headline="Throwing the coin in place of using the graded reward adds E[r(1-r)|s|²] to the gradient's second moment, on {n} prompts of the Qwen.",
    statement="share of right steps, the mean as baseline: second moment of the gradient with coins less that with graded rewards, against E[r(1-r)|s|^2] (largest relative error)",
    testbed="qwen",
    equals=0.0,
    within=1e-9,
    n=len(on_qwen),
    unit="prompts",
    sabotages={"reward and energy independent": {"name": "plain"}},
)
def thrown_error(name="spared"):
    return max(
        abs((own["thrown"] - own["graded"]) / own[name] - 1) for own in on_qwen
    )


# %% tags=["hide-input"]
for name, found in (("transformer", on_transformer), ("Qwen", on_qwen)):
    more = [own["thrown"] / own["graded"] for own in found]
    longer = [
        np.sqrt(own["mean"] * (1 - own["mean"])) / own["deviation"]
        for own in found
    ]
    print(
        f"{name:12} second moment with coins over graded, median {np.median(more):.2f};",
        f"GRPO's step over the coins', large groups {np.median(longer):.2f}",
    )

# %% [markdown]
# ## What does a verifier that errs change?
#
# **The gap keeps its direction, and a verifier that errs in one answer of ten on either side costs {claim}`1-bandit-coin-noisy-cost@full:measured:.2f` times as many responses at a success of one half.**
#
# Let it reject right answers with probability $b$ and accept wrong ones with probability $a$, whatever the answer, $a + b < 1$.
# By {prf:ref}`thm-coin` its verdict is the coin of a reward of $1-b$ or $a$, so
#
# $$
# \tilde J = a + (1-a-b)\,J, \qquad
# \tilde D = (1-a-b)\,\frac{J(1-J)}{\tilde J(1-\tilde J)}\,D .
# $$
#
# Seen and true success rise and fall together, so the critical *step* is that of a perfect verifier, and the critical *rate* grows as the update shrinks: by $1/(1-a-b)$ for REINFORCE, Dr. GRPO and RLOO, by $\tilde\sigma/(\sigma(1-a-b))$ for GRPO in large groups.
# That the sign of $1-a-b$ decides between learning and unlearning was found before {cite}`rad2026rate`; rewards can be corrected for known $a$ and $b$ {cite}`cai2025noisy`.

# %% tags=["hide-input"]
fig, (left, right) = figures.panels(2)
grid = np.linspace(0.01, 0.99, 197)
for b, a in ((0.1, 0.1), (0.2, 0.0), (0.0, 0.2)):
    seen, passed = noisy_success(grid, b, a), 1 - a - b
    label = f"rejects {b:.0%}, accepts {a:.0%}"
    left.plot(grid, noisy_gap_factor(grid, b, a), label=label)
    cost = seen * (1 - seen) / (passed**2 * grid * (1 - grid))
    right.plot(grid, cost, label=label)
left.set(xlabel="true success", ylabel="seen gap / true gap", ylim=(0, 1))
right.set(xlabel="true success", ylabel="responses needed, times", yscale="log")
left.legend()
figures.show(
    fig,
    f"Two panels over the true success. Left, the length of the gap that a verifier sees over the true one, for three pairs of error rates: with a tenth of errors on either side it is {noisy_gap_factor(0.5, 0.1, 0.1):.2f} at one half and {noisy_gap_factor(0.02, 0.1, 0.1):.2f} at a success of one fiftieth. Right, how many times as many responses give the same signal to noise, from below two in the middle to above ten at the ends where errors drown the rare outcome.",
    caption="A verifier that errs shortens the gap and never turns it. Errors cost most where the outcome that they imitate is rare: accepting wrong answers hurts hard prompts, rejecting right ones easy prompts.",
)

# %% tags=["remove-cell"]
NOISY = {
    "statement": "right answers rejected with probability .2, wrong ones accepted with probability .05: the gap of its coins against the stated factor times the testbed's own gap (largest relative error)",
    "equals": 0.0,
    "within": 1e-9,
    "unit": "prompts",
    "sabotages": {
        "error rates exchanged": {"rates": (A, B)},
        "only the factor 1-a-b": {"whole": False},
    },
}


def noisy_error(prompts, rates, whole):
    errors = []
    for own in prompts:
        factor = noisy_gap_factor(own["success"], *rates)
        factor = factor if whole else 1 - sum(rates)
        errors.append(relative_error(own["noisy"], factor * own["gap"]))
    return max(errors)


# %% tags=["remove-input"]
@ledger.claim(
    "1-transformer-coin-noisy-gap",
    headline="A verifier that errs shortens the transformer's gap by the known factor and does not turn it, on {n} prompts.",
    testbed="transformer",
    n=len(on_transformer),
    **NOISY,
)
def transformer_noisy_error(rates=(B, A), whole=True):
    return noisy_error(on_transformer, rates, whole)


# %% tags=["remove-input"]
@ledger.claim(
    "1-qwen-coin-noisy-gap",
    headline="A verifier that errs shortens the Qwen's gap by the known factor and does not turn it, on {n} prompts.",
    testbed="qwen",
    n=len(on_qwen),
    **NOISY,
)
def qwen_noisy_error(rates=(B, A), whole=True):
    return noisy_error(on_qwen, rates, whole)


# %% tags=["remove-cell"]
def mean_update(r, b, a, group_size, power):
    """Mean update of a group judged by coins, over its G - 1 others."""
    seen = noisy_success(success_rate(r), b, a)
    if group_size is None and power == 0:
        wrong, right = -seen, 1 - seen
    else:
        law = [1 - seen, seen]
        wrong, right = expected_advantages([0, 1], law, group_size, power)
    accepted = np.where(r.reward == 1, 1 - b, a)
    return (r.prob * (wrong + (right - wrong) * accepted)) @ r.score


def critical_rate(bandit, update):
    """The rate at which a step along the update first lowers TRUE success."""
    odds = bandit.log_odds_and_gap()[0]
    unit = 1e-3 / np.linalg.norm(update)
    return first_return_step(
        lambda rate: bandit.odds_along(0, update, rate) - odds, unit, 1e5 * unit
    )


binary = [
    SoftmaxBandit(
        start.theta[k], start.features[k : k + 1], start.reward[k : k + 1]
    )
    for k in range(min(instances, 200))
]
KINDS = ((0.0, None), (0.0, 8), (1.0, 8), (1.0, None))


def critical_ratios(bandit):
    """Critical rate with errors over without, of every kind of update."""
    r = bandit.enumerate()
    rates = [
        [
            critical_rate(bandit, mean_update(r, b, a, G, power))
            for b, a in pairs
        ]
        for power, G in KINDS
        for pairs in [((B, A), (0.0, 0.0))]
    ]
    return np.divide(*np.transpose(rates))


def returns_along(bandit):
    update = mean_update(bandit.enumerate(), 0.0, 0.0, None, 0.0)
    return np.isfinite(critical_rate(bandit, update))


clean = list(itertools.islice(filter(returns_along, binary), 8))
ratios = [critical_ratios(bandit) for bandit in clean]


# %% tags=["remove-input"]
@ledger.claim(
    "1-bandit-coin-noisy-rate",
    headline="Under a verifier that errs the critical rate is that of a perfect one times the known factor, for {n} bandits and estimators.",
    statement="REINFORCE, Dr.GRPO and GRPO (G = 8 and large groups): the rate at which the mean update first lowers true success, with errors over without, against noisy_rate_factor (largest relative error)",
    testbed="bandit",
    equals=0.0,
    within=1e-9,
    n=len(KINDS) * len(clean),
    unit="pairs of bandit and estimator",
    sabotages={
        "error rates exchanged": {"rates": (A, B)},
        "GRPO counted as REINFORCE": {"blind": True},
    },
)
def rate_error(rates=(B, A), blind=False):
    worst = 0.0
    for bandit, found in zip(clean, ratios, strict=True):
        J = success_rate(bandit.enumerate())
        for (power, G), ratio in zip(KINDS, found, strict=True):
            kind = "grpo" if power and not blind else "reinforce"
            factor = noisy_rate_factor(J, *rates, kind, G)
            worst = max(worst, abs(ratio / factor - 1))
    return worst


# %% [markdown]
# Noise is another matter: a smaller step could be made up for by a larger rate, but the noise of wrong verdicts comes with it.
# With the mean as baseline, and where right and wrong responses have equal score energy, the same signal to noise takes $\tilde\sigma^2/((1-a-b)^2\sigma^2)$ times as many responses.


# %% tags=["remove-input"]
@ledger.claim(
    "1-bandit-coin-noisy-cost",
    headline="At a success of one half a verifier that errs in a tenth of the answers on either side needs {measured:.4f} times as many responses.",
    statement="two equally likely answers, one right, a = b = .1: second moment over squared mean of one response's gradient with the mean as baseline, over that of a perfect verifier, against 1 / .8^2",
    testbed="bandit",
    equals=1 / 0.8**2,
    within=1e-9,
    sabotages={
        "errs on right answers only": {"a": 0.0},
        "a success of one tenth": {"J": 0.1},
    },
)
def responses_needed(b=0.1, a=0.1, J=0.5):
    noise = []
    for reward in ([1 - b, a], [1.0, 0.0]):
        r = coin_responses(reward, [[1.0], [-1.0]], [J, 1 - J])
        gradient = np.linalg.norm(policy_gradient(r))
        second = r.prob @ ((r.reward - success_rate(r)) ** 2 * r.energy)
        noise.append(second / gradient**2)
    return noise[0] / noise[1]


# %% [markdown]
# ## May graded rewards be divided by their group's standard deviation?
#
# **Not safely: with three levels of reward GRPO's mean update can lower the mean reward, and on the Qwen's partial credit it turns by up to {claim}`1-qwen-coin-std-angle@full:measured:.0f` degrees, while removing the mean alone turns nothing.**
#
# The mean update of a group is $\sum_o \pi(o)\,w(r(o))\,s(o)$, with $w(x)$ the mean advantage of a response of reward $x$ over all groups that it may be in.
# Removing the mean gives $w(x) = (1-\frac1G)(x - J)$.
# Dividing by the group's deviation makes $w$ another function of the reward, and GRPO follows the gradient of *that* reward.
# With two levels every function is linear, so nothing turns; with three it can.
# In large groups $w(x) = (x-J)/\sqrt{\operatorname{Var} r}$, which is linear again, but longer than for coins by $\sigma/\sqrt{\operatorname{Var} r}$, so the critical rate is shorter by as much.


# %% tags=["remove-input"]
@ledger.claim(
    "1-bandit-coin-two-levels",
    headline="With two levels of reward GRPO's mean update is parallel to the gradient, on {n} bandits in groups of two to eight.",
    statement="rewards of .3 and .8: sine of the angle between GRPO's mean update over all groups and the gradient of the mean reward (largest)",
    testbed="bandit",
    equals=0.0,
    within=1e-9,
    n=instances,
    unit="bandits",
    sabotages={"a third level": {"third": 0.6}},
)
def largest_sine(third=0.3):
    worst = 0.0
    for p, s, right in zip(prob, score, start.reward, strict=True):
        r = np.where(right == 1, 0.8, 0.3)
        r[-1] = third
        gradient = (p * (r - p @ r)) @ s
        for G in (2, 4, 8):
            update = (p * expected_advantages(r, p, G)) @ s
            worst = max(worst, sine(update, gradient))
    return worst


# %% tags=["remove-input"]
ARMS = np.array([0.5, 0.15, 0.35])  # a safe answer, and a gamble of two
GAMBLE = np.array([[0.0], [1.0], [1.0]])


@ledger.claim(
    "1-bandit-coin-std-turns",
    headline="A policy of three answers would raise its mean reward by gambling, and GRPO's mean update, in groups of two to {n}, changes it by {measured:.1e} at best.",
    statement="probabilities .5, .15, .35, rewards .25, 1, 0, one parameter towards the last two: change of the mean reward by a step of GRPO's mean update, G = 2 to 8 (largest)",
    testbed="bandit",
    at_most=-1e-4,
    n=8,
    unit="responses a group",
    sabotages={
        "mean removed, not divided": {"power": 0.0},
        "two levels": {"safe": 0.0},
        "groups of thirty-two": {"sizes": (32,)},
    },
)
def best_change(safe=0.25, power=1.0, sizes=range(2, 9)):
    reward = np.array([safe, 1.0, 0.0])
    score = GAMBLE - ARMS @ GAMBLE
    changes = []
    for G in sizes:
        update = (ARMS * expected_advantages(reward, ARMS, G, power)) @ score
        moved = softmax(np.log(ARMS) + GAMBLE @ update)
        changes.append(float((moved - ARMS) @ reward))
    return max(changes)


# %% tags=["remove-input"]
DEVIATION = np.sqrt(spread)


@ledger.claim(
    "1-bandit-coin-large-groups",
    headline="In large groups GRPO's mean update on graded rewards is the coin's gap times J(1-J) over the deviation of the reward, on {n} bandits.",
    statement="the limit of large groups: mean update against J(1-J) / sd(r) times the coin's gap (largest relative error)",
    testbed="bandit",
    equals=0.0,
    within=1e-9,
    n=instances,
    unit="bandits",
    sabotages={"the coin's deviation": {"deviation": np.sqrt(J * (1 - J))}},
)
def limit_error(deviation=DEVIATION):
    found = [
        (p * expected_advantages(r, p, None)) @ s
        for r, p, s in zip(reward, prob, score, strict=True)
    ]
    gain = J * (1 - J) / deviation
    return relative_error(np.array(found), gain[:, None] * gap)


# %% tags=["hide-input"]
levels = np.round(4 * (reward - low) / width) / 4  # five levels
rows = []
for G in (*GROUPS, 64):
    cosine = []
    for r, p, s in zip(levels, prob, score, strict=True):
        gradient = (p * (r - p @ r)) @ s
        update = (p * expected_advantages(r, p, G)) @ s if G < 64 else gradient
        norms = np.linalg.norm(update) * np.linalg.norm(gradient)
        cosine.append(update @ gradient / norms)
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    if G < 64:
        net = [
            f"{np.degrees(np.arcsin(max(own[1.0, G] for own in found))):.1f}"
            for found in (on_transformer, on_qwen)
        ]
        rows.append((G, f"{np.median(angle):.1f}", f"{angle.max():.0f}", *net))
figures.table(
    rows,
    (
        "group",
        "bandits, median",
        "bandits, largest",
        "transformer, largest",
        "Qwen, largest",
    ),
)

# %% [markdown]
# The angles, in degrees, are between GRPO's mean update and the gradient of the mean reward: five levels of reward on the bandits, the share of right steps on the networks.
# They are exact, and those of a group size of two are the angles of a *ranking*, because there GRPO sees only which response is better.

# %% tags=["remove-cell"]
PARALLEL = {
    "statement": "share of right steps: sine of the angle between the mean update of groups of 2, 4, 8 and 16, mean removed and not divided, and the gradient of the mean reward from the testbed's exact methods (largest)",
    "equals": 0.0,
    "within": 1e-9,
    "unit": "prompts",
    "sabotages": {"divided by the deviation": {"power": 1.0}},
}


def turned(prompts, power):
    return max(own[power, G] for own in prompts for G in GROUPS)


# %% tags=["remove-input"]
@ledger.claim(
    "1-transformer-coin-mean-only",
    headline="On the transformer's partial credit Dr. GRPO and RLOO follow the gradient exactly, on {n} prompts.",
    testbed="transformer",
    n=len(on_transformer),
    **PARALLEL,
)
def transformer_turned(power=0.0):
    return turned(on_transformer, power)


# %% tags=["remove-input"]
@ledger.claim(
    "1-qwen-coin-mean-only",
    headline="On the Qwen's partial credit Dr. GRPO and RLOO follow the gradient exactly, on {n} prompts.",
    testbed="qwen",
    n=len(on_qwen),
    **PARALLEL,
)
def qwen_turned(power=0.0):
    return turned(on_qwen, power)


# %% tags=["remove-input"]
@ledger.claim(
    "1-qwen-coin-std-angle",
    headline="On the Qwen's partial credit GRPO in groups of four turns by up to {measured:.0f} degrees, on {n} prompts.",
    statement="share of right steps: angle in degrees between GRPO's mean update at G = 4 and the gradient of the mean reward (largest; an illustration, because it is that of this reward)",
    testbed="qwen",
    kind="illustration",
    at_most=90.0,
    n=len(on_qwen),
    unit="prompts",
    sabotages={"the three answers above": {"found": [np.pi]}},
)
def largest_angle(found=()):
    angles = [np.arcsin(own[1.0, 4]) for own in on_qwen]
    return np.degrees(max(found or angles))


# %% [markdown]
# ## What does GRPO climb?
#
# **For right and wrong answers, the sum over prompts of a known function $\Phi_G(J)$ that is steepest at zero and one; for three levels of reward nothing, because the update then does work of at least {claim}`1-bandit-climbs-nothing-graded@full:measured:.1f` around a loop.**
#
# The mean update of one prompt is a gain times the gap, and the gap the gradient of the log-odds, so it is the gradient of $\Phi$ with $\Phi'(J) = \mathrm{gain}(J)/(J(1-J))$.
#
# ```{prf:theorem} What GRPO climbs
# :label: thm-climbs
# In groups of $G$, with the population deviation, the expected update of GRPO is the gradient of
#
# $$
# \Phi_G(J) = \sum_{k=1}^{G-1} \frac{P(K \ge k)}{\sqrt{k(G-k)}}, \qquad K \sim \mathrm{Binomial}(G-1, J),
# $$
#
# which tends to $2\arcsin\sqrt J$; for Dr. GRPO it is $(1-\frac1G)J$.
# ```
#
# ````{dropdown} Proof
# ```{prf:proof}
# By {prf:ref}`thm-gain` the gain is $\sum_k \binom Gk J^k(1-J)^{G-k}\sqrt{k(G-k)}/G$.
# Over $J(1-J)$, term $k$ is $\sqrt{k(G-k)}/G$ times $\binom Gk J^{k-1}(1-J)^{G-k-1}$, whose integral from $0$ to $J$ is $\frac{G}{k(G-k)}$ times the regularised incomplete beta function $I_J(k, G-k)$, and that is $P(K \ge k)$. $\square$
# ```
# ````
#
# So GRPO climbs the mean of a score for the successes in $G-1$ tries, in which the first and the last count most.
# The limit is known {cite}`davis2025objective`, which writes objectives of finite groups as Bernstein polynomials; the closed form was derived here.
# We test it by work: the update, with all groups enumerated, is integrated along a line through the parameters, for the mean of several prompts.

# %% tags=["remove-cell"]
NODES, WEIGHTS = np.polynomial.legendre.leggauss(64)
NODES, WEIGHTS = (NODES + 1) / 2, WEIGHTS / 2
SIZE = 4


def work_of(rows):
    """Work of the mean update, from J and dJ/dt at the nodes, [nodes, P]."""
    total = 0.0
    for weight, row in zip(WEIGHTS, rows, strict=True):
        for success, slope in row:
            law = [1 - success, success]
            wrong, right = expected_advantages([0, 1], law, SIZE)
            total += weight * (right - wrong) * slope
    return total


def work_error(paths, potential):
    errors = []
    for ends, rows in paths:
        climbed = (potential(ends[1]) - potential(ends[0])).sum()
        errors.append(abs(work_of(rows) / climbed - 1))
    return max(errors)


def path_of(testbed, prompts, direction):
    """Success at both ends, and J and dJ/dt at the nodes, for prompts."""
    places = [testbed.at(testbed.theta + t * direction) for t in (0.0, 1.0)]
    ends = np.array([[t.exact(q)[0] for q in prompts] for t in places])
    rows = [
        [
            testbed.at(testbed.theta + t * direction).along(q, direction)[:2]
            for q in prompts
        ]
        for t in NODES
    ]
    return ends, rows


shared = [SoftmaxBandit.random(seed + k, prompts=3, arms=4) for k in range(8)]
bandit_paths = [path_of(b, range(3), unit_gap[0]) for b in shared]
pull = transformer.exact_all()[1].mean(0)
transformer_paths = [
    path_of(
        transformer, range(transformer_prompts), pull / np.linalg.norm(pull)
    )
]
qwen_paths = []
for qwen, prompts in zip(qwens[:6], words, strict=False):
    pull = sum(qwen.log_odds_and_gap(q)[1] for q in prompts[:2])
    far = 0.3 * pull / np.linalg.norm(pull)
    qwen_paths.append(path_of(qwen, prompts[:2], far))


def climbed(J):
    return group_potential(J, SIZE)


WORK = {
    "statement": "several prompts, G = 4: work of GRPO's mean update, all groups enumerated, along a line of parameters, over the difference of the sum of Phi_G(J) between its ends, minus one (largest)",
    "equals": 0.0,
    "unit": "lines",
    "sabotages": {
        "the arcsine of large groups": {"potential": group_potential},
        "the mean success": {"potential": lambda J: (1 - 1 / SIZE) * J},
    },
}


# %% tags=["remove-input"]
@ledger.claim(
    "1-bandit-climbs-potential",
    headline="GRPO's mean update climbs the sum of its potential: work and potential agree on {n} lines through bandits of three prompts.",
    testbed="bandit",
    within=1e-9,
    n=len(bandit_paths),
    **WORK,
)
def bandit_work(potential=climbed):
    return work_error(bandit_paths, potential)


# %% tags=["remove-input"]
@ledger.claim(
    "1-transformer-climbs-potential",
    headline="On the transformer work and potential of GRPO's mean update agree to {measured:.0e}.",
    testbed="transformer",
    kind="numerical",  # a quadrature of 64 nodes
    within=1e-8,
    n=len(transformer_paths),
    **WORK,
)
def transformer_work(potential=climbed):
    return work_error(transformer_paths, potential)


# %% tags=["remove-input"]
@ledger.claim(
    "1-qwen-climbs-potential",
    headline="On the Qwen work and potential of GRPO's mean update agree to {measured:.0e}, on {n} lines.",
    testbed="qwen",
    kind="numerical",  # a quadrature of 64 nodes
    within=1e-8,
    n=len(qwen_paths),
    **WORK,
)
def qwen_work(potential=climbed):
    return work_error(qwen_paths, potential)


# %% [markdown]
# %% tags=["hide-input"]
fig, (left, right) = figures.panels(2)
grid = np.linspace(0, 1, 401)
for G in (2, 4, 16, None):
    phi = group_potential(grid, G)
    label = f"groups of {G}" if G else "large groups"
    left.plot(grid, phi / phi[-1], label=label)
left.set(xlabel="success J", ylabel="what GRPO climbs, over its range")
left.legend()
sizes = np.arange(2, 41)
turning = [
    (ARMS * expected_advantages([0.25, 1.0, 0.0], ARMS, int(G))) @ GAMBLE[:, 0]
    for G in sizes
]
right.plot(sizes, turning, "o", markersize=3)
right.axhline(0, color="gray", linewidth=0.8)
right.set(xlabel="group size", ylabel="GRPO's mean update to the gamble")
figures.show(
    fig,
    f"Left, what GRPO climbs as a function of success, over its range: a straight line in groups of two, and steeper at both ends the larger the group, up to the arcsine. Right, GRPO's mean update towards a gamble that raises the mean reward, over the group size: negative up to groups of {sizes[np.array(turning) < 0].max()}, positive beyond.",
    caption="Left: for right and wrong answers GRPO climbs a function of success that counts most at the ends. Right: for the three answers above it steps away from the gamble that would raise the mean reward, unless groups are large.",
)

# %% [markdown]
# With the sample deviation, which TRL uses, the potential is the same times $\sqrt{(G-1)/G}$.
# The mean success is not climbed.
# Two prompts pull at one parameter in opposite directions, one at a success of one half, one at a tenth with a gap two and a half times as long.

# %% tags=["remove-cell"]
PAIR = np.array([[[1.0], [0.0]], [[-2.5], [0.0]]])
OFFSET = np.array([[0.0, 0.0], [logit(0.1), 0.0]])
pair = SoftmaxBandit(np.zeros(1), PAIR, np.array([[1.0, 0.0]] * 2), OFFSET)


# %% tags=["remove-input"]
@ledger.claim(
    "1-bandit-climbs-not-the-mean",
    headline="One mean update of GRPO in groups of eight changes the mean success of two prompts by {measured:.1e}, because it climbs another objective.",
    statement="two prompts, J = .5 and .1, gaps 1 and -2.5, G = 8: change of their mean success by a step of GRPO's mean update",
    testbed="bandit",
    at_most=-1e-4,
    sabotages={
        "mean removed, not divided": {"power": 0.0},
        "gaps of the same size": {"ratio": 1.0},
    },
)
def mean_change(power=1.0, ratio=2.5):
    features = PAIR * np.array([1.0, ratio / 2.5])[:, None, None]
    bandit = SoftmaxBandit(np.zeros(1), features, pair.reward, OFFSET)
    update = np.zeros(1)
    for q in (0, 1):
        r = bandit.enumerate(q)
        weight = expected_advantages(r.reward, r.prob, 8, power)
        update += (r.prob * weight) @ r.score / 2
    moved = bandit.at(update)
    return np.mean([moved.exact(q)[0] - bandit.exact(q)[0] for q in (0, 1)])


# %% [markdown]
# If a field is a gradient, its work around a closed loop is zero.
# With rewards of $0$, $\frac12$ and $1$ for three answers, the logits of two of them going once around a circle, GRPO's mean update does work in every group size, and in the limit of large groups too.


# %% tags=["remove-input"]
@ledger.claim(
    "1-bandit-climbs-nothing-graded",
    headline="On three levels of reward GRPO's mean update does work of at least {measured:.2f} around a closed loop, so it climbs nothing.",
    statement="rewards 0, 1/2, 1, tabular softmax, two logits around the unit circle: work of GRPO's mean update, G = 2, 4, 8 and large groups (smallest; a gradient does none)",
    testbed="bandit",
    at_least=0.1,
    n=4,
    unit="group sizes",
    sabotages={
        "two levels": {"levels": (0.0, 1.0, 1.0)},
        "mean removed, not divided": {"power": 0.0},
    },
)
def loop_work(levels=(0.0, 0.5, 1.0), power=1.0, points=200):
    works = []
    for G in (2, 4, 8, None):
        total = 0.0
        for angle in 2 * np.pi * np.arange(points) / points:
            place = np.array([np.cos(angle), np.sin(angle), 0.0])
            ahead = np.array([-np.sin(angle), np.cos(angle), 0.0])
            p = softmax(place)
            weight = expected_advantages(np.array(levels), p, G, power)
            total += ((p * weight) @ (np.eye(3) - p)) @ ahead
        works.append(2 * np.pi * total / points)
    return min(works)


# %% [markdown]
# ## Whom does a shared step harm?
#
# **Fewer than {prf:ref}`thm-overlap` allows: over all signs, and with the curvature of a long step counted, none of {claim}`1-bandit-interference-bound@full:n` batches exceeds its bound, and the Qwen's real signs harm {claim}`1-qwen-interference-of-words@full:measured:.0f` of {claim}`1-qwen-interference-of-words@full:n` words.**
#
# Chapter 1 proves the bound to first order, for fair signs, and samples them.
# A step $u$ that moves prompt $q$ to first order by $m$ from its own gradient and by $\pm c_r$ from the others' does not harm it if the sum exceeds $\frac18\mathrm{diam}^2|u|^2$ ({prf:ref}`thm-one-step`).
# Let that be a share $t < 1$ of $m$; with $\omega = \sum_r c_r^2/m^2$ the same proof gives at most
#
# $$
# \min\Big(\tfrac12,\ \frac{\omega}{\omega + (1-t)^2},\ e^{-(1-t)^2/(2\omega)}\Big).
# $$
#
# Here all signs of eleven others are tried, each with a step of two lengths.

# %% tags=["remove-cell"]
OTHERS = 11
SIGNS = np.array(list(itertools.product([-1.0, 1.0], repeat=OTHERS)))


def batch(number):
    """Overlap, slack and harmed share of the first prompt of a batch."""
    drawn = np.random.default_rng((seed, number))
    features = drawn.standard_normal((OTHERS + 1, 4, 4 + 12 * (number % 4)))
    logits = 2 * drawn.standard_normal((OTHERS + 1, 4))
    right = np.array([1.0, 1.0, 0.0, 0.0])
    p = softmax(logits, axis=1)
    J = p @ right
    gradient = np.einsum("qa,qad->qd", p * (right - J[:, None]), features)
    own, size = gradient[0], np.linalg.norm(gradient, axis=1)
    push = gradient[1:] @ own / (own @ own)
    found = []
    for rate in (0.01, 0.3):
        u = rate * (own + SIGNS @ gradient[1:]) / (OTHERS + 1)
        moved = softmax(logits[0] + u @ features[0].T, axis=1) @ right
        first = rate * size[0] ** 2 / (J[0] * (1 - J[0]) * (OTHERS + 1))
        longest = rate * size.sum() / (OTHERS + 1)
        slack = feature_diameter(features[0]) ** 2 * longest**2 / (8 * first)
        harmed = moved < J[0] * (1 - 1e-13)
        same = SIGNS @ np.sign(push) == -OTHERS  # all against the prompt
        shares = harmed.mean(), harmed[same].mean()
        found.append(((push**2).sum(), slack, *shares))
    return found


batches = np.array([batch(k) for k in range(min(instances, 400))])
batches = batches.reshape(-1, 4).T
batches = batches[:, batches[1] < 1]


# %% tags=["remove-input"]
@ledger.claim(
    "1-bandit-interference-bound",
    headline="Of {n} batches {measured:.0f} harm a prompt in more than the bounded share of all signs.",
    statement="one step on the mean of twelve prompts, all 2,048 signs of the others: share of signs with which the first prompt's success falls, against harmed_share_bound of its overlap and slack (batches above)",
    testbed="bandit",
    equals=0,
    n=batches.shape[1],
    unit="batches",
    sabotages={
        "a quarter of the overlap": {"share": 1 / 4},
        "every other prompt opposed": {"harmed": 3},
    },
)
def batches_above(share=1.0, harmed=2):
    bound = harmed_share_bound(share * batches[0], batches[1])
    return (batches[harmed] > bound + 1e-12).sum()


# %% [markdown]
# Fair signs are an assumption, and on the networks it is wrong in the safe direction: many cosines between gradients of twelve prompts are negative, but the positive ones are larger, so a shared step harms fewer prompts than fair signs of these sizes would allow.

# %% tags=["hide-input"]
TOGETHER = 12
crowd = draw_problems(
    symmetric_group(3), [HORIZON], TOGETHER, seed + 9, names=6
)
gradients = {
    "transformer": TransformerTestbed(policy, crowd, theta).exact_all()[1]
}
for number, qwen in enumerate(qwens[:6]):
    prompts = qwen_study.words(qwen, 2, TOGETHER, (seed, 99, number))
    rows = [qwen.exact(q)[1] for q in prompts]
    gradients[f"Qwen {qwen_first + number}"] = np.array(rows)


def interference(rows):
    """Mean cosines by sign, their share, the bound and the harmed."""
    gram = rows @ rows.T
    size = np.sqrt(np.diag(gram))
    apart = ~np.eye(len(gram), dtype=bool)
    cosine = (gram / size / size[:, None])[apart]
    push = (gram / size[:, None] ** 2)[apart].reshape(len(gram), -1)
    return (
        f"{(cosine < 0).mean():.2f}",
        f"{cosine[cosine < 0].mean():.2f}" if (cosine < 0).any() else "",
        f"{cosine[cosine > 0].mean():.2f}",
        f"{harmed_share_bound((push**2).sum(1)).sum():.1f}",
        int((push.sum(1) < -1).sum()),
    )


found = {name: interference(rows) for name, rows in gradients.items()}
figures.table(
    [(name, *row) for name, row in found.items()],
    (
        "testbed",
        "negative cosines",
        "their mean",
        "mean of the positive",
        "bound on the harmed of 12",
        "harmed",
    ),
)
of_qwen = [row for name, row in found.items() if name != "transformer"]


# %% tags=["remove-input"]
@ledger.claim(
    "1-qwen-interference-of-words",
    headline="To first order a step on the mean of twelve words harms {measured:.0f} of {n} words of the Qwen, where fair signs would allow {predicted:.0f}.",
    statement="words of two elements, twelve a checkpoint: those whose success falls to first order by a step on their mean, against the sum of harmed_share_bound (an illustration, because the signs are not fair)",
    testbed="qwen",
    kind="illustration",
    at_most=sum(float(row[3]) for row in of_qwen),
    n=TOGETHER * len(of_qwen),
    unit="words",
    sabotages={"every word": {"share": 1.0}},
)
def harmed_words(share=0.0):
    return max(share * TOGETHER * len(of_qwen), sum(row[4] for row in of_qwen))


# %% tags=["remove-cell", "nbval-ignore-output"]
ledger.publish()
