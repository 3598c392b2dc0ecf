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
    """Every published claim of a theorem, one row each, with the numbers of every profile that has it."""

    option_spec: ClassVar = {"theorem": directives.positive_int}

    def run(self):
        claims = [claim for result in self.results() for claim in result.claims()]
        if "theorem" in self.options:
            claims = [claim for claim in claims if claim.theorem == self.options["theorem"]]
        if not claims:
            return [nodes.paragraph("", "No claim of this theorem is published yet.")]
        by_id = {claim.id: [] for claim in claims}
        for claim in claims:
            by_id[claim.id].append(claim)
        header = ("verdict", "claim", "predicted", "measured", "tolerance")
        rows = [self.row(versions) for versions in by_id.values()]
        return [table(header, rows, (12, 50, 10, 14, 14), ["rlvr-ledger"])]

    def row(self, versions):
        """A claim's row; where all profiles agree on a cell it is printed once."""
        sign = {"equal to": "", "at least": "≥ ", "at most": "≤ "}
        anchor = nodes.target("", "", ids=[f"claim-{versions[0].id}"])
        verdict = self.by_profile(versions, lambda claim: claim.verdict, nodes.strong)
        verdict[0].insert(0, anchor)
        return (
            verdict,
            self.story(versions[0]),
            self.by_profile(versions, lambda claim: sign[claim.relation] + number(claim.predicted)),
            self.by_profile(versions, lambda claim: number(claim.measured)),
            self.by_profile(versions, self.slack),
        )

    @staticmethod
    def by_profile(versions, show, node=nodes.inline):
        """A paragraph for each profile, or one when they all say the same."""
        shown = [show(claim) for claim in versions]
        if len(set(shown)) == 1:
            return [nodes.paragraph("", "", node("", shown[0]))]
        return [
            nodes.paragraph("", "", node("", text), nodes.Text(f" ({claim.profile})"))
            for text, claim in zip(shown, versions, strict=True)
        ]

    @staticmethod
    def story(claim):
        """What is claimed and where, what the check rejected, and what the paper printed."""
        rejected = "; ".join(s.broken for s in claim.sabotages if s.rejected)
        lines = {
            "": f"{claim.statement} ({claim.testbed}, {claim.kind})",
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


VERDICTS = {
    "contradicted": "Contradicted",
    "holds-with-limits": "Holds within limits",
    "holds-sharper": "Holds, with a sharper constant or wider scope",
    "holds": "Confirmed",
    "not-judged": "Sample too small for a verdict",
    "not-tested-here": "Not tested here",
}


class Findings(Published):
    """What a theorem's paper printed, by what became of it, each line linked to its evidence."""

    required_arguments = 1

    def run(self):
        theorem = int(self.arguments[0])
        by_id = {}  # of several profiles of a claim the one with more seeds, which is read last
        for result in self.results():
            for claim in result.claims():
                if claim.theorem == theorem and claim.printed != "not stated":
                    by_id[claim.id] = (claim, result.name)
        rows = []
        for verdict, title in VERDICTS.items():
            for claim, notebook in by_id.values():
                if claim.verdict == verdict:
                    evidence = [
                        nodes.reference("", "numbers", refuri=f"ledger.html#claim-{claim.id}"),
                        nodes.Text(", "),
                        nodes.reference("", "chapter", refuri=f"../notebooks/{notebook}.html"),
                    ]
                    found = f"{claim.statement} ({claim.testbed})"
                    rows.append(([nodes.strong("", title)], claim.printed, found, evidence))
        if not rows:
            return [nodes.paragraph("", "No claim about this paper is published yet.")]
        header = ("verdict", "what the paper printed", "what we checked", "evidence")
        return [table(header, rows, (14, 30, 42, 14))]


class Summary(Published):
    """Counts of claims by verdict and profile, and the family-wise false-alarm rate of the whole ledger."""

    def run(self):
        claims = [claim for result in self.results() for claim in result.claims()]
        profiles = sorted({claim.profile for claim in claims})
        of = {profile: [claim for claim in claims if claim.profile == profile] for profile in profiles}
        rows = [
            (verdict, *(str(sum(claim.verdict == verdict for claim in of[profile])) for profile in profiles))
            for verdict in VERDICTS
            if any(claim.verdict == verdict for claim in claims)
        ]
        rows += [
            ("sabotages rejected", *(str(sum(s.rejected for c in of[p] for s in c.sabotages)) for p in profiles)),
            ("sabotages accepted", *(str(sum(len(c.accepted_sabotages) for c in of[p])) for p in profiles)),
            ("sum of false-alarm rates", *(f"{sum(c.false_alarm for c in of[p]):.1e}" for p in profiles)),
        ]
        total = sum(claim.false_alarm for claim in claims)
        header = ("outcome", *(f"{profile} profile" for profile in profiles))
        bound = f"No more than {total:.1e} is the probability of any false alarm in the whole ledger."
        return [table(header, rows, (30, *(10 for _ in profiles))), nodes.paragraph("", bound)]


class Runs(Published):
    """Run time, date, versions and hardware of every published run."""

    def run(self):
        rows, kinds = [], {}
        for result in self.results():
            stamp = read_stamp(result.stamp_file)
            made = tuple(
                ", ".join(f"{name} {value}" for name, value in found.items())
                for found in (stamp.hardware, stamp.versions)
            )
            rows.append(
                (
                    stamp.notebook,
                    stamp.profile,
                    f"{stamp.runtime_s:.0f} s",
                    self.size(stamp),
                    stamp.date,
                    kinds.setdefault(made, str(len(kinds) + 1)),
                )
            )
        return [
            table(("notebook", "profile", "run time", "size", "date", "made with"), rows, (26, 10, 12, 12, 16, 12)),
            table(("made with", "hardware", "versions"), [(at, *made) for made, at in kinds.items()], (12, 34, 54)),
        ]

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
    """Ratios of the last benchmark runs, each against the baseline beside it; ``only`` names one benchmark."""

    option_spec: ClassVar = {"only": directives.unchanged_required}

    def run(self):
        file = Path(self.env.srcdir) / "results" / "benchmarks.json"
        self.env.note_dependency(str(file))
        rows = [
            (
                row["name"],
                f"{row['ratio']:.3g} {row['meaning']}",
                row["baseline"],
                self.time(row),
                self.target(row),
                str(row["repeats"]),
                saved["date"],
            )
            for name, saved in sorted(json.loads(file.read_text()).items())
            if name == self.options.get("only", name)
            for row in saved["rows"]
        ]
        header = ("what", "ratio (median)", "baseline", "time here", "target", "repeats", "date")
        return [table(header, rows, (30, 18, 22, 8, 8, 6, 10))]

    @staticmethod
    def time(row):
        """Median time, where it was kept."""
        if "ms" in row:
            return f"{row['ms']:.3g} ms"
        return f"{row['seconds']:.2g} s" if "seconds" in row else ""

    @staticmethod
    def target(row):
        """What the project asks of the ratio or of the time."""
        if row.get("bound"):
            return f"{'at least' if 'faster' in row['meaning'] else 'at most'} {row['bound']:g}"
        limits = {"bound_ms": "ms", "bound_s": "s"}
        return "".join(f"{row[key]:g} {unit}" for key, unit in limits.items() if row.get(key))


class History(SphinxDirective):
    """Ratios of every benchmark run there was, the oldest first."""

    def run(self):
        file = Path(self.env.srcdir) / "results" / "benchmark_history.jsonl"
        self.env.note_dependency(str(file))
        runs = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
        ratios = {}
        for run in runs:
            for row in run["ratios"]:
                ratios.setdefault((row["name"], row["baseline"]), []).append((run, row["ratio"]))
        rows = [
            (name, baseline, ", ".join(f"{ratio:.3g}" for _, ratio in found), self.when(found), self.where(found))
            for (name, baseline), found in ratios.items()
        ]
        if not rows:
            return [nodes.paragraph("", "No run yet.")]
        return [table(("what", "baseline", "ratios", "dates", "hardware"), rows, (30, 20, 20, 15, 15))]

    @staticmethod
    def when(found):
        """First and last date."""
        dates = sorted({run["date"] for run, _ in found})
        return dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"

    @staticmethod
    def where(found):
        """Every kind of machine."""
        return "; ".join(sorted({f"{r['hardware']['processor']}, {r['hardware']['instructions']}" for r, _ in found}))


def setup(app):
    app.add_directive("ledger", Ledger)
    app.add_directive("findings", Findings)
    app.add_directive("sizes", Sizes)
    app.add_directive("benchmarks", Benchmarks)
    app.add_directive("benchmark-history", History)
    app.add_directive("ledger-summary", Summary)
    app.add_directive("runs", Runs)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
