"""Directives that print the published results: ``ledger`` the claims, ``runs`` the provenance of each run."""

import json
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

import rlvr_lib
from rlvr_lib.files import sha256
from rlvr_lib.provenance import read_stamp
from rlvr_lib.results import finished_results


def table(header, rows, widths, classes=()):
    """A docutils table; a cell is text, a list of inline nodes or a list of paragraphs."""
    group = nodes.tgroup(cols=len(header))
    group += [nodes.colspec(colwidth=width) for width in widths]
    head, body = nodes.thead(), nodes.tbody()
    group += [head, body]
    for part, lines in ((head, [header]), (body, rows)):
        for line in lines:
            row = nodes.row()
            row += [entry(cell) for cell in line]
            part += row
    result = nodes.table(classes=["rlvr-table", *classes])
    result += group
    return result


def entry(cell):
    """A table cell from text, inline nodes or paragraphs."""
    if isinstance(cell, str):
        cell = [nodes.Text(cell)]
    blocks = cell if isinstance(cell[0], nodes.paragraph) else [nodes.paragraph("", "", *cell)]
    return nodes.entry("", *blocks)


def number(value):
    """A number as the ledger prints it."""
    return f"{value:.3g}"


class Published(SphinxDirective):
    """Reads the results folder of the source tree, and makes the page depend on it."""

    def results(self):
        folder = Path(self.env.srcdir) / "results"
        found = finished_results(folder)
        for result in found:
            self.env.note_dependency(str(result.stamp_file))
        return found


class Ledger(Published):
    """Every published claim of a theorem, or of all."""

    option_spec: ClassVar = {"theorem": directives.positive_int}

    def run(self):
        claims = [claim for result in self.results() for claim in result.claims()]
        if "theorem" in self.options:
            claims = [claim for claim in claims if claim.theorem == self.options["theorem"]]
        sign = {"equal to": "", "at least": "≥ ", "at most": "≤ "}
        rows = [
            (
                [nodes.strong("", claim.verdict)],
                self.story(claim),
                [nodes.Text(sign[claim.relation] + number(claim.predicted))],
                [nodes.Text(number(claim.measured))],
                [nodes.Text(self.slack(claim))],
            )
            for claim in claims
        ]
        header = ("verdict", "claim", "predicted", "measured", "tolerance")
        return [table(header, rows, (12, 52, 10, 10, 16), ["rlvr-ledger"])]

    @staticmethod
    def story(claim):
        """What is claimed and where, what the check rejected, and what the paper printed."""
        rejected = "; ".join(s.broken for s in claim.sabotages if s.rejected)
        lines = {
            "": f"{claim.statement} ({claim.testbed}, profile {claim.profile})",
            "rejected: ": rejected,
            f"{claim.paper} printed: ": claim.printed,
        }
        paragraphs = []
        for label, text in lines.items():
            paragraphs.append(nodes.paragraph("", "", nodes.emphasis("", label), nodes.Text(text)))
        return paragraphs

    @staticmethod
    def slack(claim):
        """The tolerance of an exact claim, or the false-alarm rate and the smallest effect of a sampled one."""
        if claim.kind != "statistical":
            return number(claim.tolerance)
        return f"false alarm {claim.false_alarm:.0e}, catches {number(claim.smallest_effect)}"


class Summary(Published):
    """Counts of claims by verdict, and the family-wise false-alarm rate."""

    def run(self):
        claims = [claim for result in self.results() for claim in result.claims()]
        verdicts = sorted({claim.verdict for claim in claims})
        rows = [(verdict, str(sum(claim.verdict == verdict for claim in claims))) for verdict in verdicts]
        rows += [
            ("sabotages rejected", str(sum(s.rejected for claim in claims for s in claim.sabotages))),
            ("sabotages accepted", str(sum(len(claim.accepted_sabotages) for claim in claims))),
            ("family-wise false-alarm rate, at most", f"{sum(claim.false_alarm for claim in claims):.1e}"),
        ]
        return [table(("outcome", "number"), rows, (40, 10))]


class Runs(Published):
    """Run time, date, versions and hardware of every published run."""

    def run(self):
        header = ("notebook", "profile", "run time", "size", "date", "hardware", "versions")
        rows = []
        for result in self.results():
            stamp = read_stamp(result.stamp_file)
            rows.append(
                (
                    stamp.notebook,
                    stamp.profile,
                    f"{stamp.runtime_s:.0f} s",
                    self.size(stamp),
                    stamp.date,
                    ", ".join(f"{name} {value}" for name, value in stamp.hardware.items()),
                    ", ".join(f"{name} {value}" for name, value in stamp.versions.items()),
                )
            )
        return [table(header, rows, (16, 8, 8, 8, 12, 22, 26))]

    def size(self, stamp):
        """Size of the executed notebook, where it is the one the book shows."""
        notebook = Path(self.env.srcdir) / "notebooks" / f"{stamp.notebook}.ipynb"
        shown = notebook.is_file() and sha256(notebook.read_bytes()) == stamp.outputs["notebook"]
        return f"{notebook.stat().st_size / 1000:.0f} kB" if shown else "not shown"


class Sizes(SphinxDirective):
    """Lines of code of the library, by part."""

    def run(self):
        root = Path(rlvr_lib.__file__).parent
        parts = {"theorems, claims and reproduction": root.glob("*.py"), "testbeds": root.glob("testbeds/*.py")}
        rows = [
            (name, str(len(files)), str(sum(len(file.read_text().splitlines()) for file in files)))
            for name, files in ((name, list(found)) for name, found in parts.items())
        ]
        return [table(("part of the library", "modules", "lines"), rows, (40, 10, 10))]


class Benchmarks(SphinxDirective):
    """Ratios of the last benchmark runs, each against the baseline measured beside it."""

    def run(self):
        file = Path(self.env.srcdir) / "results" / "benchmarks.json"
        self.env.note_dependency(str(file))
        rows = [
            (row["name"], f"{row['ratio']:.2g} {row['meaning']}", row["baseline"], str(row["repeats"]), saved["date"])
            for _, saved in sorted(json.loads(file.read_text()).items())
            for row in saved["rows"]
        ]
        return [table(("what", "ratio (median)", "baseline", "repeats", "date"), rows, (32, 22, 28, 8, 12))]


def setup(app):
    app.add_directive("ledger", Ledger)
    app.add_directive("sizes", Sizes)
    app.add_directive("benchmarks", Benchmarks)
    app.add_directive("ledger-summary", Summary)
    app.add_directive("runs", Runs)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
