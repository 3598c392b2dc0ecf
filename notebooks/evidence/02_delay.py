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
# # Evidence for chapter 2: how much does delay cost?
#
# **Near a maximum a gradient that is $k$ updates old is stable only below $\sin\frac{\pi}{4k+2}$ of the critical rate, a half at one update and less than a tenth at eight; the runs of a Qwen at the rates of {doc}`/book/choosing_a_learning_rate` survive eight updates all the same.**
# Asynchronous trainers compute an update from responses of a policy that has moved on.
# The first two sections say exactly what that does to one update and near a maximum, the third what it did to whole runs.

# %% tags=["parameters", "remove-cell"]
profile: str = "book"  # label of the profile that set these parameters
seed: int = 0  # [0, 4294967295] seed of every random draw
judged: bool = True  # whether sampled claims are large enough for a verdict
qwen_model: str = "tiny"  # tiny, a hub name or a local path
bandits: int = 40  # [1, 10000] random bandits
transformers: int = 12  # [1, 1000] random synthetic transformers
qwen_checkpoints: int = 2  # [1, 100] warm starts of the Qwen
qwen_first: int = 0  # [0, 100000] seed of the first of them
qwen_lines: int = 3  # [1, 100] words of each whose line is followed
qwen_draws: int = 12  # [1, 1000] first updates whose median is the pooled rate
qwen_steps: int = 40  # [5, 10000] steps of a run

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

from rlvr_lib import figures, gradient_gap, success_rate
from rlvr_lib.claims import Ledger, relative_error
from rlvr_lib.intervals import least_count
from rlvr_lib.studies import delay as study
from rlvr_lib.studies.closed_loop import halves, pooled_rate, warm_starts
from rlvr_lib.studies.threshold.transformer import short_chain
from rlvr_lib.testbeds.bandit import SoftmaxBandit
from rlvr_lib.testbeds.grpo import GRPO
from rlvr_lib.theory.delay import delay_factor

figures.set_style()
ledger = Ledger(2, "P1", profile, [seed], judged, lane="evidence")

# %% [markdown]
# ## What does a stale update point along?
#
# **Along the gap of the policy that made the responses, wherever the parameters are now.**
# On a log-linear policy the score is a feature less its mean, $s_\theta(o) = f(o) - \mathbb E_\theta f$, and centred advantages, $r - J_\mu$ under the policy $\mu$ of the rollout, cancel whatever does not depend on the response:
#
# $$\mathbb E_{o \sim \mu}\big[(r - J_\mu)\, s_\theta(o)\big] = J_\mu (1 - J_\mu)\, D(\mu).$$
#
# So training without importance weights is ascent with a delay, not ascent along something else.
# The ratio $\pi_\theta / \mu$ as a weight gives back the gradient of the current policy, because $\mathbb E_\theta s_\theta = 0$.


# %% tags=["remove-input"]
def pairs():
    """Random bandits, each at two parameter vectors: that of the rollout and the current one."""
    rng = np.random.default_rng(seed)
    for number in range(bandits):
        then = SoftmaxBandit.random(seed + number)
        moved = then.theta + 0.5 * rng.standard_normal(then.theta.shape)
        yield then.enumerate(), then.at(moved).enumerate()


@ledger.claim(
    "2-bandit-delay-stale-update",
    headline="A stale update without importance weights is that of the old policy, to {measured:.0e} on {n} {unit}.",
    statement="the mean update from responses of an old policy, with rewards centred at its success and scores of the current one, against J(1 - J) times the gap of the old one (largest relative error)",
    testbed="bandit",
    equals=0.0,
    within=1e-9,
    n=bandits,
    unit="bandits",
    sabotages={
        "rewards that are not centred": {"centred": 0.0},
        "the gap of the current policy": {"current": True},
    },
)
def stale_update_error(centred=1.0, current=False):
    errors = []
    for old, new in pairs():
        J = success_rate(old)
        mean = old.prob @ ((old.reward - centred * J)[:, None] * new.score)
        of = new if current else old
        J = success_rate(of)
        errors.append(relative_error(mean, J * (1 - J) * gradient_gap(of)))
    return max(errors)


@ledger.claim(
    "2-bandit-delay-importance-weights",
    headline="Full importance weights give back the gradient of the current policy, to {measured:.0e} on {n} {unit}.",
    statement="the mean update from responses of an old policy, weighted by the ratio of their probabilities now and then, against the gradient of the current success (largest relative error)",
    testbed="bandit",
    equals=0.0,
    within=1e-9,
    n=bandits,
    unit="bandits",
    sabotages={
        "no weights": {"largest": 0.0},
        "weights of at most 2": {"largest": 2.0},
    },
)
def weighted_update_error(largest=np.inf):
    errors = []
    for old, new in pairs():
        ratio = np.minimum(new.prob / old.prob, largest) if largest else 1.0
        weight = old.prob * ratio * (old.reward - success_rate(old))
        J = success_rate(new)
        errors.append(
            relative_error(weight @ new.score, J * (1 - J) * gradient_gap(new))
        )
    return max(errors)


