"""The shared look of figures: colour-blind-safe, labelled, on a light ground that reads in dark mode, with alt text."""

from __future__ import annotations

import warnings
from base64 import b64encode
from io import BytesIO

import matplotlib as mpl
import matplotlib.pyplot as plt
import seaborn as sns

from rlvr_lib.arguments import require

WIDTH = 7.2
"""Width of a figure in inches; at 110 dots per inch it fills the text column of the book."""

PREDICTION = {"color": "black", "linestyle": "--", "linewidth": 1.4}
"""How a prediction is drawn, over the measurement, in every chapter."""


def set_style() -> None:
    """Apply the book's look to matplotlib and to outputs; called once at the top of a notebook."""
    # Libraries import tqdm.auto, which would print that it finds no widgets; the book shows none.
    warnings.filterwarnings("ignore", message="IProgress not found")
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind", font_scale=0.85)
    mpl.rcParams.update(
        {
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "figure.dpi": 110,
            "axes.titlesize": "medium",
            "legend.frameon": True,
            "legend.framealpha": 0.9,
            "lines.linewidth": 1.6,
        }
    )


def panels(columns: int = 1, rows: int = 1, height: float = 3.0, **options) -> tuple[plt.Figure, object]:
    """A figure of the book's width with a grid of axes; ``height`` is that of one row, in inches."""
    return plt.subplots(rows, columns, figsize=(WIDTH, height * rows), layout="constrained", **options)


def show(figure: plt.Figure, alt: str) -> None:
    """Display a figure once, with its alt text, and close it.

    The alt text is also the figure's plain-text output, so that a text-only reader gets it and a regression test that
    never compares pictures compares the numbers in it.

    Raises:
        ValueError: no alt text, or axes without labels.
    """
    require(len(alt.strip()) >= 20, "alt", alt, "a sentence that says what the figure shows")
    for axes in figure.axes:
        labelled = bool(axes.get_xlabel() and axes.get_ylabel()) or axes.get_label() == "<colorbar>"
        require(labelled, "figure", f"axes titled {axes.get_title()!r} without a label", "labelled on both axes")
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    plt.close(figure)

    from IPython.display import display

    bundle = {"image/png": b64encode(buffer.getvalue()).decode(), "text/plain": alt}
    display(bundle, metadata={"image/png": {"alt": alt}}, raw=True)
