"""Draw ``_static/one_identity.png``, the figure of the landing page and the README."""

from pathlib import Path

from rlvr_lib import figures

THEOREMS = (
    ("1\ngap alignment", "its size along a step"),
    ("2\nstep threshold", "its change along a step"),
    ("3\nrelay effect", "its product along a chain"),
    ("4\nadaptive curvature", "its scale in GRPO"),
    ("5\noptimal baseline", "the noise of its estimate"),
)


def draw(path: Path) -> None:
    """One identity above, five theorems below, and what leads from the one to the others."""
    figures.set_style()
    figure, ax = figures.panels(height=3.0)
    ax.set_axis_off()
    ax.set(xlim=(0, 5), ylim=(0, 3))
    ax.text(
        2.5,
        2.55,
        r"$\nabla \log\frac{J}{1-J} \;=\; \mathbb{E}_+[s] - \mathbb{E}_-[s]$",
        ha="center",
        va="center",
        fontsize=17,
        bbox={"boxstyle": "round,pad=0.5", "facecolor": "#dbe9f6", "edgecolor": "#1b4f72"},
    )
    ax.text(2.5, 1.92, "gradient of the log-odds of success  =  gradient gap", ha="center", va="center", fontsize=9.5)
    for column, (name, link) in enumerate(THEOREMS):
        x = column + 0.5
        ax.annotate("", (x, 0.98), (2.5, 1.78), arrowprops={"arrowstyle": "-|>", "color": "#1b4f72", "linewidth": 1.1})
        ax.text(
            x,
            0.6,
            name,
            ha="center",
            va="center",
            fontsize=8,
            fontweight="bold",
            bbox={"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": "#1b4f72"},
        )
        ax.text(x, 0.12, link, ha="center", va="center", fontsize=8)
    figure.savefig(path, dpi=160, metadata={"Software": None})


if __name__ == "__main__":
    draw(Path(__file__).parent / "_static" / "one_identity.png")