# %% [markdown]
# ## How much shorter must the step be?
#
# **By $\sin\frac{\pi}{4k+2}$, about $\pi/(4k)$: one update of delay costs half of the rate.**
# Near a maximum, along a direction of curvature $\lambda$, the distance to it follows $x_{t+1} = x_t - \eta\lambda\, x_{t-k}$.
# A solution $x_t = e^{i\omega t}$, which neither grows nor dies, needs $e^{i\omega(k+1)} - e^{i\omega k} = -\eta\lambda$; the left side is $2i\sin\frac{\omega}{2}\,e^{i\omega(k+1/2)}$, so $\omega = \frac{\pi}{2k+1}$ comes first as $\eta$ grows from 0, and there $\eta\lambda = 2\sin\frac{\pi}{4k+2}$, where a fresh gradient ($k = 0$) has 2.
# Of several directions the one of largest curvature decides.
#
# The check does not use that recursion: it iterates the exact gradient of success, in all parameters on the bandit and along the line of the gradient gap on the transformer and the Qwen, and finds by bisection where a small deviation begins to grow.

# %% tags=["hide-input"]
DELAYS = (0, 1, 2, 4, 8)
peaks = study.random_peaks(seed, bandits)
qwens = warm_starts(qwen_model, qwen_checkpoints, qwen_first)


def found(lines):
    """Those that have a maximum."""
    return [line for line in lines if line is not None]


lines = {
    "transformer": found(
        study.line_through(short_chain("crowded names", 4, one)[0], 0, 64.0)
        for one in range(seed, seed + transformers)
    ),
    "qwen": found(
        study.line_through(qwen, prompt)
        for qwen in qwens
        for prompt in halves(qwen, 3, seed)[0][:qwen_lines]
    ),
}
start = np.full_like(peaks.best, 1e-4)
factors = {
    "bandit": {
        k: study.critical_factors(peaks.drift, start, peaks.critical, k)
        for k in DELAYS
    }
}
for name, some in lines.items():
    factors[name] = {k: study.line_factors(some, k) for k in DELAYS}

# %% tags=["remove-input"]
fig, ax = figures.panels(1)
smooth = np.linspace(0, 8.5, 300)
ax.plot(
    smooth,
    np.sin(np.pi / (4 * smooth + 2)),
    label=r"$\sin\,\pi/(4k+2)$",
    color="0.4",
)
for shift, (name, by_delay) in zip(
    (-0.12, 0, 0.12), factors.items(), strict=True
):
    ax.plot(
        [k + shift for k in DELAYS],
        [np.median(by_delay[k]) for k in DELAYS],
        "o",
        label=name,
    )
ax.set(
    xlabel="delay k, updates",
    ylabel="critical rate over that without delay",
    yscale="log",
)
ax.legend()
figures.show(
    fig,
    "Critical rate over that without delay against the delay in updates, on a logarithmic scale. Dots of three testbeds at delays of 0, 1, 2, 4 and 8 lie on the curve of the sine of pi over four k plus two, which falls from one to less than a tenth.",
    caption=f"Medians over {bandits} bandits, {len(lines['transformer'])} lines of the transformer and {len(lines['qwen'])} of the Qwen. One formula fits all three testbeds.",
)


# %% tags=["remove-input"]
def worst(name, factor=delay_factor):
    """Largest relative distance from a factor, over delays and policies."""
    return max(
        np.abs(measured / factor(k) - 1).max()
        for k, measured in factors[name].items()
    )


def no_delay(k):
    """What a delay would cost if it cost nothing."""
    return 1.0


def one_over(k):
    """What would hold if the delayed updates simply added up."""
    return 1 / (k + 1)


NUMERICAL = {
    "kind": "numerical",
    "at_most": 0.0,
    "within": 0.003,
}
WRONG = {
    "as without delay": {"factor": no_delay},
    "one over k + 1": {"factor": one_over},
}


@ledger.claim(
    "2-bandit-delay-critical-rate",
    headline="With a delay of 0 to 8 updates the critical rate of {n} {unit} is the predicted share of that without, within {measured:.2%}.",
    statement="largest relative distance of the critical rate of delayed ascent from sin(pi / (4k + 2)) times two over the largest curvature, in all parameters, delays 0, 1, 2, 4 and 8 (bisection to 1e-4)",
    testbed="bandit",
    n=bandits,
    unit="bandits",
    sabotages=WRONG,
    **NUMERICAL,
)
def worst_on_bandits(factor=delay_factor):
    return worst("bandit", factor)


@ledger.claim(
    "2-transformer-delay-critical-rate",
    headline="The same holds along {n} {unit} of the synthetic transformer whose success has a maximum, within {measured:.2%}.",
    statement="largest relative distance of the critical rate of delayed ascent along the line of the gap from sin(pi / (4k + 2)) times two over the curvature at its maximum, delays 0, 1, 2, 4 and 8 (bisection to 1e-4)",
    testbed="transformer",
    n=len(lines["transformer"]),
    unit="lines",
    sabotages=WRONG,
    **NUMERICAL,
)
def worst_on_transformers(factor=delay_factor):
    return worst("transformer", factor)


