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
# # Evidence for chapter 1: what GRPO climbs, and whom it harms
#
# **For right and wrong answers GRPO climbs a known function of every prompt's success, and not the mean success; on three levels of reward it climbs nothing at all.**
# Chapter {doc}`1 </notebooks/01_gap_alignment>` shows that estimators differ, prompt by prompt, in the gain of their mean update only ({prf:ref}`thm-gain`).
# A gain that depends on success only makes the update a gradient, of another function than the success.

# %% tags=["parameters", "remove-cell"]
profile: str = "book"  # label of the profile that set these parameters
seed: int = 0  # [0, 4294967295] seed of every random draw
judged: bool = True  # whether sampled claims are large enough for a verdict
qwen_model: str = "tiny"  # tiny, a hub name or a local path
batches: int = 60  # [4, 10000] batches of prompts, each with all signs
qwen_checkpoints: int = 2  # [1, 100] warm starts of the Qwen
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
import numpy as np
from scipy.special import logit, softmax

from rlvr_lib import figures
from rlvr_lib.claims import Ledger
from rlvr_lib.studies import graded as study
from rlvr_lib.studies.threshold import qwen as qwen_study
from rlvr_lib.testbeds.bandit import SoftmaxBandit
from rlvr_lib.testbeds.transformer import (
    AttentionPolicy,
    TransformerTestbed,
    draw_problems,
)
from rlvr_lib.theory.climb import group_potential, harmed_share_bound
from rlvr_lib.theory.graded import expected_advantages
from rlvr_lib.theory.groups import symmetric_group

figures.set_style()
ledger = Ledger(1, "P1", profile, [seed], judged, lane="evidence")
TOGETHER = 12
qwens = qwen_study.warm_starts(qwen_model, qwen_checkpoints, qwen_first)
policy = AttentionPolicy(6)
crowd = draw_problems(symmetric_group(3), [3], TOGETHER, seed, names=6)
noise = np.random.default_rng(seed).standard_normal(policy.size) / 2
transformer = TransformerTestbed(
    policy, crowd, policy.initial(2.0).numpy() + noise
)

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
SIZE = 4
unit = np.full(4, 0.5)
shared = [SoftmaxBandit.random(seed + k, prompts=3, arms=4) for k in range(8)]
bandit_lines = [study.Line.of(b, range(3), unit) for b in shared]
pull = transformer.exact_all()[1].mean(0)
pull /= np.linalg.norm(pull)
transformer_lines = [study.Line.of(transformer, range(TOGETHER), pull)]
qwen_lines = []
for number, qwen in enumerate(qwens):
    words = qwen_study.words(qwen, 2, 2, (seed, number))
    pull = sum(qwen.log_odds_and_gap(q)[1] for q in words)
    far = 0.3 * pull / np.linalg.norm(pull)
    qwen_lines.append(study.Line.of(qwen, words, far))


def climbed(J):
    return group_potential(J, SIZE)


lines = {
    "bandit": bandit_lines,
    "transformer": transformer_lines,
    "qwen": qwen_lines,
}
works = {
    name: [line.work(SIZE) for line in drawn] for name, drawn in lines.items()
}


def work_error(name, potential):
    ends = np.diff([potential(line.ends).sum(1) for line in lines[name]])
    return np.abs(works[name] / ends[:, 0] - 1).max()


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
    n=len(bandit_lines),
    **WORK,
)
def bandit_work(potential=climbed):
    return work_error("bandit", potential)


# %% tags=["remove-input"]
@ledger.claim(
    "1-transformer-climbs-potential",
    headline="On the transformer work and potential of GRPO's mean update agree to {measured:.0e}.",
    testbed="transformer",
    kind="numerical",  # a quadrature of 64 nodes
    within=1e-8,
    n=len(transformer_lines),
    **WORK,
)
def transformer_work(potential=climbed):
    return work_error("transformer", potential)


