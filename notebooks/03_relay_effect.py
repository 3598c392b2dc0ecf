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
# # 3. How far apart may two difficulties be?
#
# A chain of forty-five steps is rewarded only if its end is right, so at the start almost no chain is, and almost nothing is learned from them.
# Train on shorter chains as well, and the long ones come along.
# How wide a gap may one leave between the lengths?
#
# **At every moment the success above chance of the next length is that of this one to a power $\kappa$, the ratio of the lengths or more; whether that is a relay or a pause depends on $\kappa$, and on when you call a length learned.**

# %% tags=["parameters", "remove-cell"]
profile: str = "book"  # label of the profile that set these parameters
seed: int = 0  # [0, 4294967295] seed of every random draw
judged: bool = True  # whether sampled claims are large enough for a verdict
qwen_model: str = "tiny"  # tiny, a hub name or a local path
bandit_runs: int = 24  # [2, 1000] runs at each end of a ruler
relay_seeds: int = 24  # [2, 1000] seeds of the transformer's relays
relay_share: float = 1.0  # [0.01, 1] share of the relays' time that is run
map_seeds: int = 16  # [2, 1000] seeds of every group from uniform attention
map_iterations: int = 400  # [2, 100000] updates of these runs
qwen_checkpoints: int = 2  # [1, 100] warm starts of the Qwen
qwen_first: int = 0  # [0, 100000] seed of the first of them
qwen_steps: int = 50  # [10, 100000] steps of a Qwen's run, a multiple of 10
qwen_prompts: int = 24  # [2, 100000] words of each length at a look
warm_steps: int = 150  # [1, 10000] clean supervised steps of the warm start
longest_word: int = 16  # [8, 64] elements of the longest word, a multiple of 8

# %% tags=["remove-cell"]
import sys

if "google.colab" in sys.modules:  # Colab has none of this installed
    import subprocess

    source = "git+https://github.com/rlvr-companion/rlvr-companion"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", source], check=True
    )

# %% tags=["remove-cell"]
from functools import cache
from itertools import product

import numpy as np
import torch
from scipy.stats import binom

from rlvr_lib import figures
from rlvr_lib.claims import Ledger
from rlvr_lib.intervals import least_count, least_significant_total
from rlvr_lib.studies.relay import bandit as bandit_study
from rlvr_lib.studies.relay import qwen as qwen_study
from rlvr_lib.studies.relay import transformer as transformer_study
from rlvr_lib.theory.groups import (
    alternating_group,
    cyclic_group,
    dihedral_group,
    symmetric_group,
)
from rlvr_lib.theory.readings import (
    attention_success,
    reading_success,
)
from rlvr_lib.theory.relay import (
    clause_attention,
    handoff_exponent,
    next_ratio,
    normalized_success,
    saturated_exponent,
)

figures.set_style()
torch.set_num_threads(1)
ledger = Ledger(3, paper="P2", profile=profile, seeds=[seed], judged=judged)
s3 = symmetric_group(3)


def counted(n, unit, against=0.5):
    """What a claim needs that counts how many of n did; an exact test asks for so many."""
    asked = {"at_least": least_count(n, against), "false_alarm": 1e-6}
    return asked | {
        "kind": "statistical",
        "smallest_effect": least_count(n, against),
        "n": n,
        "unit": unit,
    }


# %% tags=["remove-cell"]
qwens = qwen_study.warm_starts(
    qwen_model, qwen_checkpoints, qwen_first, longest_word, warm_steps
)
ladder = qwen_study.Ladder.of(longest_word)
shortest, longest = ladder.trained[0], ladder.trained[-1]
ends, level = (shortest, longest), max(3e-5, 0.5 ** len(qwens))
qwen_runs = {
    kind: qwen_study.runs(
        qwens,
        lengths,
        ladder.trained if kind == "smooth" else ends,
        qwen_steps,
        qwen_prompts,
        seed,
    )
    for kind, lengths in ladder.spectra.items()
}


# %% tags=["remove-input"]
fig, axes = figures.panels(columns=3, height=2.9, sharey=True)
steps = np.linspace(0, qwen_steps, qwen_study.LOOKS + 1)
titles = "a smooth spectrum", "a rough spectrum", "the longest alone"
final = {}
for ax, title, (kind, run) in zip(axes, titles, qwen_runs.items(), strict=True):
    for length in run.lengths:
        color = f"C{ladder.trained.index(length)}"
        style = "-" if length in ladder.spectra[kind] else ":"
        each = run.at(length).y[..., 0]
        mean = each.mean(0)
        final[kind, length] = mean[-1]
        ax.plot(steps, each.T, style, color=color, linewidth=0.8, alpha=0.6)
        ax.plot(steps, mean, style, color=color, linewidth=2.4)
        where = min((mean < 0.5).sum(), len(steps) - 1)
        spot = steps[where] + 0.02 * qwen_steps, mean[where] - 0.09
        if kind == "single":
            spot = 0.55 * qwen_steps, 0.16 if length == shortest else -0.1
        ax.text(*spot, length, color=color, weight="bold")
    for y in (0.1, 0.9):
        ax.axhline(y, color="gray", linewidth=0.8, zorder=0)
    ax.set(title=title, xlabel="GRPO steps", ylabel="y", ylim=(-0.2, 1.05))
axes[0].set_ylabel("y, success above chance")
axes[1].set_ylabel(" ")
axes[2].set_ylabel(" ")
axes[0].set_yticks([0, 0.1, 0.5, 0.9, 1])
figures.show(
    fig,
    f"Success above chance of small Qwens over GRPO steps, by the length of the words that they multiply out; thin lines are {len(qwens)} checkpoints, thick ones their mean, dotted is a length not trained on. All runs have as many samples. With words of {', '.join(map(str, ladder.trained))} in the mixture the longest end at {final['smooth', longest]:.2f}, with the shortest and the longest only at {final['rough', longest]:.2f}, and alone at {final['single', longest]:.2f}, while the shortest fall to {final['single', shortest]:.2f}. Gray lines: found (0.1) and mastered (0.9).",
)


# %% [markdown]
# The paper of this chapter, P2 ({cite:t}`huang2026relay`), calls this a *relay*, because each length hands over to the next, and proves that a small ratio of lengths gives a relay and a large one a long plateau.
# We found three things.
#
# - **The hand-off has one exponent, and no ratio is special.** A head that reads one clause at a time relays up to a ratio that the levels decide, as {claim}`3-bandit-relay-or-plateau:measured:.0f` of {claim}`3-bandit-relay-or-plateau:n` runs confirm for three pairs of levels (section 3.3). A head that saturates has another exponent, in one line; {claim}`3-transformer-softmax-exponents@full:measured:.0f` of {claim}`3-transformer-softmax-exponents@full:n` transformers of the full profile are within a fifth of it (section 3.5). On small Qwens a ratio of eight relays too, on {claim}`3-qwen-relay@full:measured:.0f` of {claim}`3-qwen-relay@full:n` (section 3.6).
# - **Keep what is mastered if the gap is wide.** The wait for the next length then grows as a power of the ratio; without the mastered length it grows exponentially (section 3.4).
# - **On a group that commutes the reward cannot see the order of the steps.** {claim}`3-transformer-abelian-success:measured:.0f` of {claim}`3-transformer-abelian-success:n` transformers earn full reward there with a wrong clause map, and in our runs of P2's own experiment, on such a group, most right answers take the clauses in another order (sections 3.7 and 3.8).
#
# To choose the next length, skip to [what to do](what-to-do-3).