@ledger.claim(
    "2-qwen-delay-critical-rate",
    headline="And along {n} such {unit} of the Qwen, within {measured:.2%}.",
    statement="largest relative distance of the critical rate of delayed ascent along the line of the gap from sin(pi / (4k + 2)) times two over the curvature at its maximum, delays 0, 1, 2, 4 and 8 (bisection to 1e-4)",
    testbed="qwen",
    n=len(lines["qwen"]),
    unit="lines",
    sabotages=WRONG,
    **NUMERICAL,
)
def worst_on_qwens(factor=delay_factor):
    return worst("qwen", factor)


# %% [markdown]
# ## What does delay do to a run?
#
# **Little, at a rate that is safe without it.**
# Runs of a Qwen on rollouts that are $k$ updates old, at the rates that {doc}`/notebooks/evidence/02_training_rates` found safe without delay: a thirty-second of the pooled critical rate with SGD, a quarter with AdamW.
# In TRL's words a rollout is `steps_per_generation` $\times$ `num_iterations` updates old at most; an asynchronous trainer names its bound itself.

# %% tags=["hide-input"]
SGD, ADAMW = "Dr. GRPO, SGD", "GRPO, AdamW"
ALGORITHMS = {
    SGD: GRPO(estimator="dr_grpo"),
    ADAMW: GRPO(estimator="grpo", optimizer="adamw"),
}
SAFE = {SGD: 1 / 32, ADAMW: 1 / 4}
DOOMED = {SGD: 1 / 2, ADAMW: 4}
pooled = {
    name: [
        pooled_rate(qwen, settings, 3, qwen_draws, seed + k)
        for k, qwen in enumerate(qwens)
    ]
    for name, settings in ALGORITHMS.items()
}


def runs_of(name, multiple, delay, weights):
    """One run from each checkpoint at a multiple of its own pooled rate."""
    return [
        study.stale_run(
            qwen,
            multiple * rate,
            ALGORITHMS[name],
            delay,
            weights,
            3,
            qwen_steps,
            seed + 100 + k,
        )
        for k, (qwen, rate) in enumerate(zip(qwens, pooled[name], strict=True))
    ]


kinds = [(0, "none"), (2, "none"), (8, "none"), (8, "full"), (8, "clipped")]
cells = [(name, SAFE[name], *kind) for name in ALGORITHMS for kind in kinds]
cells += [(name, DOOMED[name], 8, "none") for name in ALGORITHMS]
runs = {cell: runs_of(*cell) for cell in cells}


def lost(cell):
    """Runs that have collapsed."""
    return sum(run.collapsed for run in runs[cell])


# %% tags=["remove-input"]
figures.table(
    [
        (
            name,
            f"{multiple:g}",
            str(delay),
            weights,
            f"{lost((name, multiple, delay, weights))} of {len(qwens)}",
            f"{np.mean([run.success[-1] for run in runs[name, multiple, delay, weights]]):.2f}",
        )
        for name, multiple, delay, weights in cells
    ],
    (
        "algorithm",
        "rate over pooled",
        "delay",
        "importance weights",
        "collapsed",
        "final success",
    ),
)

# %% tags=["remove-input"]
level = max(1e-6, 0.5 ** len(qwens))  # the least that so few can reach
asked = least_count(len(qwens), false_alarm=level)
COMMON = {
    "testbed": "qwen",
    "kind": "statistical",
    "at_least": asked,
    "false_alarm": level,
    "smallest_effect": asked,
    "n": len(qwens),
    "unit": "checkpoints",
}


@ledger.claim(
    "2-qwen-delay-of-eight-sgd",
    headline="At a thirty-second of the pooled critical rate Dr. GRPO with plain SGD survives rollouts that are eight updates old on {measured:.0f} of {n} {unit}.",
    statement="checkpoints whose run of Dr. GRPO with SGD at a thirty-second of their pooled critical rate, on rollouts eight updates old and without importance weights, ends above half of the success it started with (sign test over checkpoints)",
    **COMMON,
    sabotages={"half of the pooled rate": {"multiple": 1 / 2}},
)
def kept_with_sgd(multiple=1 / 32):
    return len(qwens) - lost((SGD, multiple, 8, "none"))


@ledger.claim(
    "2-qwen-delay-of-eight-adamw",
    headline="At a quarter of it GRPO with AdamW survives them on {measured:.0f} of {n} {unit}.",
    statement="checkpoints whose run of GRPO with AdamW at a quarter of their pooled critical rate, on rollouts eight updates old and without importance weights, ends above half of the success it started with (sign test over checkpoints)",
    **COMMON,
    sabotages={"four times the pooled rate": {"multiple": 4}},
)
def kept_with_adamw(multiple=1 / 4):
    return len(qwens) - lost((ADAMW, multiple, 8, "none"))


# %% [markdown]
# The formula is about the last stretch before a maximum, where a step that is too long oscillates.
# A run that collapses mostly does so far from one, so the formula is a bound on what a delay can cost near the end of training, and does not say when a run dies.
# The claims about runs were formulated on the checkpoints 0 to 3; those of the full profile are new to them.

# %% tags=["remove-cell", "nbval-ignore-output"]
ledger.publish()
