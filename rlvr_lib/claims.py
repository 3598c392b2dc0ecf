"""Claims that can fail: a claim compares two numbers, and the same comparison must reject its sabotages.

A notebook opens one ``Ledger``, decorates each experiment with its claim and publishes the ledger in its last cell.
The reproduction driver reads the claims back from the executed notebook, so results and book come from one run.
"""

from __future__ import annotations

import functools
import html
import inspect
import json
import math
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import yaml
from numpy.typing import ArrayLike
from pydantic import BaseModel, Field, FiniteFloat, TypeAdapter, model_validator

from rlvr_lib.arguments import real_array, require, require_shape

Kind = Literal["exact", "numerical", "statistical", "illustration"]
Relation = Literal["equal to", "at least", "at most"]
Outcome = Literal["holds", "fails", "not-judged"]
Verdict = Literal["confirmed", "sharpened", "limited", "contradicted", "not-reproduced", "beyond"]
Testbed = Literal["bandit", "transformer", "qwen", "none"]
Lane = Literal["chapter", "evidence"]
Experiment = TypeVar("Experiment", bound=Callable[..., float])

MIME = "application/vnd.rlvr.claims+json"
UNSAMPLED = ("exact", "numerical")
EXACT = 1e-9
"""Largest tolerance of an exact claim; a larger one makes it numerical."""
LARGEST_FALSE_ALARM = 1e-3
"""A statistical claim that fails by chance more often than this is shown and not judged."""
SIGNS = {"equal to": "", "at least": "≥ ", "at most": "≤ "}
WIDTH = 74
"""Columns of a claim's text on a page of the book."""


class Sentence(BaseModel, frozen=True, extra="forbid"):
    """A sentence of a paper as ``data/papers.yml`` has it: which paper, how much of it was read, where it stands."""

    source: str = Field(pattern=r"^P[1-4] \(arXiv \d{4}\.\d{5}\)$")
    version: str = Field(min_length=1)
    where: str
    says: str


class Reading(Sentence, frozen=True):
    """A sentence of a paper, and what it means for it that a claim holds.

    ``verdict`` is ``confirmed``, ``sharpened`` (a better constant or a wider scope), ``limited`` (true in a stated
    regime), ``contradicted`` (false as printed, inside its own assumptions), ``not-reproduced`` (here, at this size,
    by this reading) or ``beyond`` (the paper is silent; ``where`` and ``says`` are then empty).
    """

    verdict: Verdict

    @model_validator(mode="after")
    def _silence_has_no_words(self) -> Reading:
        require((self.verdict == "beyond") != bool(self.says), "verdict", self.verdict, "'beyond' without a sentence")
        return self


@functools.cache
def papers() -> dict[str, Sentence]:
    """What the papers say, by key; under ``P1`` to ``P4`` the papers themselves, without a sentence."""
    data = yaml.safe_load((Path(__file__).parent / "data" / "papers.yml").read_text(encoding="utf-8"))
    found = {
        name: Sentence(source=f"{name} (arXiv {paper['arxiv']})", version=paper["read"], where="", says="")
        for name, paper in data["papers"].items()
    }
    sentences = {key: found[key.split(".")[0]].model_copy(update=said) for key, said in data["sentences"].items()}
    return found | sentences


def folded_verdict(verdicts: Iterable[Verdict]) -> Verdict:
    """One verdict on a sentence from those of all claims that bear on it.

    A contradiction decides, then a limit; what some claims reproduced and others did not is limited. Where nothing was
    found against the sentence the sharpest finding counts, and nothing at all is ``beyond``.
    """
    found = set(verdicts) - {"beyond"}
    if "contradicted" in found or len(found) < 2:
        return "contradicted" if "contradicted" in found else next(iter(found), "beyond")
    return "limited" if found & {"limited", "not-reproduced"} else "sharpened"


class Sabotage(BaseModel, frozen=True, extra="forbid"):
    """A deliberately wrong variant of an experiment, put through its claim's own check."""

    broken: str
    measured: FiniteFloat
    rejected: bool


class Code(BaseModel, frozen=True, extra="forbid"):
    """Where a claim's lines stand: a file of the project, empty for the notebook that makes the claim, and a line."""

    module: str
    function: str
    line: int = Field(ge=1)