# %% [markdown]
# ## 3.1 A chain is rewarded at its end
#
# **Chance is $1/n$ on a group of $n$ elements, so we always plot $y$, which is zero at chance and one when every answer is right.**
# A prompt states *clauses*, "name $m$ carries the group element $g_m$", and asks for the product of $h$ names in a given order.
# The policy answers with running products, one a step: it looks up a clause by *attention* and multiplies.
# Only the last product is checked.

# %% tags=["hide-input"]
moves = ["BAC", "ACB", "BAC", "CBA", "ACB"]  # where letters go, step by step


def states(done):
    """The arrangements of three letters along a chain of permutations."""
    out = ["ABC"]
    for move in done:
        out.append("".join(out[-1]["ABC".index(k)] for k in move))
    return out


slip = [*moves[:2], moves[3], *moves[3:]]  # step 3 reads the clause of step 4
fig, ax = figures.panels(height=2.2)
for y, path in ((1, states(moves)), (0, states(slip))):
    for k, state in enumerate(path):
        wrong = state != states(moves)[k]
        box = {"boxstyle": "round", "fc": "C1" if wrong else "C0", "alpha": 0.3}
        ax.text(k, y, state, ha="center", va="center", bbox=box, fontsize=12)
    for k, move in enumerate(moves if y else slip):
        arrow = {"arrowstyle": "->", "color": "gray"}
        ax.annotate("", (k + 0.78, y), (k + 0.22, y), arrowprops=arrow)
        hot = "C1" if (k, y) == (2, 0) else "gray"
        ax.text(k + 0.5, y + 0.17, move, ha="center", color=hot, fontsize=9)
ax.text(5.3, 1, "rewarded", color="C0", va="center")
ax.text(5.3, 0, "not", color="C1", va="center")
ax.set(xlim=(-0.4, 6.3), ylim=(-0.4, 1.45), xlabel="step", ylabel=" ")
ax.set_xticks(range(6))
ax.set_yticks([0, 1], ["one wrong step", "right"])
ax.grid(False)
figures.show(
    fig,
    "A chain of five steps on the group of permutations of three letters. Above arrows stand the clauses that are read, in boxes the running products. In the lower row step 3 reads the clause of step 4; all later steps are right, and yet the end is wrong. A policy that guesses the end is right once in six, which is where y is zero.",
)

# %% [markdown]
# If the errors of steps are independent and every wrong element is equally likely, success above chance is a power: $y_h = \lambda^h$ with one number $\lambda$, the decay per step.
# On every group and for any law of the errors it becomes a sum over irreducible representations (evidence, [success as a random walk](evidence/03_relay_effect)).

# %%
chance = 1 / s3.order
success = chance + (1 - chance) * 0.9 ** np.array([5, 15, 45])
print(success.round(3), normalized_success(success, s3.order).round(3))

# %% [markdown]
# ```{prf:definition} Relay, pause, and wait over rise
# :label: def-relay
# A length is *found* when its $y$ reaches a level $q$, and *mastered* when it reaches a level $Q$.
# The *hand-off* from a length $h$ to the next one $h' = Rh$ of a mixture is a *relay* if $h'$ is found before $h$ is mastered, and otherwise a *plateau*, or pause.
# The *wait* is the time from the mastery of $h$ until $h'$ is found, which is not positive in a relay.
# *Wait over rise* is the wait over the time that $h'$ then takes from $q$ to $Q$.
# ```
#
# The levels are a convention.
# We use three rulers: $q, Q = 0.1, 0.9$; P2's own, $0.01, 0.99$, which P2 states for raw success; and wait over rise, at $0.1, 0.9$, which is the most robust, because it compares two times of the same run.
#
# ## 3.2 One number pushes all lengths
#
# **A length pushes hardest when its own success is about one third, and a long one that starts near chance hardly pushes at all.**
# Suppose that one number is learned, the logit $w$ of the right clause.
# Attention on the right clause is $a = 1/(1+(c-1)e^{-w})$ in a context of $c$ clauses.
# A *fixed* context shows the same clauses to every chain; a *dilute* one shows the chain's own only, $c = h$, as in P2, so a longer chain is also a longer list to search.
# The *head* turns attention into a decay per step $\lambda(a)$.
# A *linear* head reads one clause a step, $\lambda = a$.
# P2's head *saturates*: like a softmax of sharpness $\beta$ it is sure of its answer before its attention is, $\lambda = (e^{\beta a}-1)/(e^{\beta a}+n-1)$ if the other clauses are taken as spread evenly over the elements.
#
# ```{prf:theorem} The flow
# :label: thm-flow
# Gradient ascent on the mean success of $K$ lengths moves the logit by
#
# $$
# \frac{dw}{dt} = \frac{1-1/n}{K}\sum_{k} h_k\,\lambda(a_k)^{h_k-1}\,\lambda'(a_k)\,a_k(1-a_k) ,
# $$
#
# which is $h_k\,a_k^{h_k}(1-a_k)$ in the sum for a linear head.
# One length alone with a linear head leaves attention $a_0$ after a time that grows as $a_0^{-h}/\big((1-\frac1n)h^2(1-a_0)^2\big)$.
# ```
#
# ````{dropdown} Proof
# ```{prf:proof}
# $J = \frac1n + (1-\frac1n)\frac1K\sum_k\lambda(a_k)^{h_k}$ and $da/dw = a(1-a)$.
# For one length, time is the integral of $da/\big((1-\frac1n)\,h\,a^{h+1}(1-a)^2\big)$, which $a^{-h}/h$ dominates at small $a$; `escape_time` has it in closed form.
# ```
# ````

# %% tags=["hide-input"]
SHARP = 10.0  # of the softmax head, on all testbeds
HEADS = {"linear": bandit_study.linear, "softmax": bandit_study.softmax(SHARP)}
w = np.linspace(0, 11, 500)
fig, axes = figures.panels(columns=2, height=2.9)
for ax, (name, head) in zip(axes, HEADS.items(), strict=True):
    for k, h in enumerate((5, 15, 45)):
        a = clause_attention(w, h)
        decay, slope = head(a)
        push = h * decay ** (h - 1) * slope * a * (1 - a)
        ax.fill_between(w, push, color=f"C{k}", alpha=0.3)
        ax.plot(w, push, color=f"C{k}")
        top = push.argmax()
        ax.text(
            w[top], push[top], f"{h}", color=f"C{k}", ha="center", va="bottom"
        )
    ax.set(xlabel="logit w of the right clause", ylabel="push on w")
    ax.set(title=f"{name} head", xlim=(0, 11 if name == "linear" else 7))
    ax.margins(y=0.12)
