"""Draw the pictures of the pages around the chapters, from a few lines of exact computation, into ``_static``."""

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from rlvr_lib import Responses, critical_learning_rate, figures, gradient_gap
from rlvr_lib.testbeds.lines import TokenChain

BLUE, ORANGE, GREEN, RED, GREY = "#0173b2", "#c75b00", "#017a5b", "#c1272d", "#555555"

CHAIN, UPDATES = TokenChain.with_peak(length=64, success=0.9), 24
RATES = {
    0.1: ("a tenth or half", GREEN),
    0.5: ("", GREEN),
    1.1: ("a tenth above", BLUE),
    1.5: ("half above", ORANGE),
    3.0: ("three times", RED),
}
"""Learning rates over the critical one, with what the picture calls them."""

FOUR = Responses(
    reward=[1, 1, 0, 0], score=np.array([[1.0, 0], [1, 2], [-1, 0], [0, -1]]), prob=np.array([0.3, 0.1, 0.4, 0.2])
)
"""The example of the primer: four responses to one prompt, two of them right."""

IDENTITIES = (
    ("1  gap alignment", "along a step", r"$\Delta\log\frac{J}{1-J}\geq\eta D_w-\frac{1}{8}\eta^2\mathrm{diam}_w^2$"),
    ("2  step threshold", "until it curves", r"$J$ rises while $\;\eta<2(1-J)\,D_w\,/\,\ell$"),
    ("3  relay effect", "along a chain", r"$y_{\mathrm{long}}=y_{\mathrm{short}}^{\;\kappa}$"),
    ("4  adaptive curvature", "in GRPO's scale", r"$\nabla J=\sigma^2D,\quad$ GRPO steps along $\;\sigma D$"),
    ("5  optimal baseline", "from samples", r"$b^*=J\,/\,(J+(1-J)\,x)$"),
)  # fmt: skip


def success_by_update(multiple, chain=CHAIN, updates=UPDATES):
    """Success of a chain under GRPO's mean update, at a multiple of the critical rate of its maximum.

    Large groups; starts at a success of a tenth.
    """
    peak = chain.along(0.0)
    rate = multiple * critical_learning_rate(peak.success, peak.curvature, "grpo")
    x, success = chain.start(0.1), []
    for _ in range(updates + 1):
        here = chain.along(x)
        success.append(float(here.success))
        x = x + rate * here.velocity("grpo")
    return success


def edge(ax):
    """The same start at four learning rates."""
    for multiple, (name, colour) in RATES.items():
        curve = success_by_update(multiple)
        swings = multiple == 1.5
        ax.plot(curve, "-o", color=colour, markersize=3, linewidth=1 if swings else 2, alpha=0.75 if swings else 1)
        height = 0.5 if swings else max(curve[-1], 0.03)
        ax.annotate(name, (UPDATES + 0.5, height), color=colour, fontsize=11, va="center", annotation_clip=False)
    ax.set(xlim=(0, UPDATES), ylim=(-0.03, 1), xlabel="update", ylabel="success rate")
    ax.text(UPDATES + 0.5, 1.03, "learning rate against\nthe critical one:", fontsize=9.5, va="center", color=GREY)


def four_responses(ax):
    """The scores of four responses, the two means, and the gap between them."""
    right = FOUR.reward == 1
    gap = gradient_gap(FOUR)
    start = -gap * FOUR.prob[right].sum()
    ax.axhline(0, color="#bbbbbb", linewidth=0.8)
    ax.axvline(0, color="#bbbbbb", linewidth=0.8)
    for (x, y), share, name, good in zip(FOUR.score, FOUR.prob, "ABCD", right, strict=True):
        ax.scatter(x, y, s=1400 * share, color=GREEN if good else RED, alpha=0.35, linewidth=0)
        ax.annotate(name, (x, y), ha="center", va="center", fontsize=12, fontweight="bold")
    ax.annotate("", start + gap, start, arrowprops={"arrowstyle": "-|>", "linewidth": 2.2, "color": "black"})
    for at, name, colour, shift in (
        (start + gap, "mean of the right", GREEN, 10),
        (start, "mean of the wrong", RED, -16),
    ):
        ax.scatter(*at, s=45, marker="D", color=colour, zorder=5)
        ax.annotate(name, at, (0, shift), textcoords="offset points", ha="center", color=colour, fontsize=10)
    ax.annotate("gap $D$", start + 0.45 * gap, (-4, 9), textcoords="offset points", ha="right", fontsize=12)
    ax.set(xlim=(-1.75, 1.75), ylim=(-1.45, 2.45), xlabel="first part of the score", ylabel="second part")
    ax.set_aspect("equal")


def identities(ax):
    """One identity above, the five theorems below, each with what it makes of the identity."""
    ax.set_axis_off()
    ax.set(xlim=(0, 10.3), ylim=(-0.4, 6.4))
    box = {"boxstyle": "round,pad=0.5", "facecolor": "#dbe9f6", "edgecolor": BLUE}
    root = r"$D\;=\;\mathbb{E}_+[s]-\mathbb{E}_-[s]\;=\;\nabla\log\frac{J}{1-J}$"
    ax.text(0.1, 5.85, root, va="center", fontsize=14, bbox=box)
    ax.plot([0.35, 0.35], [0.1, 5.2], color=BLUE, linewidth=1.6)
    for row, (name, how, formula) in enumerate(IDENTITIES):
        y = 4.55 - 1.1 * row
        ax.annotate("", (0.95, y), (0.35, y), arrowprops={"arrowstyle": "-|>", "color": BLUE, "linewidth": 1.6})
        ax.text(1.05, y + 0.2, name, va="center", fontsize=11, fontweight="bold")
        ax.text(1.05, y - 0.3, how, va="center", fontsize=10, color=GREY)
        ax.text(4.95, y - 0.05, formula, va="center", fontsize=11.5)


def draw(folder):
    """All pictures; SVG for the book, PNG for what shows no SVG."""
    figures.set_style()
    mpl.rcParams |= {"svg.hashsalt": "rlvr", "svg.fonttype": "path", "axes.labelsize": 11, "xtick.labelsize": 10}
    mpl.rcParams |= {"ytick.labelsize": 10, "figure.facecolor": "none", "axes.facecolor": "none"}
    for name, part, size in (("edge", edge, (5.4, 3.1)), ("four_responses", four_responses, (4.2, 4.3)),
                             ("one_identity", identities, (5.6, 3.9))):  # fmt: skip
        figure, ax = plt.subplots(figsize=size, layout="constrained")
        part(ax)
        figure.savefig(folder / f"{name}.svg", transparent=True, metadata={"Date": None})
        if name == "one_identity":
            figure.savefig(folder / f"{name}.png", dpi=160, facecolor="white", metadata={"Software": None})
        plt.close(figure)
    card, ax = plt.subplots(figsize=(12, 6.3), facecolor="white")
    card.subplots_adjust(left=0.09, right=0.74, bottom=0.13, top=0.62)
    edge(ax)
    card.text(0.05, 0.89, "The theory of RLVR, re-runnable", fontsize=32, fontweight="bold", va="center")
    card.text(
        0.05, 0.78, "Four papers, five theorems, every claim checked on a laptop", fontsize=18, va="center", color=GREY
    )
    for text in (*ax.texts, ax.xaxis.label, ax.yaxis.label, *ax.get_xticklabels(), *ax.get_yticklabels()):
        text.set_fontsize(15)
    card.savefig(folder / "card.png", dpi=100, metadata={"Software": None})
    plt.close(card)


if __name__ == "__main__":
    draw(Path(__file__).parent / "_static")