class Claim(BaseModel, frozen=True, extra="forbid"):
    """One line of the ledger: what is claimed, the two numbers, our outcome, and what it means for a paper.

    ``outcome`` is ours: the statement holds, it fails, or it is not judged (an illustration, or a sample too small).
    ``paper`` is the sentence it bears on, with the verdict on that sentence should the claim hold.
    ``headline`` is the claim as a person would say it, with its number; ``statement`` says it exactly.
    ``tolerance`` is absolute, in the units of ``measured``. ``false_alarm`` is the probability that the check fails
    although the statement is true, 0 where nothing was sampled.
    ``smallest_effect`` is the deviation it would have caught, by default any beyond the tolerance. ``n`` of ``unit``
    were sampled. ``runtime_s`` is the time since the claim before it. ``lane`` is where a reader finds it.
    """

    id: str = Field(pattern=r"^[1-5]-[a-z0-9-]+$")
    theorem: int = Field(ge=1, le=5)
    testbed: Testbed
    headline: str = Field(min_length=1)
    statement: str
    kind: Kind
    predicted: FiniteFloat
    relation: Relation
    measured: FiniteFloat
    tolerance: FiniteFloat = Field(ge=0)
    false_alarm: float = Field(ge=0, le=1)
    smallest_effect: FiniteFloat
    outcome: Outcome
    paper: Reading
    sabotages: tuple[Sabotage, ...] = Field(min_length=1)
    n: int = Field(ge=0)
    unit: str
    seeds: tuple[int, ...]
    runtime_s: float = Field(ge=0)
    profile: str
    lane: Lane
    code: Code

    @model_validator(mode="after")
    def _evidence_is_stated(self) -> Claim:
        kind, sampled = self.kind, f"{self.n} {self.unit}"
        require(kind != "statistical" or self.false_alarm > 0, "false_alarm", 0, "the rate of a statistical claim")
        require(kind != "numerical" or self.tolerance > EXACT, "tolerance", self.tolerance, f"above {EXACT}: numerical")
        require(kind in UNSAMPLED or bool(self.n and self.unit), "n and unit", sampled, f"those of a {kind} claim")
        exact = self.paper.verdict != "contradicted" or kind in ("exact", "statistical")
        require(exact, "kind", kind, "exact or statistical where a paper is contradicted")
        return self

    @property
    def judged(self) -> bool:
        """Whether there is an outcome, which evidence can change."""
        return self.outcome != "not-judged"

    @property
    def accepted_sabotages(self) -> tuple[str, ...]:
        """What was broken without the check noticing; empty unless the check is defective."""
        return tuple(s.broken for s in self.sabotages if not s.rejected) if self.judged else ()

    def __repr__(self) -> str:
        predicted, measured = _short(self.predicted), _short(self.measured, self.tolerance)
        lines = [
            f"{self.outcome}: {self.statement}",
            f"  predicted {SIGNS[self.relation] or '= '}{predicted}, measured {measured}",
            *(f"  rejected: {s.broken} ({_short(s.measured)})" for s in self.sabotages if s.rejected),
            *(f"  SABOTAGE ACCEPTED: {broken}" for broken in self.accepted_sabotages),
        ]
        return "\n".join(textwrap.fill(line, WIDTH, subsequent_indent="    ") for line in lines)


def _short(value: float, tolerance: float = 0.0) -> str:
    """Three significant digits; rounding noise below a small tolerance is shown as such."""
    return f"0 (to {tolerance:.0e})" if 0 < abs(value) <= tolerance <= 1e-6 else f"{value:.3g}"


def passes(predicted: float, relation: Relation, measured: float, tolerance: float) -> bool:
    """Whether the measured number stands in the stated relation to the predicted one; never for NaN."""
    if relation == "equal to":
        return abs(measured - predicted) <= tolerance
    return measured >= predicted - tolerance if relation == "at least" else measured <= predicted + tolerance


def relative_error(measured: ArrayLike, expected: ArrayLike) -> float:
    """Largest absolute difference over the largest absolute entry expected; 0 where both vanish."""
    measured, expected = real_array("measured", measured), real_array("expected", expected)
    require_shape("measured", measured, expected.shape)
    difference, scale = np.abs(measured - expected).max(initial=0.0), np.abs(expected).max(initial=0.0)
    return float(difference / scale) if scale > 0 else float(difference)