figures.show(
    fig,
    "Push of chains of 5, 15 and 45 steps on the logit they share, each chain in its own context. Training moves to the right. With a linear head the hills overlap, so the next length already pushes while this one still does. With a softmax head they are narrow: between those of 5 and of 45 steps nothing would push, which is a plateau, and 15 fills the gap.",
)

# %% [markdown]
# Where hills overlap there is a relay; between hills that do not, training crawls.
# P2 draws the same picture in words: its hand-off condition asks for the attention at which two lengths push equally.
#
# All runs on the *bandit* of this chapter have more than one number: forty-five names with a logit each, which start a standard deviation of one nat apart, so that success is not a power of anything.
# There chains of 45 alone, in a fixed context, took at least $10$ to the power {claim}`3-bandit-single-length:measured:.1f` times as long to be seen at all as the mixture 5, 15, 45 took to master them.
#
# ## 3.3 The baton is an exponent
#
# **$y_{h'} = y_h^{\,\kappa}$, where $\kappa$ is the ratio $R$ in a fixed context and more in a dilute one; rate, optimizer and time do not appear.**
#
# ```{prf:theorem} Hand-off
# :label: thm-handoff
# In the one-logit model, at every moment of every run, $y_{h'} = y_h^{\,\kappa}$ with
#
# $$
# \kappa = R\,\frac{\ln\lambda(a_{h'})}{\ln\lambda(a_h)}, \qquad R = h'/h .
# $$
#
# In a fixed context $\kappa = R$ for every head.
# In a dilute context a linear head has
#
# $$
# \kappa = R\,\frac{\ln(1+(Rh-1)e^{-w})}{\ln(1+(h-1)e^{-w})},
# $$
#
# which rises with $y_h$ to $R(Rh-1)/(h-1)$.
# A hand-off is a relay if and only if $\kappa \le \ln q/\ln Q$ at $y_h = Q$.
# ```
#
# ````{dropdown} Proof
# ```{prf:proof}
# $\ln y_h = h\ln\lambda(a_h)$; divide.
# With $x = (h-1)e^{-w}$ and $c = (Rh-1)/(h-1) > 1$ the dilute exponent is $R\ln(1+cx)/\ln(1+x)$, which falls in $x$, because $\ln\ln(1+e^s)$ is concave in $s$; and $x$ falls as $y_h$ rises.
# $y_{h'}$ increases with $w$, so it has reached $q$ when $y_h$ reaches $Q$ exactly if it is at least $q$ at that moment, which is $Q^\kappa \ge q$.
# ```
# ````

# %% tags=["remove-cell"]
MIXTURES = ((5, 15, 45), (5, 35))


@cache
def relays(mixture, dilute, estimator):
    start = np.log(4) if dilute else 0.0
    options = {"start": start, "estimator": estimator, "until": 0.7}
    return bandit_study.relay(mixture, 4, seed, dilute=dilute, **options)


settings = list(
    product(MIXTURES, (False, True), bandit_study.ESTIMATORS)
)  # mixture, dilute, estimator

# %% tags=["hide-input"]
fig, (left, right) = figures.panels(columns=2, height=3.5)
y = np.linspace(0.02, 0.998, 300)
for k, (dilute, h, name) in enumerate(
    (
        (False, 35, "5 to 35, fixed"),
        (True, 15, "5 to 15"),
        (True, 35, "5 to 35"),
    )
):
    mixture = (5, 15, 45) if h == 15 else (5, 35)
    for estimator, marker in zip(bandit_study.ESTIMATORS, "o^s", strict=True):
        seen = relays(mixture, dilute, estimator).y[::9, 0]
        left.plot(*seen[:, :2].T, marker, color=f"C{k}", ms=4, alpha=0.7)
    kappa = handoff_exponent(h / 5, *((5, y) if dilute else ()))
    left.plot(y, y**kappa, **figures.PREDICTION)
    high = 0.85 - 0.2 * k
    at, line = (
        np.interp(high, y**kappa, y),
        {"arrowstyle": "-", "color": f"C{k}"},
    )
    place = {"xytext": (0.42, high), "va": "center", "arrowprops": line}
    left.annotate(name, (at, high), color=f"C{k}", **place)
left.fill_between([0.9, 1], [0.1, 0.1], color="gray", alpha=0.5)
left.text(0.42, 0.2, "shaded: plateau", color="gray")
left.set(
    xlabel="y of chains of 5", ylabel="y of the next length", xlim=(0.4, 1.02)
)
R = np.geomspace(1.5, 30, 200)
for k, (kappa, name) in enumerate(
    (
        (R, "fixed context"),
        (handoff_exponent(R, 5, 0.9), "dilute"),
        (saturated_exponent(R, 5, 0.9, SHARP, 6), "dilute, softmax"),
    )
):
    right.plot(R, kappa, color=f"C{k}")
    place = np.searchsorted(kappa, (5, 70, 300)[k])
    right.text(R[place], kappa[place] * 0.5, name, color=f"C{k}")
for q, Q in ((0.1, 0.9), (0.01, 0.99)):
    limit = np.log(q) / np.log(Q)
    right.axhline(limit, color="gray", linestyle=":")
    right.text(1.5, 1.1 * limit, f"limit of {q}, {Q}", fontsize=9)
right.set(xscale="log", yscale="log", ylim=(1, 5000))
right.set(xlabel="ratio R", ylabel=r"exponent $\kappa$ at y = 0.9")
right.set_xticks([2, 3, 7, 20], ["2", "3", "7", "20"], minor=False)
right.minorticks_off()
figures.show(
    fig,
    "Left: success of the next length against that of chains of 5, on the bandit with a logit for every name; circles REINFORCE, triangles GRPO, squares Adam, one run each. All lie on the dashed curves of the hand-off exponent. A curve through the shaded corner is a plateau by the levels 0.1 and 0.9. Right: the exponent against the ratio, from chains of 5, and the limits of two pairs of levels. In a fixed context any ratio drawn is far from P2's limit; with a softmax head a ratio of 3 is above ours and below P2's. The curves are drawn at a success of 0.9; P2's limit is meant for 0.99, where exponents are larger.",
)


# %% tags=["remove-input"]
@ledger.claim(
    "3-bandit-handoff-exponent",
    headline="With a logit for every name, ln y' / ln y stays within {measured:.0%} of the hand-off exponent all along {n} runs of REINFORCE, GRPO and Adam.",
    statement="uneven starts, two mixtures, fixed and dilute: ln y' / ln y against the exponent of one logit, wherever both can be seen (largest relative difference)",
    testbed="bandit",
    kind="numerical",
    equals=0.0,
    within=0.15,  # a spread of one nat at the start moves it by so much
    n=4 * len(settings),
    unit="runs",
    paper=("P2.hand-off", "sharpened"),
    sabotages={"the ratio R in a dilute context too": {"own_context": False}},
)
def farthest_exponent(own_context=True):
    worst = 0.0
    for mixture, dilute, estimator in settings:

        def law(R, h, y, own=dilute and own_context):
            return handoff_exponent(R, *((h, y) if own else ()))

        run = relays(mixture, dilute, estimator)
        ratio = run.exponent_ratios(mixture, law, farthest=True)
        worst = max(worst, np.abs(ratio - 1).max())
    return worst