# %% tags=["remove-input"]
@ledger.claim(
    "1-qwen-climbs-potential",
    headline="On the Qwen work and potential of GRPO's mean update agree to {measured:.0e}, on {n} lines.",
    testbed="qwen",
    kind="numerical",  # a quadrature of 64 nodes
    within=1e-8,
    n=len(qwen_lines),
    **WORK,
)
def qwen_work(potential=climbed):
    return work_error("qwen", potential)


# %% [markdown]
# The left picture is that function, over its range, and the right one its slope, which is the weight that GRPO gives to a prompt.

# %% tags=["hide-input"]
fig, (left, right) = figures.panels(2)
grid = np.linspace(0, 1, 401)
for G in (2, 4, 16, None):
    phi, label = (
        group_potential(grid, G),
        f"groups of {G}" if G else "large groups",
    )
    left.plot(grid, phi / phi[-1], label=label)
    right.plot(grid[1:], np.diff(phi) / phi[-1] * 400, label=label)
left.set(xlabel="success J", ylabel="climbed, over its range")
right.set(xlabel="success J", ylabel="its slope", ylim=(0, 4))
left.legend()
figures.show(
    fig,
    "Left, what GRPO climbs as a function of success, over its range, for groups of two, four and sixteen and for large ones: a straight line in groups of two, and steeper at both ends the larger the group, up to the arcsine. Right, its slope, which is the weight of a prompt's gradient: constant in groups of two, and growing without bound at both ends in large groups.",
    caption="For right and wrong answers GRPO climbs a function of success that counts most at both ends, and the more the larger the group. In groups of two and three it climbs the success itself.",
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
tried = [
    study.all_signs((seed, k), rate, dimension=4 + 12 * (k % 4))
    for k in range(batches)
    for rate in (0.01, 0.3)
]
tried = [found for found in tried if found.slack < 1]


# %% tags=["remove-input"]
@ledger.claim(
    "1-bandit-interference-bound",
    headline="Of {n} batches {measured:.0f} harm a prompt in more than the bounded share of all signs.",
    statement="one step on the mean of twelve prompts, all 2,048 signs of the others: share of signs with which the first prompt's success falls, against harmed_share_bound of its overlap and slack (batches above)",
    testbed="bandit",
    equals=0,
    n=len(tried),
    unit="batches",
    sabotages={
        "a quarter of the overlap": {"times": 1 / 4},
        "every other prompt opposed": {"share": "opposed"},
    },
)
def batches_above(times=1.0, share="harmed"):
    return sum(
        getattr(found, share)
        > harmed_share_bound(times * found.overlap, found.slack) + 1e-12
        for found in tried
    )


# %% [markdown]
# Fair signs are an assumption, and on the networks it is wrong in the safe direction: on the Qwen about half of the cosines between gradients of twelve words are negative, but they are small beside the positive ones, and on the transformer hardly any is negative, so a shared step harms fewer prompts than fair signs of these sizes would allow.

# %% tags=["hide-input"]
gradients = {"transformer": transformer.exact_all()[1]}
for number, qwen in enumerate(qwens):
    words = qwen_study.words(qwen, 2, TOGETHER, (seed, 99, number))
    rows = np.array([qwen.exact(q)[1] for q in words])
    gradients[f"Qwen {qwen_first + number}"] = rows
found = {name: study.interference(rows) for name, rows in gradients.items()}
figures.table(
    [
        (
            name,
            f"{row.negative:.2f}",
            f"{row.against:.2f}",
            f"{row.along:.2f}",
            f"{row.bound:.1f}",
            row.harmed,
        )
        for name, row in found.items()
    ],
    (
        "testbed",
        "negative cosines",
        "their mean",
        "mean of the positive",
        f"bound on the harmed of {TOGETHER}",
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
    at_most=sum(row.bound for row in of_qwen),
    n=TOGETHER * len(of_qwen),
    unit="words",
    sabotages={"every word": {"share": 1.0}},
)
def harmed_words(share=0.0):
    return max(
        share * TOGETHER * len(of_qwen), sum(row.harmed for row in of_qwen)
    )


# %% tags=["remove-cell", "nbval-ignore-output"]
ledger.publish()
