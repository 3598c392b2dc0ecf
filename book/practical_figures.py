"""Draw the pictures of the practical pages, each from exact arithmetic, into ``_static``."""

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from rlvr_lib import critical_learning_rate, figures
from rlvr_lib.testbeds.lines import TokenChain
from rlvr_lib.theory.advantages import power_gain
from rlvr_lib.theory.baseline import baseline_loss, critical_energy_ratio, mean_baseline_loss

BLUE, ORANGE, GREEN, RED, GREY = "#0173b2", "#c75b00", "#017a5b", "#c1272d", "#555555"

CHAIN, UPDATES = TokenChain.with_peak(length=64, success=0.9), 200
ESTIMATORS = {"reinforce": ("REINFORCE", BLUE), "grpo": ("GRPO", ORANGE)}
GROUPS = {4: (GREEN, 0.008), 8: (BLUE, -0.012), 16: (ORANGE, -0.012), None: (RED, -0.03)}


def success_at_the_end(multiples, estimator, chain=CHAIN, updates=UPDATES, start=0.5):
    """Least success of the last 20 mean updates at multiples of the critical rate of the maximum, large groups."""
    peak = chain.along(0.0)
    rate = np.asarray(multiples) * critical_learning_rate(peak.success, peak.curvature, estimator)
    x = np.full(rate.shape, chain.start(start))
    success = []
    for _ in range(updates):
        x = x + rate * chain.along(x).velocity(estimator)
        success.append(chain.along(x).success)
    return np.min(success[-20:], axis=0)


def rate_edge(ax):
    """Success at the end of a run against its learning rate."""
    multiples = np.geomspace(0.02, 1.6, 240)
    for estimator, (name, colour) in ESTIMATORS.items():
        ax.plot(multiples, success_at_the_end(multiples, estimator), color=colour, linewidth=2, label=name)
    ax.axvline(1, color=GREY, linewidth=1, linestyle="--")
    ax.axvline(0.5, color=GREEN, linewidth=1.4)
    ax.text(0.48, 0.05, "half", color=GREEN, ha="right", fontsize=11)
    ax.legend(loc="lower left", fontsize=11)
    ax.set(xscale="log", ylim=(-0.03, 1), xlabel="learning rate over the critical one")
    ax.set(ylabel=f"least success, last 20 of {UPDATES}")
    ax.set_xticks([0.02, 0.1, 0.5, 1], ["0.02", "0.1", "0.5", "1"])
    ax.minorticks_off()


def rate_factor(success, group_size):
    """For the learning rate, from no division to that by TRL's deviation, at equal mean steps."""
    return power_gain(success, 0, group_size) / power_gain(success, 1, group_size, bessel=True)


def std_factor(ax):
    """The factor over the success rate, for three sizes of groups and for large ones."""
    J = np.linspace(0.02, 0.98, 193)
    for size, (colour, shift) in GROUPS.items():
        factor = rate_factor(J, size)
        ax.plot(J, factor, color=colour, linewidth=2)
        name = "large groups" if size is None else f"groups of {size}"
        ax.text(0.985, factor[-1] + shift, name, color=colour, fontsize=11, va="center", clip_on=False)
    ax.set(xlim=(0, 1), ylim=(0, 0.6), xlabel="success rate of the prompt", ylabel="factor of the learning rate")


def baseline_prices(success, energy_ratio):
    """Price of the mean and of the zero baseline, over the second moment with b*."""
    return mean_baseline_loss(success, energy_ratio), baseline_loss(success, energy_ratio, 0.0)


def baseline_map(ax):
    """Where the mean and where the zero baseline is the cheaper, and what the better of them costs."""
    J, x = np.meshgrid(np.linspace(0.02, 0.98, 300), np.geomspace(0.1, 100, 300))
    cheaper = np.minimum(*baseline_prices(J, x))
    ax.fill_between(J[0], 0.1, critical_energy_ratio(J[0]), color=BLUE, alpha=0.18, linewidth=0)
    ax.fill_between(J[0], critical_energy_ratio(J[0]), 100, color=ORANGE, alpha=0.18, linewidth=0)
    lines = ax.contour(J, x, cheaper, levels=[1.05, 1.25, 1.5, 2, 4], colors=GREY, linewidths=0.9)
    ax.clabel(lines, fmt="%g", fontsize=9)
    ax.plot(J[0], critical_energy_ratio(J[0]), color="black", linewidth=2)
    ax.text(0.1, 18, "zero baseline", color=ORANGE, fontsize=12, fontweight="bold")
    ax.text(0.1, 1.05, "mean", va="center", color=BLUE, fontsize=12, fontweight="bold")
    ax.set(yscale="log", ylim=(0.1, 100), xlim=(0.02, 0.98), xlabel="success rate $J$")
    ax.set(ylabel="energy ratio $x$, wrong over right")
    ax.set_yticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])


def next_success(ratio, prompts):
    """Mean success above chance at a ratio of levels, over prompts with those rates."""
    return np.mean(np.asarray(prompts)[:, None] ** np.asarray(ratio), axis=0)


MIXTURES = {(0.8,): ("all prompts at 0.8", BLUE), (0.65, 0.95): ("half at 0.65, half at 0.95", ORANGE)}


def next_levels(ax):
    """Two sets of prompts with one mean, and what they reach."""
    ratio = np.geomspace(1, 64, 200)
    for prompts, (name, colour) in MIXTURES.items():
        ax.plot(ratio, next_success(ratio, prompts), color=colour, linewidth=2, label=name)
    ax.axhline(0.1, color=GREY, linewidth=1, linestyle="--")
    ax.text(1.05, 0.085, "visible", color=GREY, va="top", fontsize=11)
    ax.legend(fontsize=11, loc="upper right")
    ax.set(xscale="log", yscale="log", xlim=(1, 64), ylim=(0.01, 1), xlabel="next level over this one, $R$")
    ax.set(ylabel="mean $y$ at the next level")
    ax.set_xticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
    ax.set_yticks([0.01, 0.1, 1], ["0.01", "0.1", "1"])
    ax.minorticks_off()


PICTURES = {
    "rate_edge": (rate_edge, (5.6, 3.2)),
    "std_factor": (std_factor, (5.6, 3.2)),
    "baseline_map": (baseline_map, (5.6, 3.6)),
    "next_levels": (next_levels, (5.6, 3.4)),
}


def draw(folder):
    """All pictures, as SVG."""
    figures.set_style()
    mpl.rcParams |= {"svg.hashsalt": "rlvr", "svg.fonttype": "path", "axes.labelsize": 11, "xtick.labelsize": 10}
    mpl.rcParams |= {"ytick.labelsize": 10, "figure.facecolor": "none", "axes.facecolor": "none"}
    for name, (part, size) in PICTURES.items():
        figure, ax = plt.subplots(figsize=size, layout="constrained")
        part(ax)
        figure.savefig(folder / f"{name}.svg", transparent=True, metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    draw(Path(__file__).parent / "_static")