# %% [markdown]
# How wide may the gap be, then?
# `next_ratio` solves the theorem for $R$, and the answer moves with the levels:

# %%
for q, Q in ((0.1, 0.9), (0.05, 0.95), (0.01, 0.99)):
    fixed, dilute = next_ratio(Q, q), next_ratio(Q, q, horizon=5)
    print(f"found {q}, mastered {Q}: R up to {fixed:.1f}, dilute {dilute:.1f}")


# %% tags=["remove-input"]
@ledger.claim(
    "3-bandit-relay-or-plateau",
    headline="Where a relay turns into a plateau moves with the levels as predicted, to a twentieth of the ratio, in {measured:.0f} of {n} runs for all three pairs of levels.",
    statement="a logit for every name, dilute, from chains of 5: a ratio 5% below the predicted one relays and one 5% above it does not, by .1/.9, .05/.95 and .01/.99 (runs for which all six hold; an exact test asks for so many against one half)",
    testbed="bandit",
    paper=("P2.rough-plateaus", "limited"),
    sabotages={
        "the ratio of .1/.9 for all three": {"ratio": next_ratio(0.9, 0.1, 5)}
    },
    **counted(bandit_runs, "runs"),
)
def runs_that_turn(ratio=None):
    levels = ((0.1, 0.9), (0.05, 0.95), (0.01, 0.99))[
        : 3 if ratio is None else 2
    ]
    turn = bandit_study.turns_where_predicted
    found = [turn(q, Q, bandit_runs, seed, ratio=ratio) for q, Q in levels]
    return np.all(found, axis=0).sum()


# %% [markdown]
# So the ratios three and seven of P2 are not special.
# In a fixed context even seven and nine relay, by every ruler (claim {claim}`3-bandit-rough-spectrum-in-a-fixed-context:id`), and where a linear head pauses there, by the levels $0.1$ and $0.9$, it is only because the *context* grows with the chain; by P2's own levels it relays even so.
# A softmax head in a dilute context is above our limit at a ratio of three already, and by P2's own levels it relays at three and pauses at seven, as P2 says.
#
# ## 3.4 How long is the wait, and should mastered lengths stay?
#
# **With the mastered length kept, the wait grows as a power of the ratio; dropped, it grows exponentially, which costs most where the head saturates.**
# A mastered length never quite stops pushing: with a linear head its gradient falls as one over time only.
# If nothing is left of it, because the length is dropped, its groups are all correct or their updates clipped, the next length must escape alone.
# In this section the wait ends at half success of the next length.

# %% tags=["remove-cell"]
STARTS = {"linear": np.log(4), "softmax": 0.6}


@cache
def flow_wait(head, R, kept=True):
    return bandit_study.flow_wait(HEADS[head], STARTS[head], R, kept)


@cache
def wait(head, R, kept=True):
    """[runs]; steps are finer where the wait is exponential."""
    size = {"runs": 4, "seed": seed, "step": 0.05 if kept else 0.02}
    return bandit_study.wait(HEADS[head], STARTS[head], R, kept, **size)


# %% tags=["hide-input"]
fig, ax = figures.panels(height=3.2)
near = np.arange(3, 10)
for k, (head, kept) in enumerate(product(HEADS, (True, False))):
    line = [flow_wait(head, R, kept) for R in near]
    ax.plot(near, line, color=f"C{k // 2}", linestyle="-" if kept else ":")
    tried = (3, 5, 7, 9) if kept or head == "linear" else (3, 4, 5)
    dots = [np.median(wait(head, R, kept)) for R in tried]
    ax.plot(tried, dots, "o", color=f"C{k // 2}", ms=4)
for x, y, text, color in (
    (7.3, 8, "linear, kept", "C0"),
    (7.6, 1500, "linear, dropped", "C0"),
    (5.6, 150, "softmax, kept", "C1"),
    (3.9, 1e7, "softmax, dropped", "C1"),
):
    ax.text(x, y, text, color=color)
ax.set(yscale="log", ylim=(1, 1e9), xlabel="ratio R, from chains of 5")
ax.set_ylabel("wait until the next y = 1/2")
figures.show(
    fig,
    f"Time from the mastery of chains of 5 until half success of the next length; lines are the flow of one logit, dots the median of four runs with a logit for every name, whose uneven names shorten the wait after dropping. Kept (solid) the wait grows slowly. Dropped (dotted) it is shorter at small ratios with a linear head, and exponential beyond. With a softmax head dropping costs {flow_wait('softmax', 4, False) / flow_wait('softmax', 4):.0f} times the wait at a ratio of 4, and more at every wider one.",
)


# %% tags=["remove-input"]
def growth(of=flow_wait, head="softmax", kept=True):
    return np.log(of(head, 9, kept) / of(head, 5, kept)) / np.log(9 / 5)


@ledger.claim(
    "3-bandit-plateau-in-a-mixture",
    headline="With the mastered length kept, the wait grows as the ratio to the power {measured:.1f}, from 5 to 9 with a softmax head; the flow says {predicted:.1f}.",
    statement="a logit for every name, softmax head, dilute, chains of 5 kept: exponent of the ratio in the wait for half success (the run farthest from the flow's)",
    testbed="bandit",
    kind="numerical",
    equals=growth(),
    within=0.3,  # runs have uneven names, and steps of a twentieth of a nat
    n=4,
    unit="runs",
    paper=("P2.rough-plateaus", "confirmed"),
    sabotages={
        "dropped when mastered": {"kept": False},
        "linear head": {"head": "linear"},
    },
)
def exponent_of_wait(head="softmax", kept=True):
    found = growth(wait, head, kept)
    return found[np.abs(found - growth()).argmax()]


# %% [markdown]
# P2, too, proves a plateau that is polynomial and not exponential, though in another variable: for ratios that grow its Theorem 5.1 has one of length $\tilde\Theta\big((L_{\max}/\eta)\,d^{\,C_B-1}\big)$, polynomial in the order $d$ of the group, with the longest length $L_{\max}$, the learning rate $\eta$ and $d^{\,C_B}$ the weight that the head gives to a clause that it reads for certain.
# Exponentially flat, by its Proposition $4.1$, is only the start of a long length alone.
# All mixtures here weigh their lengths equally; no other weights were run.
# P2 divides success by the length before it averages, which changes all times and no exponent.
#
# ## 3.5 Forty-five names move as one number
#
# **On a transformer whose every logit is free, half-times follow the flow of one logit with nothing fitted, and a saturating head follows its exponent nearly always.**
# The transformer of chapter {doc}`1 </notebooks/01_gap_alignment>` has a table of forty-five names, and a matrix scores every name against every other: $2{,}025$ logits, trained by plain gradient steps on exact expected updates.
# We start it where the right clause of a chain of five has attention one half (linear head) or a logit of $0.6$ (softmax head, $\beta = 10$), in a dilute context.


# %% tags=["remove-cell"]
def transformer_relay(mixture, sharpness, start, duration, **options):
    size = {"duration": relay_share * duration, "seeds": relay_seeds}
    made = transformer_study.relay
    return made(mixture, True, sharpness, start, seed=seed, **size, **options)