class Ledger:
    """The claims of one notebook run.

    Args:
        theorem: 1 to 5.
        paper: the paper whose statements are tested, ``P1`` to ``P4``.
        profile: label of the run's profile.
        seeds: seeds of the run, unless a claim names its own.
        judged: whether statistical claims get an outcome; false where the sample is too small for one.
        lane: ``chapter`` or ``evidence``, the notebook that makes the claims.
    """

    def __init__(
        self, theorem: int, paper: str, profile: str, seeds: Sequence[int], judged: bool = True, lane: Lane = "chapter"
    ) -> None:
        require(paper in papers() and "." not in paper, "paper", paper, "one of P1, P2, P3, P4")
        self._shared: dict[str, Any] = {"theorem": theorem, "profile": profile, "lane": lane}
        self._paper, self._seeds, self._judged = paper, tuple(seeds), judged
        self._since = time.perf_counter()
        self.claims: list[Claim] = []

    def claim(
        self,
        id: str,
        *,
        headline: str,
        statement: str,
        testbed: Testbed,
        sabotages: Mapping[str, Mapping[str, Any]],
        equals: float | None = None,
        at_least: float | None = None,
        at_most: float | None = None,
        within: float = 0.0,
        kind: Kind = "exact",
        **options: Any,
    ) -> Callable[[Experiment], Experiment]:
        """A decorator: run the experiment, and its sabotages, which are the same experiment with other arguments.

        The function, whose arguments all have defaults, is called without any, and once for every sabotage; it is
        returned as it is. The notebook shows the claim as one line.

        Args:
            id: theorem's number, hyphen, lower-case name; written out in the call, where the driver looks for it.
            headline: a format string over ``measured``, ``predicted``, ``tolerance``, ``n`` and ``unit``, such as
                ``"Twice as fast on {n} bandits."``, so that its numbers are those of the run.
            sabotages: what is broken -> arguments of the function, at least one of them not its default.
            equals: the number predicted for an identity; ``at_least`` and ``at_most`` predict a bound instead.
            within: absolute tolerance, at most ``EXACT`` in an exact claim and more in a numerical one.
            kind: an ``illustration`` has too few runs for a rate; it is shown and never judged.
            **options: ``paper``, a key of ``data/papers.yml`` and the verdict on its sentence if the claim holds; ``n``
                and ``unit``, how many of what (in the plural) were drawn; ``false_alarm``; ``smallest_effect``;
                ``seeds``.
        """
        bounds = {"equal to": equals, "at least": at_least, "at most": at_most}
        given = [(relation, bound) for relation, bound in bounds.items() if bound is not None]
        require(len(given) == 1, "prediction", f"{len(given)} of them", "one of equals, at_least and at_most")
        require(kind in get_args(Kind), "kind", kind, "exact, numerical, statistical or illustration")
        require(kind != "exact" or within <= EXACT, "within", within, f"at most {EXACT}, or the kind numerical")
        self._reading(id, options.get("paper"))
        ((relation, predicted),) = given
        options |= {"relation": relation, "predicted": predicted, "tolerance": within}
        options |= {"statement": statement, "testbed": testbed, "kind": kind}
        _headline(headline, measured=predicted, **options)

        def decorate(experiment: Experiment) -> Experiment:
            code = _code(experiment)
            _require_broken(experiment, sabotages)
            measured, *others = (float(real_array(id, experiment(**a), ndim=0)) for a in ({}, *sabotages.values()))
            said = _headline(headline, measured=measured, **options)
            broken = dict(zip(sabotages, others, strict=True))
            claim = self._add(id, headline=said, measured=measured, sabotages=broken, code=code, **options)
            _display({"text/html": claim_line(claim), "text/plain": repr(claim)})
            return experiment

        return decorate

    def _reading(self, id: str, paper: tuple[str, Verdict] | None) -> Reading:
        """What the claim means for its sentence; ``ValueError`` for an unknown one and for an id used before."""
        require(all(claim.id != id for claim in self.claims), "id", id, "new in its ledger")
        key, verdict = paper or (self._paper, "beyond")
        require(key in papers(), "paper", key, "a key of data/papers.yml")
        return Reading(**papers()[key].model_dump(), verdict=verdict)

    def _add(self, id: str, predicted: float, measured: float, sabotages: Mapping[str, float], **given: Any) -> Claim:
        fields: dict[str, Any] = {"false_alarm": 0.0, "n": 0, "unit": "", "seeds": self._seeds} | given
        kind, relation, tolerance = fields["kind"], fields["relation"], fields["tolerance"]
        if kind != "statistical":
            fields.setdefault("smallest_effect", tolerance)
        rare = kind != "statistical" or fields["false_alarm"] <= LARGEST_FALSE_ALARM
        judged = kind in UNSAMPLED or (self._judged and kind != "illustration" and rare)
        now, passed = time.perf_counter(), functools.partial(passes, predicted, relation, tolerance=tolerance)
        fields |= {"id": id, "predicted": predicted, "measured": measured, "runtime_s": round(now - self._since, 3)}
        fields["paper"] = self._reading(id, fields.get("paper"))
        fields["outcome"] = ("holds" if passed(measured) else "fails") if judged else "not-judged"
        fields["sabotages"] = [{"broken": k, "measured": v, "rejected": not passed(v)} for k, v in sabotages.items()]
        claim = Claim.model_validate(fields | self._shared)
        self._since = now
        self.claims.append(claim)
        return claim

    def publish(self) -> None:
        """Attach the claims to the notebook, unseen, for the reproduction driver."""
        _display({MIME: [claim.model_dump(mode="json") for claim in self.claims]})


