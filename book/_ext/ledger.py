"""Directives that print the published claims: ``ledger`` row by row, ``findings`` by the papers' sentences; counts."""

from typing import ClassVar

from blocks import Published, badge, ledger_fold, ledger_line, number, paragraph, spaced, table
from docutils import nodes
from docutils.parsers.rst import directives

from rlvr_lib.claims import SIGNS, folded_verdict, papers


def prediction(claim):
    """The predicted number, with its relation to the measured one."""
    return SIGNS[claim.relation] + number(claim.predicted)


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


NAMES = {"ledger": Ledger, "findings": Findings, "ledger-summary": Summary}


def setup(app):
    app.add_js_file("ledger.js", loading_method="defer")
    for name, directive in NAMES.items():
        app.add_directive(name, directive)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