smooth, rough = MIXTURES
fine = {"rate": 0.3, "smooth": 1}
free = {
    "linear": transformer_relay(smooth, None, np.log(4), 90),
    "smooth": transformer_relay(smooth, SHARP, 0.6, 36, **fine),
    "rough": transformer_relay(rough, SHARP, 0.6, 84, **fine),
}
one_number = bandit_study.flow(smooth, bandit_study.linear, True, np.log(4))

# %% tags=["hide-input"]
fig, axes = figures.panels(columns=2, height=3.0, sharey=True)
for ax, name, lengths in zip(axes, ("linear", "rough"), MIXTURES, strict=True):
    time, y = free[name].time[:, 0], free[name].y
    for k, h in enumerate(lengths):
        color = f"C{(5, 15, 45, 35).index(h)}"
        ax.plot(time, y[..., k], color=color, alpha=0.15, linewidth=0.7)
        ax.plot(time, y[..., k].mean(1), color=color)
        half = np.argmax(y[..., k].mean(1) > 0.6)
        ax.text(time[half] + 1, 0.55, f"{h}", color=color, fontsize=12)
    ax.set(xlabel="updates times rate", ylabel="y", ylim=(-0.05, 1.1))
seen = one_number.time[:, 0] < free["linear"].time[-1, 0]
axes[0].plot(
    one_number.time[seen, 0], one_number.y[seen, 0], **figures.PREDICTION
)
short = np.clip(free["rough"].y[..., 0], 1e-3, 1 - 1e-9)
kappa = saturated_exponent(7, 5, short, SHARP, 6)
axes[1].plot(time, np.nanmean(short**kappa, 1), **figures.PREDICTION)
axes[0].set_title("linear head (dashed: flow)")
axes[1].set_title("softmax head (dashed: from y of 5)")
axes[1].set_ylabel(" ")
figures.show(
    fig,
    f"Success above chance of {relay_seeds} transformers and their mean. Left: chains of 5, 15 and 45 with a linear head; the dashed curves are the flow of one logit, nothing fitted. Right: chains of 5 and 35 with a softmax head; the dashed curve takes the success of chains of 5 to the power of the saturating head's exponent, and finds the rise of 35 out of how little chains of 5 still lack.",
)


# %% tags=["remove-input"]
@ledger.claim(
    "3-transformer-half-times",
    headline="The half-times of all three lengths lie within 8% of the one-logit flow, nothing fitted, for {measured:.0f} of {n} transformers.",
    statement="linear head, dilute, 5, 15, 45, all 2,025 logits free: seeds whose three half-times are within 8% of the flow's (an exact test asks for so many against one half)",
    testbed="transformer",
    sabotages={"the flow of a fixed context": {"dilute": False}},
    **counted(relay_seeds, "seeds"),
)
def seeds_on_time(dilute=True):
    start = np.log(4) if dilute else 0.0
    clock = bandit_study.flow(smooth, bandit_study.linear, dilute, start)
    ratio = free["linear"].when(0.5) / clock.when(0.5)
    return (np.abs(ratio - 1) <= 0.08).all(1).sum()


@ledger.claim(
    "3-transformer-softmax-exponents",
    headline="With a softmax head, too, the exponents of all three hand-offs lie within a fifth of the formula's for {measured:.0f} of {n} transformers.",
    statement="softmax head, dilute, 5, 15, 45 and 5, 35: seeds whose median ln y' / ln y over R ln lambda(a') / ln lambda(a) is within a fifth of one at every hand-off (an exact test asks for so many against one half)",
    testbed="transformer",
    paper=("P2.hand-off", "sharpened"),
    sabotages={"the exponent of a linear head": {"saturates": False}},
    **counted(relay_seeds, "seeds"),
)
def seeds_on_the_exponent(saturates=True):
    def law(R, h, y):
        if not saturates:
            return handoff_exponent(R, h, y)
        return saturated_exponent(R, h, y, SHARP, 6)

    runs = {"smooth": smooth, "rough": rough}
    ratio = [free[k].exponent_ratios(h, law) for k, h in runs.items()]
    return (np.abs(np.hstack(ratio) - 1) <= 0.2).all(1).sum()


@ledger.claim(
    "3-transformer-softmax-plateau",
    headline="With a softmax head chains of 35 wait five rises or longer after those of 5, and none of 5, 15, 45 waits for one rise, in {measured:.0f} of {n} transformers.",
    statement="softmax head, dilute: seeds with wait over rise at least 5 at the ratio 7, and below 1 at both hand-offs of ratio 3 (an exact test asks for so many against one half)",
    testbed="transformer",
    paper=("P2.rough-plateaus", "confirmed"),
    sabotages={"the smooth mixture called rough": {"wide": "smooth"}},
    **counted(relay_seeds, "seeds"),
)
def seeds_that_pause(wide="rough"):
    long = free[wide].wait_over_rise()[:, 0] >= 5
    return (long & (free["smooth"].wait_over_rise() < 1).all(1)).sum()


# %% [markdown]
# The exponents of {claim}`3-transformer-softmax-exponents@book:measured:.0f` of {claim}`3-transformer-softmax-exponents@book:n` transformers lie within a fifth of the formula's in the book profile, where an exact test asks for {claim}`3-transformer-softmax-exponents@book:predicted:.0f`; so the claim fails on this page, though narrowly; in the full profile it is {claim}`3-transformer-softmax-exponents@full:measured:.0f` of {claim}`3-transformer-softmax-exponents@full:n` where {claim}`3-transformer-softmax-exponents@full:predicted:.0f` are asked, and the claim holds.
#
# By the levels $0.1$ and $0.9$ the smooth mixture of the softmax head pauses as well, and by wait over rise it does not: this is why a ruler must be named.
#
# ## 3.6 On a Qwen
#
# **On small Qwens even a gap of eight is a relay: on {claim}`3-qwen-relay@full:measured:.0f` of the {claim}`3-qwen-relay@full:n` fresh checkpoints of the full profile.**
# A Qwen is asked for the product of a word over $S_3$ and writes its running products, one a token.
# Its warm start comes from a teacher that replaces each step by a random element with probability $0.4$, so the longest words begin at chance.
# Then GRPO trains it on words of four lengths (*smooth*), of the shortest and the longest (*rough*), or of the longest alone, with as many samples in each case: eight words with sixteen responses a step, by plain gradient steps cut to a norm of three.
# The figure at the top of this chapter shows all three.
# In a chain of thought every step shares its parameters with every other, and longer words do not dilute the attention of a step; so we expect an exponent nearer to that of a fixed context in {prf:ref}`thm-handoff`, the ratio, than to that of a growing one, and measure it in the [evidence](evidence/03_relay_effect).
# The unit of these claims is the checkpoint: another warm start has other weights, other traces and other words.
# Over the few of this page no test can decide anything, so the verdicts are those of the full profile's twenty; there the exponent lies within a factor of two and a half of the ratio on {claim}`3-qwen-hand-off@full:measured:.0f` only, where our test asks for {claim}`3-qwen-hand-off@full:predicted:.0f`.


# %% tags=["remove-input"]
def lead(first="smooth", second="single", look=-1):
    """Right answers to the longest words of one run less another's, [checkpoints]."""
    right = [
        qwen_runs[k].at(longest).right[:, look, 0] for k in (first, second)
    ]
    return right[0] - right[1]


