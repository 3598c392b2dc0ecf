"""Draw the pictures of the page "Does it carry over?" from the library's ``data/ladder.json``, into ``_static``."""

import json
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

import rlvr_lib
from rlvr_lib import figures
from rlvr_lib.studies.scale import FINDINGS

BLUE, ORANGE, GREY = "#0173b2", "#c75b00", "#555555"
DATA = Path(rlvr_lib.__file__).parent / "data" / "ladder.json"


def points(found, finding):
    """Parameters and value of every checkpoint that has the finding's number, as a reader knows it."""
    pairs = [
        (rung["parameters"], finding.scale(each["quantities"]))
        for rung in found["rungs"]
        for each in rung["checkpoints"]
    ]
    return np.array([(size, finding.shown(value)) for size, value in pairs if np.isfinite(value)]).reshape(-1, 2)


def picture(ax, found, name):
    """The checkpoints of a finding, the fit at both ends, and the interval of the prediction."""
    finding, (row,) = FINDINGS[name], [row for row in found["predictions"] if row["quantity"] == name]
    dots = points(found, finding)
    ax.plot(*dots.T, "o", color=BLUE, markersize=6, alpha=0.7)
    if row["low"] is not None:
        ends = [min(dots[:, 0]), max(dots[:, 0])]
        fit = [row["smallest"][0], row["largest"][0]]
        ax.plot(ends, fit, color=BLUE, linewidth=2)
        low, high = row["low"], row["high"]
        if finding.ratio:
            low, high = np.clip([low, high], 1e-6, 1e6)
        ax.fill_between([0.6e9, 7e9], low, high, color=ORANGE, alpha=0.3, linewidth=0)
        ax.plot([0.6e9, 7e9], [row["size"]] * 2, color=ORANGE, linewidth=2)
    ax.axhline(1 if finding.ratio else 0, color=GREY, linewidth=1, linestyle="--")
    ax.set(xscale="log", xlim=(1e4, 1e10), yscale="log" if finding.ratio else "linear", xlabel="parameters")
    ax.set_ylabel("ratio" if finding.ratio else "number")
    ax.set_xticks([1e4, 1e6, 1e8, 1e10], ["10k", "1M", "100M", "10B"])
    ax.minorticks_off()


def draw(folder, data=DATA):
    """All pictures, as SVG; orange is the prediction for 0.6 to 7 billion parameters."""
    found = json.loads(data.read_text())
    figures.set_style()
    mpl.rcParams |= {"svg.hashsalt": "rlvr", "svg.fonttype": "path", "axes.labelsize": 11, "xtick.labelsize": 10}
    mpl.rcParams |= {"ytick.labelsize": 10, "figure.facecolor": "none", "axes.facecolor": "none"}
    for name in FINDINGS:
        figure, ax = plt.subplots(figsize=(5.6, 2.4), layout="constrained")
        picture(ax, found, name)
        figure.savefig(folder / f"ladder_{name}.svg", transparent=True, metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    draw(Path(__file__).parent / "_static")
