"""What the page "Does it carry over?" prints from the library's ``data/ladder.json``.

The directives ``ladder-verdicts``, ``ladder-rungs`` and ``ladder-figures`` take no arguments. The role ``ladder``
prints one number: {ladder}`energy_ratio:low:.2g` a field of a prediction, {ladder}`count:fades` how many findings have
a verdict, {ladder}`rung:75k:success:.2f` the median of a quantity over the checkpoints of a rung, {ladder}`checkpoints`
and {ladder}`findings` how many there are, {ladder}`times:1.2M:grpo_step:.2f` processor seconds, and
{ladder}`step_ratio_1.2M` the GRPO step at 1.2M over that at 75k.
"""

import json
from pathlib import Path

from blocks import table
from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective, SphinxRole

import rlvr_lib

DATA = Path(rlvr_lib.__file__).parent / "data" / "ladder.json"
VERDICTS = ("carries over", "fades", "reverses", "cannot tell")


def ladder():
    """The published ladder."""
    return json.loads(DATA.read_text())


def shown(value):
    """A number of the ladder, or the word for no number."""
    if value is None:
        return "none"
    return f"{value:.2g}" if 0.01 <= abs(value) < 1000 or value == 0 else f"{value:.0e}"


def interval(low, high):
    """Both ends of an interval."""
    return f"{shown(low)} to {shown(high)}"


def text_of(use, found):
    """What a use of the role prints."""
    name, *rest = use.split(":")
    if name == "count" and len(rest) == 1 and rest[0] in VERDICTS:
        return str(sum(row["verdict"] == rest[0] for row in found["predictions"]))
    if use == "findings":
        return str(len(found["predictions"]))
    if use == "checkpoints":
        return str(sum(len(rung["checkpoints"]) for rung in found["rungs"]))
    if name == "rung" and len(rest) == 3:
        each = {rung["rung"]: rung["quantities"] | {"parameters": rung["parameters"]} for rung in found["rungs"]}
        if (value := each.get(rest[0], {}).get(rest[1])) is not None:
            return format(value, rest[2])
    if name == "times" and len(rest) == 3 and rest[0] in found["times"] and rest[1] in found["times"][rest[0]]:
        return format(found["times"][rest[0]][rest[1]], rest[2])
    if use == "step_ratio_1.2M":
        return f"{found['times']['1.2M']['grpo_step'] / found['times']['75k']['grpo_step']:.1f}"
    rows = [row for row in found["predictions"] if row["quantity"] == name]
    if rows and 1 <= len(rest) <= 2:
        value = rows[0].get(rest[0])
        value = value[0] if isinstance(value, list) else value
        if isinstance(value, str):
            return value
        if value is not None:
            return format(value, rest[1] if len(rest) == 2 else ".2g")
    raise ValueError(f"the ladder has no {use!r}")


class LadderRole(SphinxRole):
    def run(self):
        self.env.note_dependency(str(DATA))
        try:
            return [nodes.Text(text_of(self.text, ladder()))], []
        except ValueError as error:
            raise ExtensionError(f"{self.env.docname}: {error}") from None


class Ladder(SphinxDirective):
    def run(self):
        self.env.note_dependency(str(DATA))
        return self.printed(ladder())


class Verdicts(Ladder):
    """Every finding with its verdict, the fit at both ends, and the prediction."""

    def printed(self, found):
        header = ("finding", "chapter", "verdict", "smallest rung", "largest rung", "predicted, 0.6B to 7B")
        rows = [
            (
                row["finding"],
                str(row["chapter"]),
                row["verdict"],
                shown(row["smallest"][0]) if "smallest" in row else "none",
                shown(row["largest"][0]) if "largest" in row else "none",
                interval(row["low"], row["high"]),
            )
            for row in found["predictions"]
        ]
        return [table(header, rows, (34, 8, 14, 12, 12, 20), ["rlvr-results"])]


class Rungs(Ladder):
    """Every rung with its size, its success where it was measured, and how long it takes."""

    def printed(self, found):
        header = ("rung", "parameters", "checkpoints", "success", "exact, 1,555 responses", "GRPO step, 8 of 16")
        measured = {
            rung["rung"]: [each["quantities"]["success"] for each in rung["checkpoints"]] for rung in found["rungs"]
        }
        rows = []
        for name, took in sorted(found["times"].items(), key=lambda item: item[1]["parameters"]):
            success = measured.get(name, [])
            shares = interval(min(success), max(success)) if success else "not measured"
            seconds = [f"{shown(took[key])} s" for key in ("exact_1555", "grpo_step")]
            rows.append((name, f"{took['parameters']:,}", str(len(success)), shares, *seconds))
        return [table(header, rows, (12, 16, 14, 18, 20, 20), ["rlvr-results"])]


class Figures(Ladder):
    """One picture a finding, with a caption that says the verdict and its numbers."""

    def printed(self, found):
        made = []
        for row in found["predictions"]:
            says = f"{row['finding']}: {row['verdict']}"
            fit = "too few checkpoints have this number for a fit"
            if "smallest" in row:
                fit = (
                    f"the fit goes from {shown(row['smallest'][0])} at the smallest rung to {shown(row['largest'][0])} "
                    f"at the largest (interval {interval(*row['largest'][1:])}), and predicts "
                    f"{interval(row['low'], row['high'])} for 0.6 to 7 billion parameters"
                )
            image = nodes.image(
                uri=f"_static/ladder_{row['quantity']}.svg",
                alt=f"Against the number of parameters, on {row['checkpoints']} checkpoints: {says}; {fit}.",
                classes=["rlvr-drawn"],
            )
            caption = nodes.caption("", "", nodes.strong("", says), nodes.Text(f"; {fit}."))
            made.append(nodes.figure("", image, caption))
        return made


def setup(app):
    app.add_role("ladder", LadderRole())
    for name, directive in (("verdicts", Verdicts), ("rungs", Rungs), ("figures", Figures)):
        app.add_directive(f"ladder-{name}", directive)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