asked = least_significant_total(lead(), level)


@ledger.claim(
    "3-qwen-smooth-against-single",
    headline="With the smooth spectrum {measured:.0f} more answers to the longest words are right than after training on these alone, summed over {n} {unit}.",
    statement="longest words, same number of samples: right answers after the smooth spectrum less those after the longest alone (at least so many as the exact sign-flip test over checkpoints asks for)",
    testbed="qwen",
    kind="statistical",
    at_least=asked,
    false_alarm=level,
    smallest_effect=asked,
    n=len(qwens),
    unit="checkpoints",
    paper=("P2.smooth-relays", "confirmed"),
    sabotages={
        "before training": {"look": 0},
        "spectra exchanged": {"first": "single", "second": "smooth"},
    },
)
def total_lead(first="smooth", second="single", look=-1):
    return lead(first, second, look).sum()


# %% tags=["remove-input"]
@ledger.claim(
    "3-qwen-relay",
    headline="With only the shortest and the longest words, eight times as long, the longest leave the floor before the shortest are mastered on {measured:.0f} of {n} {unit}.",
    statement="rough spectrum, ratio 8: y of the longest words reaches 0.1 no later than y of the shortest reaches 0.9 (checkpoints; an exact test asks for so many against one half)",
    testbed="qwen",
    kind="statistical",
    at_least=least_count(len(qwens), false_alarm=level),
    false_alarm=level,
    smallest_effect=least_count(len(qwens), false_alarm=level),
    n=len(qwens),
    unit="checkpoints",
    paper=("P2.rough-plateaus", "limited"),
    sabotages={
        "the longest alone": {"kind": "single"},
        "mastered at one half": {"mastered": 0.5},
    },
)
def rough_relays(kind="rough", mastered=0.9):
    return qwen_study.relays(qwen_runs[kind].y, mastered=mastered).sum()


# %% [markdown]
# The longest words alone hardly leave chance within these steps; the flow says that they would move in the end, after a time that grows exponentially with the length.
# That the shortest words get worse meanwhile is what training on noise does.
# In the figure the lengths between help as well; from so few checkpoints that is no result.


# %% [markdown]
# ## 3.7 A reward that cannot see order
#
# **On a group that commutes a policy that reads every clause once, in any order, is always right, even if each of its steps is wrong.**
# So far a wrong step was a random element.
# But a policy that attends to the wrong clause uses an element of the *same* prompt.

# %% tags=["hide-input"]
a5, rng = alternating_group(5), np.random.default_rng(3)
fig, axes = figures.panels(columns=2, height=2.8)
for ax, group, name in zip(
    axes, (cyclic_group(5), a5), ("Z_5", "A_5"), strict=True
):
    clauses = rng.integers(1, group.order, 5)
    for order, style in (((0, 1, 2, 3, 4), "o-"), ((3, 1, 0, 4, 2), "s--")):
        path = [0]
        for place in order:
            path.append(group.table[path[-1], clauses[place]])
        ax.plot(path, style)
    luck = reading_success(group, (3, 1, 0, 4, 2))
    ax.set_title(f"${name}$: right in {luck:.0%} of prompts")
    ax.set(xlabel="step", ylabel="running product (element)")
axes[0].text(1.2, 3.4, "right order", color="C0")
axes[0].text(1.35, 2.2, "another order", color="C1")
figures.show(
    fig,
    "The same five clauses multiplied in the right order and in another one. On Z_5, whose elements commute, both paths end at the same element, so the reward is the same although no step need be. On A_5 they end apart. In the titles, how often this order ends right by luck over all prompts.",
)

# %% [markdown]
# ```{prf:theorem} Success of an attention pattern
# :label: thm-permutations
# Let clauses be independent and uniform, and let step $l$ read clause $m$ with probability $A_{lm}$, independently of the other steps given the prompt (a linear head).
# The first $h$ clauses of the context are the chain in its order.
# Then
#
# $$
# \begin{aligned}
# P_h &= \frac1n + \sum_{\pi}\Big(N_\pi - \frac1n\Big)\prod_{l=1}^{h}A_{l,\pi(l)}, \\
# N_\pi &= \frac1n\sum_\rho d_\rho^{\,2-2g(\pi)},
# \end{aligned}
# $$
#
# over all permutations $\pi$ of the chain; $\rho$ runs over the irreducible representations, of dimension $d_\rho$, and $2g(\pi)$ is $h+1$ minus the number of cycles of $(0\;1\,\dots\,h)$ composed with $(0\;\pi_h\,\dots\,\pi_1)$.
# On an abelian group every $N_\pi$ is one and $P_h = \frac1n + (1-\frac1n)\,\mathrm{perm}(A)$.
# On any group a wrong order is right with probability at most the share of pairs of elements that commute.
# ```
#
# ````{dropdown} Proof
# ```{prf:proof}
# Condition on which clause each step reads.
# If some clause of the chain is not read, it is uniform and independent of what was done, and success is $1/n$.
# Otherwise the reading is a permutation, and success is $N_\pi$, the probability that $h$ uniform elements have the same product in both orders: the number of solutions of one equation over $n^h$, in which every variable appears twice with opposite signs.
# Gluing the sides of a polygon gives a closed orientable surface of genus $g(\pi)$, and the formula of Frobenius and Mednykh counts homomorphisms from its fundamental group.
# Every reading thus contributes $1/n$ times its probability, which adds up to $1/n$, and permutations $N_\pi - 1/n$ on top.
# For a wrong order $g \ge 1$, so each term of $N_\pi$ is at most one, and their number over $n$ is the share of commuting pairs.
# ```
# ````

# %%
swap = np.eye(5)[[1, 0, 2, 3, 4]]  # exchanges the first two clauses
for group in (cyclic_group(96), dihedral_group(4), s3, alternating_group(5)):
    print(group.name, round(attention_success(group, swap), 3))

# %% [markdown]
# All prompts and all readings of short chains on five groups confirm the sum (claim {claim}`3-none-permutations:id`).
#
# Training starts from attention that is uniform over the clauses.
# If those are the chain's own, no order is better than another on an abelian group, so the gradient has nowhere to go (claim {claim}`3-none-uniform-is-stationary:id`); on the other groups it points to the right order.
#
# ```{prf:corollary} Uniform attention is a saddle on abelian groups
# :label: cor-saddle
# Let the context be exactly the chain and the group abelian, and let $B$ be the matrix of logits, every row less its mean.
# Around uniform attention
#
# $$
# P_h - P_h^{\text{uniform}} = \frac c2\Big(\sum_{l,m}B_{lm}^2 - \sum_m\big(\textstyle\sum_l B_{lm}\big)^2\Big) + O(B^3),
# $$
#
# with $c = (1-\frac1n)\,(h-2)!/h^h$: the Hessian has the eigenvalue $c$ in $(h-1)^2$ directions and $(1-h)c$ in $h-1$.
# ```
#
# ````{dropdown} Proof
# ```{prf:proof}
# Let $A = (1+E)/h$, where the rows of $E$ add up to zero.
# The permanent has no term of first order in $E$; that of second order is $(h-2)!/h^h$ times the sum of $E_{lm}E_{l'm'}$ over pairs of rows $l<l'$ and $m\ne m'$, which is minus the sum of the rows' inner products because rows add up to zero.
# To first order $E = B$, and the sum of inner products is the bracket over $-2$.
# ```
# ````
#
# What then becomes of training?
# We start attention uniform and train on chains of five with sampled GRPO, five names, linear head.


