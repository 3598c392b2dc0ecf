"""Directives that print the published results: ``ledger`` the claims, ``runs`` the provenance of each run."""

import json
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

import rlvr_lib
from rlvr_lib.claims import SIGNS, folded_verdict, papers
from rlvr_lib.files import sha256
from rlvr_lib.reproduction.provenance import read_stamp
from rlvr_lib.reproduction.results import finished_results


def table(header, rows, widths, classes=()):
    """A docutils table; a cell is text, a list of inline nodes or a list of paragraphs."""
    group = nodes.tgroup("", *(nodes.colspec(colwidth=width) for width in widths), cols=len(header))
    for part, lines in ((nodes.thead(), [header]), (nodes.tbody(), rows)):
        group += part
        part += [nodes.row("", *map(entry, line)) for line in lines]
    return nodes.table("", group, classes=["rlvr-table", *classes])


def entry(cell):
    """A table cell from text, inline nodes or paragraphs."""
    cell = [cell] if isinstance(cell, str) else cell
    return nodes.entry("", *(cell if isinstance(cell[0], nodes.paragraph) else [paragraph(*cell)]))


def paragraph(*parts):
    """A paragraph of text and inline nodes."""
    return nodes.paragraph("", "", *(nodes.Text(part) if isinstance(part, str) else part for part in parts))


def number(value):
    """A number as the ledger prints it."""
    return f"{value:.3g}"


def prediction(claim):
    """The predicted number, with its relation to the measured one."""
    return SIGNS[claim.relation] + number(claim.predicted)


class Published(SphinxDirective):
    """Reads the results folder of the source tree, and makes the page depend on it."""

    def results(self):
        folder = Path(self.env.srcdir) / "results"
        found = finished_results(folder)
        for result in found:
            self.env.note_dependency(str(result.stamp_file))
        return found


class ledger_fold(nodes.General, nodes.Element):
    """A part of a page that opens natively; its first child is its summary, ``data`` its data attributes."""


class ledger_line(nodes.General, nodes.TextElement):
    """The line of a fold that is always seen; it holds no link, because a press on it opens the fold."""


def visit_fold(self, node):
    data = {f"data-{name}": value for name, value in node.get("data", {}).items()}
    self.body.append(self.starttag(node, "details", **data))


def depart_fold(self, node):
    self.body.append("</details>\n")


def visit_line(self, node):
    self.body.append(self.starttag(node, "summary", ""))


def depart_line(self, node):
    self.body.append("</summary>\n")


def badge(text, kind):
    """A word in a rounded frame, in the colour of its kind."""
    return nodes.inline("", text, classes=["rlvr-badge", f"rlvr-{kind}"])


def spaced(parts):
    """Inline nodes with a blank between two."""
    return [piece for part in parts for piece in (part, nodes.Text(" "))][:-1]


def tally(claims):
    """How many claims there are, and how many of each outcome."""
    outcomes = [claim.outcome for claim in claims]
    counts = {"hold": outcomes.count("holds"), "fail": outcomes.count("fails")}
    parts = [f"{count} {name if count > 1 else name + 's'}" for name, count in counts.items() if count]
    if unjudged := outcomes.count("not-judged"):
        parts.append(f"{unjudged} {'are' if unjudged > 1 else 'is'} not judged")
    said = f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]
    return f"{len(claims)} claim{'s' * (len(claims) > 1)}: {said}"


def standing(claim):
    """What a claim's outcome means for the paper's sentence; nothing where there is none or no judgement."""
    if not claim.paper.says or not claim.judged:
        return "beyond" if not claim.paper.says else ""
    return claim.paper.verdict if claim.outcome == "holds" else "not-reproduced"