class _Shown(float):
    """A number that a headline prints with three digits where it names no format."""

    def __format__(self, format: str) -> str:
        return float.__format__(self, format) if format else _short(self)


def _headline(headline: str, *, n: int = 0, unit: str = "", **options: Any) -> str:
    """The headline with the numbers of its claim in it."""
    numbers = {name: _Shown(options[name]) for name in ("measured", "predicted", "tolerance")}
    try:
        said = headline.format(**numbers, n=f"{n:,}", unit=unit)
    except (KeyError, IndexError, AttributeError, ValueError):
        said = ""
    allowed = "a sentence, and a format string over measured, predicted, tolerance, n and unit"
    require(bool(said.strip()), "headline", headline, allowed)
    return said


def _code(experiment: Callable[..., float]) -> Code:
    """Where a function's lines stand; those of the running notebook are found in its source by the driver."""
    try:
        file, (_, line) = inspect.getsourcefile(experiment) or "", inspect.getsourcelines(experiment)
    except (OSError, TypeError):
        raise ValueError(f"code must be a function whose source can be found, got {experiment!r}") from None
    name, home = experiment.__name__, Path(__file__).parent
    require(name.isidentifier(), "code", name, "a function with a name")
    inside = Path(file).is_relative_to(home)
    return Code(module=Path(file).relative_to(home.parent).as_posix() if inside else "", function=name, line=line)


def _require_broken(experiment: Callable[..., float], sabotages: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ``ValueError`` unless every sabotage calls the experiment with other arguments than its defaults."""
    defaults = {name: given.default for name, given in inspect.signature(experiment).parameters.items()}
    bare = [name for name, default in defaults.items() if default is inspect.Parameter.empty]
    require(not bare, f"arguments of {experiment.__name__}", bare, "named and with defaults")
    require(bool(sabotages), "sabotages", sabotages, "at least one")
    for what, changed in sabotages.items():
        name = f"sabotage {what!r}"
        known = isinstance(changed, Mapping) and changed.keys() <= defaults.keys()
        require(known, name, changed, f"arguments of {experiment.__name__}, among {', '.join(defaults) or 'none'}")
        pairs = [(value, defaults[key]) for key, value in changed.items()]
        new = any(value is not default and not np.array_equal(value, default) for value, default in pairs)
        require(new, name, dict(changed), "arguments that are not all defaults")


def _display(bundle: dict[str, Any]) -> None:
    """Show a bundle where a notebook is running."""
    if "IPython" in sys.modules and (shell := sys.modules["IPython"].get_ipython()):
        shell.display_pub.publish(bundle)


def claim_line(claim: Claim) -> str:
    """A claim as one line of HTML: outcome, headline, measured number, and a link to its row in the book's ledger."""
    up = {"chapter": "../", "evidence": "../../"}[claim.lane]
    outcome = "illustration" if claim.kind == "illustration" else claim.outcome
    of = f" ({claim.n:,} {html.escape(claim.unit)})" if claim.n else ""
    return (
        f'<div class="rlvr-claim"><span class="rlvr-badge rlvr-{outcome}">{outcome}</span> '
        f"{html.escape(claim.headline)} "
        f'<span class="rlvr-measured">measured {_short(claim.measured, claim.tolerance)}{of}, '
        f'<a href="{up}book/ledger.html#claim-{claim.id}">ledger</a></span></div>'
    )


def to_json(claims: Iterable[Claim]) -> str:
    """The claims as a JSON list, a stable order of keys, one newline at the end. NaN and infinities are refused."""
    dumped = [claim.model_dump(mode="json") for claim in claims]
    return json.dumps(dumped, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def from_json(text: str | bytes) -> list[Claim]:
    """The claims in a JSON list, or a ``ValueError``."""
    return TypeAdapter(list[Claim]).validate_json(text)


def agrees(published: Claim, fresh: Claim) -> bool:
    """Whether a fresh run tells the published story: same outcome, and where nothing was sampled the same number.

    Those may differ by their tolerance plus one part in a million, which is what another instruction set can change.
    """
    same = (published.outcome, published.paper.verdict) == (fresh.outcome, fresh.paper.verdict)
    slack = max(published.tolerance, 1e-9)
    close = math.isclose(published.measured, fresh.measured, rel_tol=1e-6, abs_tol=slack)
    return same and (close or published.kind not in UNSAMPLED)