# %% tags=["remove-cell"]
@cache
def maps(group):
    size = (map_seeds, map_iterations, seed)
    return transformer_study.clause_maps(group, 5, *size)


z5, z96 = cyclic_group(5), cyclic_group(96)

# %% tags=["hide-input"]
fig, (left, right) = figures.panels(columns=2, height=3.2)
found = maps(z96)
shown = int(np.argmax((found.y > 0.9) & found.wrong))
left.imshow(found.attention[shown], cmap="Blues", vmin=0, vmax=1.3)
left.plot(range(5), range(5), "s", mfc="none", mec="C1", ms=26, mew=2)
left.set(xlabel="clause that is read", ylabel="name that is asked for")
left.set_title(f"$Z_{{96}}$, one seed: y = {found.y[shown]:.2f}")
left.grid(False)
for k, (group, name, x, y) in enumerate(
    (
        (z96, "$Z_{96}$", 0.62, 0.93),
        (s3, "$S_3$", 0.3, 0.15),
        (a5, "$A_5$", 0.8, 0.86),
    )
):
    run = maps(group)
    shift = 0.02 * np.linspace(-1, 1, map_seeds)
    right.plot(run.right + shift, run.y, "os^"[k], color=f"C{k}", alpha=0.7)
    right.text(x, y, name, color=f"C{k}", fontsize=12)
grid = np.linspace(0, 1, 100)
right.plot(grid, grid**5, **figures.PREDICTION)
right.set(xlabel="attention on the right clause", ylabel="y at the end")
figures.show(
    fig,
    f"Left: attention of one seed on Z_96 that earns all reward; orange squares are the right clauses. It has learned a permutation, and a wrong one. Right: success above chance against attention on the right clause, {map_seeds} seeds a group, five names, points set apart a little; dashed, all steps right. Z_96 earns full reward wherever its attention is. On S_3 seeds are caught on wrong orders that are right by luck; on A_5 reward means right steps.",
)


# %% tags=["remove-input"]
@ledger.claim(
    "3-transformer-abelian-success",
    headline="On abelian groups {measured:.0f} of {n} transformers earn full reward with a wrong clause map.",
    statement="Z5 and Z96, closed context, sampled GRPO from uniform attention: seeds that end with y above .9 and attend to a wrong clause for some name (an exact test asks for so many against one half)",
    testbed="transformer",
    sabotages={"S3 and A5 in their place": {"groups": (s3, a5)}},
    **counted(2 * map_seeds, "seeds"),
)
def rewarded_wrong(groups=(z5, z96)):
    return sum(int(((r.y > 0.9) & r.wrong).sum()) for r in map(maps, groups))


# %% [markdown]
# On a non-abelian group high success means the right map, because the theorem's bound leaves a wrong one too little.
# The divide is graded all the same: on the dihedral group $D_4$ and the quaternions, where five eighths of the pairs commute, {claim}`3-transformer-caught-by-commuting:measured:.0f` of {claim}`3-transformer-caught-by-commuting:n` seeds end settled on a wrong order with about half of the reward.
# With more names than the chain needs a wrong map is not always available, and yet {claim}`3-transformer-open-context:measured:.0f` of {claim}`3-transformer-open-context:n` seeds on $\mathbb Z_5$ earn with wrong steps, fewer than an exact test asks for ({claim}`3-transformer-open-context@book:predicted:.0f`); in the full profile it is {claim}`3-transformer-open-context@full:measured:.0f` of {claim}`3-transformer-open-context@full:n`, more than enough.
#
# ## 3.8 P2's own experiment: $\mathbb Z_{96}$ against $A_5$
#
# **Of the right answers of our $\mathbb Z_{96}$ runs most take the clauses in another order, and chains of forty-five stay unlearned; with $A_5$ in its place the same training can learn every length with every step right.**
# P2 trains on $\mathbb Z_{96}$, which commutes, and remarks on it (Remark $3.1$); its section 7.1 says that for lengths of five and more "the commutativity-induced shortcut effects discussed in Remark 3.1 are mild".
# `rlvr z96` rebuilds the experiment, on lengths 5, 15, 45 or 5, 35: a frozen pre-trained network as head, $64$ names, attention from zero, batches of $512$, $40{,}000$ updates.
# P2 states its settings in part only, so what differs from ours may be what makes its runs succeed.

# %% tags=["hide-input"]
fig, axes = figures.panels(columns=2, height=3.2, sharey=True)
for ax, name in zip(axes, ("Z96", "A5"), strict=True):
    runs = [r for r in transformer_study.published() if r["group"] == name]
    place, ticks = 0.0, []
    for run in runs:
        for k, h in enumerate(run["horizons"]):
            ordered, all_right = (
                run["final"][kind][k] for kind in ("right_paths", "greedy")
            )
            ax.bar(place, ordered, color="C0")
            other = max(all_right - ordered, 0.0)
            ax.bar(place, other, bottom=ordered, color="C1")
            ticks.append((place, h))
            place += 1
        place += 0.7
    ax.set_xticks(*zip(*ticks, strict=True))
    ax.set(xlabel="length (bars together: one run)", ylabel=" ")
    ax.set(title=f"${name[0]}_{{{name[1:]}}}$", ylim=(0, 1.12))
    ax.grid(axis="x", visible=False)
axes[0].set_ylabel("success at the end, greedy")
axes[0].text(3.4, 0.9, "in another order", color="C1")
axes[0].text(3.4, 0.78, "every step right", color="C0")
figures.show(
    fig,
    "Success of greedy responses after 40,000 updates in our runs of P2's experiment, three a group: two on 5, 15, 45 and one on 5, 35. On Z_96 only short chains earn, much of it in another order than asked. On A_5 one run never leaves chance; the others learn every length with every step right.",
)

# %% tags=["remove-input"]
answers = transformer_study.greedy_answers
right_z96 = answers("Z96", "greedy")
tested = answers("Z96", "all", slice(2, 3), 3)


@ledger.claim(
    "3-transformer-published-permutations",
    headline="Of the {n} right answers of our runs on Z_96, {measured:.0f} take the clauses in another order than asked.",
    statement="Z_96, committed runs of P2's experiment together: right greedy answers with the clauses in another order (an exact test asks for so many against one half)",
    testbed="transformer",
    paper=("P2.shortcuts-mild", "not-reproduced"),
    sabotages={
        "A5 in its place": {"group": "A5"},
        "every order taken for the right one": {"honest": "permutations"},
    },
    **counted(right_z96, "right greedy answers of three runs"),
)
def in_another_order(group="Z96", honest="right_paths"):
    share = 1 - answers(group, honest) / answers(group, "greedy")
    return round(share * right_z96)