class Ledger(Published):
    """Every published claim of a theorem, one folded row each, with the numbers of every profile that has it.

    ``count`` prints how many there are instead. ``ledger.js`` filters the rows by their data attributes.
    """

    option_spec: ClassVar = {"theorem": directives.positive_int, "count": directives.flag}

    def run(self):
        by_id = {}
        for result in self.results():
            for claim in result.claims():
                if claim.theorem == self.options.get("theorem", claim.theorem):
                    by_id.setdefault(claim.id, []).append((claim, result.name))
        if not by_id:
            return [paragraph("No claim of this theorem is published yet.")]
        said = tally([found[-1][0] for found in by_id.values()])
        if "count" in self.options:
            text = f"{said}, each by the full profile where that was run and by the book profile elsewhere."
            return [paragraph(text)]
        summary = ledger_line("", "", nodes.inline("", said))
        return [ledger_fold("", summary, *map(self.row, by_id.values()), classes=["rlvr-fold", "rlvr-group"])]

    def row(self, found):
        """A claim's row; where all profiles agree on a cell it is printed once."""
        versions = [claim for claim, _ in found]
        claim = versions[-1]  # the full profile where there is one
        outcomes = {version.outcome: version for version in versions}
        badges = [
            badge(self.outcome(c) + ("" if len(outcomes) == 1 else f" ({c.profile})"), c.outcome)
            for c in outcomes.values()
        ]
        headline = nodes.inline("", claim.headline, classes=["rlvr-headline"])
        testbed = nodes.inline("", "" if claim.testbed == "none" else claim.testbed, classes=["rlvr-testbed"])
        summary = ledger_line("", "", *spaced([nodes.inline("", "", *spaced(badges)), headline, testbed]))
        data = {
            "chapter": str(claim.theorem),
            "testbed": claim.testbed,
            "outcome": " ".join(dict.fromkeys(c.outcome for c in versions)),
            "verdict": " ".join(dict.fromkeys(filter(None, map(standing, versions)))),
            "kind": claim.kind,
            "lane": claim.lane,
        }
        facts = [
            nodes.field("", nodes.field_name("", name), nodes.field_body("", *body))
            for name, body in self.facts(versions, found[0][1])
            if body
        ]
        ids = [f"claim-{claim.id}"]
        return ledger_fold(
            "", summary, nodes.field_list("", *facts), ids=ids, data=data, classes=["rlvr-fold", "rlvr-row"]
        )

    @staticmethod
    def outcome(claim):
        """Our outcome in words."""
        return claim.outcome.replace("-", " ")

    @staticmethod
    def by_profile(versions, show):
        """A paragraph for each profile, or one when they all say the same."""
        shown = [show(claim) for claim in versions]
        if len(set(shown)) == 1:
            return [paragraph(shown[0])]
        return [paragraph(f"{text} ({claim.profile})") for text, claim in zip(shown, versions, strict=True)]

    def facts(self, versions, notebook):
        """What is claimed, its numbers, what the check rejected, what it means for a paper; code and run."""
        claim = versions[0]
        sizes = dict.fromkeys(f"{c.n} {c.unit}" for c in versions if c.n)
        of = ", ".join(
            filter(None, ["" if claim.testbed == "none" else claim.testbed, claim.kind, " and ".join(sizes)])
        )
        headlines = self.by_profile(versions, lambda c: c.headline)
        yield "in short", headlines if len(headlines) > 1 else []
        yield "claim", [*self.by_profile(versions, lambda c: c.statement), paragraph(of)]
        yield "predicted", self.by_profile(versions, prediction)
        yield "measured", self.by_profile(versions, lambda c: number(c.measured))
        yield "tolerance", self.by_profile(versions, self.slack)
        rejected = "; ".join(s.broken for s in claim.sabotages if s.rejected)
        yield "sabotages rejected", [paragraph(rejected)] if rejected else []
        where = nodes.emphasis("", f"{claim.paper.source}, {claim.paper.where}: ")
        yield "the paper says", [paragraph(where, claim.paper.says)] if claim.paper.says else []
        judged = [c for c in versions if c.judged]
        yield "verdict on it", self.by_profile(judged, self.verdict) if claim.paper.says and judged else []
        code = nodes.reference("", claim.id, refuri=self.address(claim.code))
        run = nodes.reference("", f"its run in the {claim.lane}", refuri=f"../notebooks/{notebook}.html")
        here = nodes.reference("", "this row", internal=True, refuri=f"#claim-{claim.id}")
        yield "links", [paragraph("code of ", code, ", ", run, ", ", here)]

    @staticmethod
    def verdict(claim):
        """The verdict on the paper's sentence; a check of ours that failed has not reproduced it."""
        return VERDICTS[standing(claim)] + ("" if claim.outcome == "holds" else ": our check failed")

    def address(self, code):
        """Where the public repository shows a claim's lines."""
        options = self.config.html_theme_options
        return f"{options['repository_url']}/blob/{options['repository_branch']}/{code.module}#L{code.line}"

    @staticmethod
    def slack(claim):
        """The tolerance of an exact claim, or the false-alarm rate and the smallest effect of a sampled one."""
        if not claim.false_alarm:
            return number(claim.tolerance)
        return f"false alarm {claim.false_alarm:.0e}, catches {number(claim.smallest_effect)}"


VERDICTS = {
    "contradicted": "Contradicted",
    "not-reproduced": "Not reproduced",
    "limited": "Limited",
    "sharpened": "Sharpened",
    "confirmed": "Confirmed",
    "beyond": "The papers are silent",
}
OUTCOMES = ("holds", "fails", "not-judged")


