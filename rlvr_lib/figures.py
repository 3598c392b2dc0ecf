"""The shared look of figures and tables: colour-blind-safe, labelled, with alt text and a caption."""

from __future__ import annotations

import warnings
from base64 import b64encode
from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from PIL import Image

from rlvr_lib.arguments import require

WIDTH = 7.2
"""Width of a figure in inches; at 110 dots per inch it fills the text column of the book."""

SCALE, COLORS = 2, 128
"""Pixels of a picture for one of the page, and its palette, with which twice the pixels take no more room."""

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


def panels(columns: int = 1, rows: int = 1, height: float = 3.0, **options: Any) -> tuple[plt.Figure, Any]:
    """A figure of the book's width with a grid of axes; ``height`` is that of one row, in inches."""
    return plt.subplots(rows, columns, figsize=(WIDTH, height * rows), layout="constrained", **options)


def show(figure: plt.Figure, alt: str, caption: str = "") -> None:
    """Display a figure once, with its alt text and the caption that states its finding, and close it.

    The alt text is also the figure's plain-text output, so that a text-only reader gets it and a regression test that
    never compares pictures compares the numbers in it. A caption may have markup and mathematics; where there is none
    the book shows the alt text in its place.

    Raises:
        ValueError: no alt text, or axes without labels.
    """
    require(len(alt.strip()) >= 20, "alt", alt, "a sentence that says what the figure shows")
    for axes in figure.axes:
        labelled = bool(axes.get_xlabel() and axes.get_ylabel()) or axes.get_label() == "<colorbar>"
        require(labelled, "figure", f"axes titled {axes.get_title()!r} without a label", "labelled on both axes")
    picture, small = BytesIO(), BytesIO()
    figure.savefig(picture, format="png", dpi=SCALE * figure.dpi)
    plt.close(figure)
    Image.open(picture).convert("RGB").quantize(COLORS, dither=Image.Dither.NONE).save(small, "png", optimize=True)

    from IPython.display import display

    said = {"alt": alt, "caption": caption, "width": round(figure.get_figwidth() * figure.dpi)}
    bundle = {"image/png": b64encode(small.getvalue()).decode(), "text/plain": alt}
    display(bundle, metadata={"image/png": said}, raw=True)


def table(rows: Iterable[Sequence[object]], columns: Sequence[str]) -> None:
    """Display a small table of results; numbers have three digits unless they come as text.

    Raises:
        ValueError: a row that has not one cell for each column.
    """
    cells = [[f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    for row in cells:
        require(len(row) == len(columns), "rows", row, f"of {len(columns)} cells each")
    frame = pd.DataFrame(cells, columns=list(columns))
    page = frame.to_html(index=False, classes="rlvr-results", border=0, justify="left")

    from IPython.display import display

    display({"text/html": page, "text/plain": frame.to_string(index=False)}, raw=True)
