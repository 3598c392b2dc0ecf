"""Directives of the status page: provenance of each run, sizes of the library, ratios of the benchmarks."""

import json
from pathlib import Path
from typing import ClassVar

from blocks import Published, paragraph, table
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

import rlvr_lib
from rlvr_lib.files import sha256
from rlvr_lib.reproduction.provenance import read_stamp


class Runs(Published):
    """Run time, date, versions and hardware of every published run."""

    def run(self):
        rows, kinds = [], {}
        for stamp in (read_stamp(result.stamp_file) for result in self.results()):
            made = (stamp.hardware, stamp.versions)
            made = tuple(", ".join(f"{name} {value}" for name, value in found.items()) for found in made)
            with_these = kinds.setdefault(made, str(len(kinds) + 1))
            time = f"{stamp.runtime_s:.0f} s"
            rows.append((stamp.notebook, stamp.profile, time, self.size(stamp), stamp.date, with_these))
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
        parts = {}
        for file in sorted(root.rglob("*.py")):
            part = file.relative_to(root).parts[0]
            name = "data type, claims, figures, command" if part.endswith(".py") else part
            parts.setdefault(name, []).append(len(file.read_text().splitlines()))
        rows = [(name, str(len(lines)), str(sum(lines))) for name, lines in sorted(parts.items())]
        return [table(("part of the library", "modules", "lines"), rows, (40, 10, 10))]


class Benchmarks(SphinxDirective):
    """Ratios of the last benchmark runs, each against the baseline beside it.

    ``only`` names one benchmark; ``targets`` leaves only what the project asks something of, without the particulars.
    """

    option_spec: ClassVar = {"only": directives.unchanged_required, "targets": directives.flag}

    def run(self):
        file = Path(self.env.srcdir) / "results" / "benchmarks.json"
        self.env.note_dependency(str(file))
        found = [
            (row, saved["date"])
            for name, saved in sorted(json.loads(file.read_text()).items())
            if name == self.options.get("only", name)
            for row in saved["rows"]
        ]
        said = [(row["name"], ratio_in_words(row), self.time(row), self.target(row)) for row, _ in found]
        if "targets" in self.options:
            rows = [line for line in said if line[-1]]
            return [table(("what", "how fast", "time here", "asked"), rows, (34, 40, 12, 14))]
        more = [(str(row["repeats"]), date) for row, date in found]
        header = ("what", "how fast (median)", "time here", "asked", "repeats", "date")
        rows = [(*line, *rest) for line, rest in zip(said, more, strict=True)]
        return [table(header, rows, (30, 34, 10, 10, 6, 10))]

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
            return [paragraph("No run yet.")]
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


def ratio_in_words(row):
    """A ratio as one says it: so many times faster or slower than a baseline, or so many times its cost."""
    ratio, baseline = row["ratio"], row["baseline"]
    if "faster" not in row["meaning"]:
        return f"{ratio:.3g} times the cost of {baseline}"
    return f"{max(ratio, 1 / ratio):.3g} times {'faster' if ratio >= 1 else 'slower'} than {baseline}"


NAMES = {"runs": Runs, "sizes": Sizes, "benchmarks": Benchmarks, "benchmark-history": History}


def setup(app):
    for name, directive in NAMES.items():
        app.add_directive(name, directive)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