class Findings(Published):
    """The sentences of one paper, each once: its verdict, folded over all judged claims that bear on it, and these."""

    required_arguments = 1

    def run(self):
        about = {}  # of several profiles of a claim the one with more seeds, which is read last
        for result in self.results():
            for claim in result.claims():
                if claim.judged and claim.paper.says:
                    about.setdefault(claim.paper.says, {})[claim.id] = (claim, result.name)
        sentences = [said for key, said in papers().items() if key.startswith(f"{self.arguments[0]}.")]
        rows = [self.row(said, list(about[said.says].values())) for said in sentences if said.says in about]
        silent = [said.says for said in sentences if said.says not in about]
        header = ("verdict", "what the paper says, and where", "what was found")
        found = [table(header, rows, (14, 34, 52), ["rlvr-findings"])] if rows else []
        if silent:
            items = [nodes.list_item("", paragraph(says)) for says in silent]
            found += [paragraph("Sentences on which no claim of this book is a judgement:")]
            found += [nodes.bullet_list("", *items)]
        return found

    @classmethod
    def row(cls, said, claims):
        """One printed sentence, with the claim that decides its verdict in the open, and the others folded."""
        verdict = folded_verdict(map(cls.bearing, claims))

        def rank(pair):
            """First who says what the row says, then who failed and so limits it, then what stands in a chapter."""
            return cls.bearing(pair) != verdict, cls.bearing(pair) != "not-reproduced", pair[0].lane != "chapter"

        first, *others = sorted(claims, key=rank)
        sentence = [paragraph(said.says), paragraph(nodes.emphasis("", said.where))]
        found = [cls.evidence(*first)]
        if others:
            line = ledger_line("", f"and {len(others)} more claim{'s' * (len(others) > 1)}")
            found.append(ledger_fold("", line, *(cls.evidence(*pair) for pair in others), classes=["rlvr-fold"]))
        return [nodes.strong("", VERDICTS[verdict])], sentence, found

    @staticmethod
    def bearing(pair):
        """What a claim means for the sentence: its verdict if it holds."""
        return pair[0].paper.verdict if pair[0].outcome == "holds" else "not-reproduced"

    @staticmethod
    def evidence(claim, notebook):
        """What one claim found, with the way to its numbers and to its run."""
        of = f"{claim.testbed}, {claim.n} {claim.unit}" if claim.n else claim.testbed
        slack = f" within {number(claim.tolerance)}" if claim.tolerance > 1e-6 else ""
        mark = VERDICTS[claim.paper.verdict] if claim.outcome == "holds" else "Our check failed"
        return paragraph(
            nodes.strong("", claim.headline),
            f" ({mark.lower()}, {of}; predicted {prediction(claim)}{slack}, measured {number(claim.measured)}; ",
            nodes.reference("", "numbers", refuri=f"ledger.html#claim-{claim.id}"),
            ", ",
            nodes.reference("", claim.lane, refuri=f"../notebooks/{notebook}.html"),
            ")",
        )


class Summary(Published):
    """Counts of claims by outcome, by kind and by verdict, and what the stated false-alarm rates add up to."""

    def run(self):
        claims = [claim for result in self.results() for claim in result.claims()]
        profiles = sorted({claim.profile for claim in claims})
        of = {profile: [claim for claim in claims if claim.profile == profile] for profile in profiles}

        def row(name, count):
            return name, *(str(count(of[profile])) for profile in profiles)

        def number_of(test):
            return lambda chosen: sum(map(test, chosen))

        rows = [row(f"our outcome: {name}", number_of(lambda c, name=name: c.outcome == name)) for name in OUTCOMES]
        rows += [
            row(f"for the paper: {title.lower()}", number_of(lambda c, v=verdict: c.judged and c.paper.verdict == v))
            for verdict, title in VERDICTS.items()
        ]
        rows += [
            row("sabotages rejected", lambda chosen: sum(s.rejected for c in chosen for s in c.sabotages)),
            row("sabotages accepted", lambda chosen: sum(len(c.accepted_sabotages) for c in chosen)),
        ]
        rate = sum(claim.false_alarm for claim in claims if claim.judged)
        bound = (
            f"Over all profiles the false-alarm rates of the judged claims add up to {rate:.1e}, "
            "so a false alarm among them is no likelier than that."
        )
        header = ("claims", *(f"{profile} profile" for profile in profiles))
        return [table(header, rows, (30, *(10 for _ in profiles))), paragraph(bound)]


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


NAMES = {
    "ledger": Ledger, "findings": Findings, "ledger-summary": Summary, "runs": Runs, "sizes": Sizes,
    "benchmarks": Benchmarks, "benchmark-history": History,
}  # fmt: skip


def setup(app):
    app.add_node(ledger_fold, html=(visit_fold, depart_fold))
    app.add_node(ledger_line, html=(visit_line, depart_line))
    app.add_js_file("ledger.js", loading_method="defer")
    for name, directive in NAMES.items():
        app.add_directive(name, directive)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