@ledger.claim(
    "3-transformer-published-chains-of-45",
    headline="Our runs on Z_96 do not learn chains of 45: {measured:.0f} of {n} greedy answers are right.",
    statement="Z_96 trained on 5, 15, 45, committed runs: right greedy answers to chains of 45 (at most so many as an exact test asks for against a success of one tenth)",
    testbed="transformer",
    kind="statistical",
    at_most=binom.ppf(1e-6, tested, 0.1) - 1,
    n=tested,
    unit="greedy answers of two runs",
    false_alarm=1e-6,
    smallest_effect=binom.ppf(1e-6, tested, 0.1) - 1,
    paper=("P2.chains-of-45", "not-reproduced"),
    sabotages={
        "chains of 5 of the same runs": {"at": 0},
        "A5 in its place": {"group": "A5"},
    },
)
def right_at_45(group="Z96", at=2):
    return answers(group, "greedy", slice(at, at + 1), 3)


# %% [markdown]
# The three runs differ: in the one that earns most, more than half of the right answers do take the right order.
# They were made once and are counted here, not trained again; two seeds are few, and not reproduced is not refuted.
# P2's threshold of visibility, a success of $0.01$, lies below the chance of $1/96$.
#
# ## 3.9 The paper's sentences
#
# We read version 1 whole, with its appendices, and later versions by abstract; the left column is P2 in our words.
#
# | sentence of P2 | what became of it |
# | --- | --- |
# | A smooth spectrum, $R = 3$, leads to a relay (abstract; Theorem 5.2). | **Limited**. A linear head relays by every ruler; a saturating one by P2's levels and by wait over rise, not by the levels $0.1$ and $0.9$; our runs on $\mathbb Z_{96}$ do not. |
# | Abrupt jumps, $R = 7$, lead to long plateaus of polynomial length (abstract; Theorem 5.1). | **Confirmed** where the context is the chain and the head saturates, and polynomial while the short chains stay; **limited**, because in a fixed context a linear head relays at seven and nine, and small Qwens at eight. Theorem 5.1 is about ratios that grow; seven is its figure's. |
# | A long horizon alone starts exponentially flat (Proposition $4.1$). | **Confirmed** ({prf:ref}`thm-flow`). |
# | $R$ decides the hand-off, where $\Delta_{k+1}^{L_{k+1}}$, the success of the next length, has grown to about $1-\Delta_k$, what this one lacks (section 6.2). | **Sharpened** for one logit: one exponent ties the two at all times ({prf:ref}`thm-handoff`), and on the bandit forty-five names follow it. |
# | For constant $R$ the time of a relay is bounded above (Theorem 5.2). | No verdict: our stage time, in the evidence, is exact, but for success and not for success over length. |
# | On non-abelian simple groups attention converges to the right clause (Theorems 4.1 and 5.2). | **Limited**: at the start the gradient at uniform attention points to it (claim {claim}`3-none-nonabelian-points-right:id`). That sampled training then arrives there we do not find for every seed. |
# | On abelian groups the largest normalised character is one, which leaves them out of a proof (Remark B.1). | **Sharpened**: uniform attention is a saddle there ({prf:ref}`cor-saddle`), and no order is better than another. |
# | Although $\mathbb Z_{96}$ commutes, its shortcuts are mild from length five on (section 7.1). | **Not reproduced**: most right answers of our runs take another order; settings partly unknown. |
# | Trained on 5, 15, 45, a transformer on $\mathbb Z_{96}$ reaches success near one at 45 (figure 3a). | **Not reproduced**: two seeds end near chance there. |
#
# Every claim, its sabotages and both profiles stand in the [ledger](../book/ledger); what supports this page without being on it is in the [evidence](evidence/03_relay_effect).
#
# (what-to-do-3)=
# ## 3.10 What to do
#
# 1. **Plot $y$ for every difficulty**, with the chance of a blind guess taken out, never raw success.
# 2. **Keep a level with $y$ between a tenth and a half in every batch.** Levels push hardest near $1/e$. If none is there, insert one: `next_ratio(y, visible)` says how far it may lie from a level you have measured, for a linear head; for a saturating one the gap must be narrower.
# 3. **Do not train the longest level alone.** On {claim}`3-qwen-smooth-against-single@full:n` fresh Qwens the smooth mixture got {claim}`3-qwen-smooth-against-single@full:measured:.0f` more answers to the longest words right than as many samples of these alone, where our test asks for {claim}`3-qwen-smooth-against-single@full:predicted:.0f`; that a long level alone waits exponentially is the theorem's word.
# 4. **Keep mastered levels if the next one is far**, because they shorten the wait; if it is near, dropping them can be faster with a head that does not saturate. A level whose groups are all correct is as good as dropped.
# 5. **Measure $\kappa = \ln y'/\ln y$ while both levels can be seen**, on single prompts if they differ, because pass rates mixed over prompts make it look smaller. It is at least the ratio.
# 6. **Do not read success as right reasoning.** Check steps, and prefer a task whose reward depends on their order.
#
# ## 3.11 Exercises
#
# ```{exercise} Uneven names
# :label: ex-uneven
# Forty-five names have decays $a_m$ that differ, in a fixed context.
# Is the exponent between lengths 5 and 15 above or below their ratio?
# ```

# %% [markdown]
# ````{solution-start} ex-uneven
# :class: dropdown
# ````
#
# Above, because by Maclaurin's inequality the $h$-th root of an elementary symmetric mean falls with $h$: uneven names are harder for long chains.

# %%
decay = np.random.default_rng(0).uniform(0.6, 1, (1, 45))
one, two = (bandit_study.mean_over_chains(decay, h)[0] for h in (5, 15))
print(np.log(two) / np.log(one))

# %% [markdown]
# ````{solution-end}
# ````
#
# ```{exercise} A sharper head
# :label: ex-sharp
# For which sharpness of the softmax head is the hand-off from 5 to 15 still a relay by P2's own levels?
# ```

# %% [markdown]
# ````{solution-start} ex-sharp
# :class: dropdown
# ````
#
# Its exponent at $y = 0.99$ must not exceed $\ln 0.01/\ln 0.99 = 458$, which it does from a sharpness of about $28$ on:

# %%
for sharpness in (10, 20, 26, 28, 30):
    print(sharpness, saturated_exponent(3, 5, 0.99, sharpness, 6).round(1))

# %% [markdown]
# ````{solution-end}
# ````
#
# ```{exercise} A level in the middle
# :label: ex-middle
# Chains of 5 and 45 in a dilute context, linear head: where would you insert one more length so that both hand-offs have the same exponent near mastery?
# ```

# %% [markdown]
# ````{solution-start} ex-middle
# :class: dropdown
# ````
#
# The limits are $m(m-1)/(5\cdot 4)$ and $45\cdot44/(m(m-1))$, so $m(m-1) = \sqrt{20\cdot1980}$, close to the geometric mean $15$:

# %%
for m in (13, 14, 15, 16):
    print(m, handoff_exponent(m / 5, 5), handoff_exponent(45 / m, m))

# %% [markdown]
# ````{solution-end}
# ````

# %% tags=["remove-cell", "nbval-ignore-output"]
ledger.publish()
