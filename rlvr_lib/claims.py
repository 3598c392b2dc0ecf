"""Claims that can fail: a claim compares two numbers, and the same comparison must reject its sabotages.

A notebook opens one ``Ledger``, decorates each experiment with its claim and publishes the ledger in its last cell.
The reproduction driver reads the claims back from the executed notebook, so results and book come from one run.
"""

from __future__ import annotations

import functools
import html
import importlib.resources
import inspect
import json
import math
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import numpy as np
import yaml
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from rlvr_lib.arguments import real_array, require

Kind = Literal["exact", "numerical", "statistical", "training", "illustration"]
Relation = Literal["equal to", "at least", "at most"]
Outcome = Literal["holds", "fails", "not-judged"]
Verdict = Literal["confirmed", "sharpened", "limited", "contradicted", "not-reproduced", "beyond"]
Testbed = Literal["bandit", "transformer", "qwen", "none"]
Lane = Literal["chapter", "evidence"]
Experiment = TypeVar("Experiment", bound=Callable[..., float])

Finite = Annotated[float, Field(allow_inf_nan=False)]

MIME = "application/vnd.rlvr.claims+json"
UNSAMPLED = ("exact", "numerical")
EXACT = 1e-9
"""Largest tolerance of an exact claim; a larger one makes it numerical."""
LARGEST_FALSE_ALARM = 1e-3
"""A statistical claim that fails by chance more often than this is shown and not judged."""
WIDTH = 74
"""Columns of a claim's text on a page of the book."""


class Sentence(BaseModel):
    """A sentence of a paper as ``data/papers.yml`` has it: which paper, how much of it was read, where it stands."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(pattern=r"^P[1-4] \(arXiv \d{4}\.\d{5}\)$")
    version: str = Field(min_length=1)
    where: str
    says: str


class Reading(Sentence):
    """A sentence of a paper, and what it means for it that a claim holds.

    ``verdict`` is ``confirmed``, ``sharpened`` (a better constant or a wider scope), ``limited`` (true in a stated
    regime), ``contradicted`` (false as printed, inside its own assumptions), ``not-reproduced`` (here, at this size,
    by this reading) or ``beyond`` (the paper is silent; ``where`` and ``says`` are then empty).
    """

    verdict: Verdict

    @model_validator(mode="after")
    def _silence_has_no_words(self) -> Reading:
        if (self.verdict == "beyond") == bool(self.says):
            raise ValueError(f"a reading names a sentence unless its verdict is 'beyond', got {self.verdict}")
        return self


@functools.cache
def papers() -> dict[str, Sentence]:
    """What the papers say, by key; under ``P1`` to ``P4`` the papers themselves, without a sentence."""
    text = (importlib.resources.files("rlvr_lib") / "data" / "papers.yml").read_text(encoding="utf-8")
    data = yaml.safe_load(text)
    found = {
        name: Sentence(source=f"{name} (arXiv {paper['arxiv']})", version=paper["read"], where="", says="")
        for name, paper in data["papers"].items()
    }
    sentences = {key: found[key.split(".")[0]].model_copy(update=said) for key, said in data["sentences"].items()}
    return found | sentences


def folded_verdict(verdicts: Iterable[Verdict]) -> Verdict:
    """One verdict on a sentence from those of all claims that bear on it.

    A contradiction decides; so does a limit, and a sentence that was reproduced by some claims and not by others is
    limited; where nothing was found against it, the sharpest finding counts. Nothing at all is ``beyond``.
    """
    found = set(verdicts) - {"beyond"}
    if "contradicted" in found or len(found) < 2:
        return "contradicted" if "contradicted" in found else next(iter(found), "beyond")
    return "limited" if found & {"limited", "not-reproduced"} else "sharpened"


class Sabotage(BaseModel):
    """A deliberately wrong variant of an experiment, put through its claim's own check."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    broken: str
    measured: Finite
    rejected: bool


class Code(BaseModel):
    """Where a claim's lines stand: a file of the project, empty for the notebook that makes the claim, and a line."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    module: str
    function: str
    line: int = Field(ge=1)


class Claim(BaseModel):
    """One line of the ledger: what is claimed, the two numbers, our outcome, and what it means for a paper.

    ``outcome`` is ours: the statement holds, it fails, or it is not judged (an illustration, or a sample too small).
    ``paper`` is the sentence it bears on, with the verdict on that sentence should the claim hold.

    ``headline`` is the claim as a person would say it, with its number; ``statement`` says it exactly.
    ``tolerance`` is absolute, in the units of ``measured``. ``false_alarm`` is the probability that the check fails
    although the statement is true; 0 for an exact or numerical claim, and for a training claim without an interval,
    which is about its own runs only. ``smallest_effect`` is the deviation it would have caught: for an exact claim any
    beyond the tolerance; for a training claim the same, of the number over its runs. ``n`` of ``unit`` were sampled.
    ``runtime_s`` is the time since the claim before it in the same notebook. ``lane`` is where a reader finds it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[1-5]-[a-z0-9-]+$")
    theorem: int = Field(ge=1, le=5)
    testbed: Testbed
    headline: str = Field(min_length=1)
    statement: str
    kind: Kind
    predicted: Finite
    relation: Relation
    measured: Finite
    tolerance: Finite = Field(ge=0)
    false_alarm: float = Field(ge=0, le=1)
    smallest_effect: Finite
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
        if self.kind == "statistical" and self.false_alarm == 0:
            raise ValueError(f"{self.id}: a statistical claim states its false-alarm rate")
        if self.kind == "numerical" and self.tolerance <= EXACT:
            raise ValueError(f"{self.id}: a numerical claim has a tolerance above {EXACT}, got {self.tolerance}")
        if self.kind not in UNSAMPLED and not (self.n and self.unit):
            raise ValueError(f"{self.id}: a {self.kind} claim states n and its unit, what was sampled")
        if self.paper.verdict == "contradicted" and self.kind not in ("exact", "statistical"):
            raise ValueError(f"{self.id}: contradicting a paper takes exact or calibrated evidence, got {self.kind}")
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
        verb = {"equal to": "=", "at least": ">=", "at most": "<="}[self.relation]
        lines = [
            f"{self.outcome}: {self.statement}",
            f"predicted {verb} {_short(self.predicted)}, measured {_short(self.measured, self.tolerance)}",
            *(f"rejected: {s.broken} ({_short(s.measured)})" for s in self.sabotages if s.rejected),
            *(f"SABOTAGE ACCEPTED: {broken}" for broken in self.accepted_sabotages),
        ]
        return "\n".join(
            textwrap.fill(line, WIDTH, initial_indent="  " * (k > 0), subsequent_indent="    ")
            for k, line in enumerate(lines)
        )


def _short(value: float, tolerance: float = 0.0) -> str:
    """Three significant digits; rounding noise below a small tolerance is shown as such."""
    if 0 < abs(value) <= tolerance <= 1e-6:
        return f"0 (to {tolerance:.0e})"
    return f"{value:.3g}"


def passes(predicted: float, relation: Relation, measured: float, tolerance: float) -> bool:
    """Whether the measured number stands in the stated relation to the predicted one; never for NaN."""
    if relation == "equal to":
        return abs(measured - predicted) <= tolerance
    return measured >= predicted - tolerance if relation == "at least" else measured <= predicted + tolerance


def relative_error(measured: ArrayLike, expected: ArrayLike) -> float:
    """Largest absolute difference over the largest absolute entry expected; 0 where both vanish."""
    measured, expected = real_array("measured", measured), real_array("expected", expected)
    require(measured.shape == expected.shape, "measured", f"shape {measured.shape}", f"of shape {expected.shape}")
    difference, scale = np.abs(measured - expected).max(initial=0.0), np.abs(expected).max(initial=0.0)
    return float(difference / scale) if scale > 0 else float(difference)


class Ledger:
    """The claims of one notebook run.

    Args:
        theorem: 1 to 5.
        paper: the paper whose statements are tested, ``P1`` to ``P4``.
        profile: label of the run's profile.
        seeds: seeds of the run, unless a claim names its own.
        judged: whether statistical and training claims get an outcome; false where the sample is too small for one.
        lane: ``chapter`` or ``evidence``, the notebook that makes the claims.
    """

    def __init__(
        self, theorem: int, paper: str, profile: str, seeds: Sequence[int], judged: bool = True, lane: Lane = "chapter"
    ) -> None:
        require(paper in papers() and "." not in paper, "paper", paper, "one of P1, P2, P3, P4")
        require(lane in get_args(Lane), "lane", lane, "chapter or evidence")
        self._shared: dict[str, Any] = {"theorem": theorem, "profile": profile, "lane": lane}
        self._paper = paper
        self._seeds = tuple(seeds)
        self._judged = judged
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

        The function is called without arguments for the measured number and once for every sabotage; each number goes
        through the same comparison. It is returned as it is, and the notebook shows the claim as one line.

        Args:
            id: the theorem's number, a hyphen and a name of lower-case letters, digits and hyphens; written out in the
                call, where the driver looks for it.
            headline: a format string over ``measured``, ``predicted``, ``tolerance``, ``n`` and ``unit``, such as
                ``"Twice as fast on {n} bandits."``, so that its numbers are those of the run.
            sabotages: what is broken -> arguments of the function, at least one of them not its default.
            equals: the number predicted for an identity; ``at_least`` and ``at_most`` predict a bound instead.
            within: absolute tolerance, at most ``EXACT`` in an exact claim and more in a numerical one.
            kind: an ``illustration`` has too few runs for a rate; it is shown and never judged.
            **options: ``paper``, ``n``, ``unit``, ``false_alarm``, ``smallest_effect`` and ``seeds``, as in ``check``.

        An experiment is refused whose arguments have no defaults or whose source cannot be found.
        """
        bounds = {"equal to": equals, "at least": at_least, "at most": at_most}
        given = [(relation, bound) for relation, bound in bounds.items() if bound is not None]
        require(len(given) == 1, "prediction", f"{len(given)} of them", "one of equals, at_least and at_most")
        require(kind != "training", "kind", kind, "exact, numerical, statistical or illustration")
        require(kind != "exact" or within <= EXACT, "within", within, f"at most {EXACT}, or the kind numerical")
        self._reading(id, options.get("paper"))
        ((relation, predicted),) = given
        options |= {"testbed": testbed, "relation": relation, "predicted": predicted, "tolerance": within, "kind": kind}
        _headline(headline, measured=predicted, **options)

        def decorate(experiment: Experiment) -> Experiment:
            code = _code(experiment)
            _require_broken(experiment, sabotages)
            measured, *others = (float(real_array(id, experiment(**a), ndim=0)) for a in ({}, *sabotages.values()))
            said = _headline(headline, measured=measured, **options)
            broken = dict(zip(sabotages, others, strict=True))
            found: dict[str, Any] = {"measured": measured, "sabotages": broken, "code": code}
            claim = self._add(id=id, headline=said, statement=statement, **found, **options)
            _display({"text/html": claim_line(claim), "text/plain": repr(claim)})
            return experiment

        return decorate

    def check(self, id: str, statement: str, **options: Any) -> Claim:
        """Compare numbers that are there, put every sabotage through the same comparison, and add the claim.

        Args:
            id: as in ``claim``, whose ``testbed`` and ``kind`` it takes too, the kind ``training`` among them.
            **options: ``predicted``; ``measured``, for an identity its largest relative error; ``sabotages``, what was
                broken -> the number found then; ``relation``, "equal to", "at least" or "at most"; ``tolerance``;
                ``false_alarm``; ``smallest_effect``; ``paper``, a key of ``data/papers.yml`` and the verdict on that
                sentence if the claim holds; ``n`` and ``unit``, how many of what (in the plural) were drawn; ``seeds``.
        """
        code = Code(module="", function="", line=sys._getframe(1).f_lineno)
        return self._add(id=id, statement=statement, headline=statement, code=code, **options)

    def _reading(self, id: str, paper: tuple[str, Verdict] | None) -> Reading:
        """What the claim means for its sentence; ``ValueError`` for an unknown one and for an id used before."""
        require(all(claim.id != id for claim in self.claims), "id", id, "new in its ledger")
        key, verdict = paper or (self._paper, "beyond")
        require(key in papers(), "paper", key, "a key of data/papers.yml")
        return Reading(**papers()[key].model_dump(), verdict=verdict)

    def _add(
        self, *, id: str, predicted: float, measured: float, sabotages: Mapping[str, float], kind: Kind = "exact",
        relation: Relation = "equal to", tolerance: float = 0.0, false_alarm: float = 0.0,
        smallest_effect: Any = None, paper: tuple[str, Verdict] | None = None,
        seeds: Sequence[int] | None = None, n: int = 0, unit: str = "", **fields: Any,
    ) -> Claim:  # fmt: skip
        rare = kind != "statistical" or false_alarm <= LARGEST_FALSE_ALARM
        judged = kind in UNSAMPLED or (self._judged and kind != "illustration" and rare)
        found = {what: passes(predicted, relation, number, tolerance) for what, number in sabotages.items()}
        now, holds = time.perf_counter(), passes(predicted, relation, measured, tolerance)
        claim = Claim(
            id=id, kind=kind, predicted=predicted, relation=relation, measured=measured, tolerance=tolerance,
            n=n, unit=unit, false_alarm=false_alarm, paper=self._reading(id, paper),
            smallest_effect=tolerance if smallest_effect is None and kind != "statistical" else smallest_effect,
            outcome=("holds" if holds else "fails") if judged else "not-judged",
            sabotages=tuple(Sabotage(broken=k, measured=v, rejected=not found[k]) for k, v in sabotages.items()),
            seeds=self._seeds if seeds is None else tuple(seeds), runtime_s=round(now - self._since, 3),
            **fields, **self._shared,
        )  # fmt: skip
        self._since = now
        self.claims.append(claim)
        return claim

    def publish(self, table: bool = True) -> None:
        """Attach the claims to the notebook for the reproduction driver, and show them as a table or not at all."""
        shown = {"text/html": verdict_table(self.claims), "text/plain": "\n".join(map(repr, self.claims))}
        _display((shown if table else {}) | {MIME: [claim.model_dump(mode="json") for claim in self.claims]})


class _Shown(float):
    """A number that a headline prints with three digits where it names no format."""

    def __format__(self, format: str) -> str:
        return float.__format__(self, format) if format else _short(self)


def _headline(headline: str, *, n: int = 0, unit: str = "", **options: Any) -> str:
    """The headline with the numbers of its claim in it."""
    numbers = {name: _Shown(options[name]) for name in ("measured", "predicted", "tolerance")}
    try:
        said = headline.format(**numbers, n=f"{n:,}", unit=unit)
    except (KeyError, IndexError, AttributeError, ValueError) as error:
        allowed = "a format string over measured, predicted, tolerance, n and unit"
        raise ValueError(f"headline must be {allowed}, got {headline!r}: {error!r}") from None
    require(bool(said.strip()), "headline", headline, "a sentence")
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
        new = [key for key, value in changed.items() if not _same(value, defaults[key])]
        require(bool(new), name, dict(changed), "arguments that are not all defaults")


def _same(value: Any, default: Any) -> bool:
    try:
        return value is default or np.array_equal(value, default)
    except (TypeError, ValueError):  # objects that have no one answer are not the same
        return False


def _display(bundle: Mapping[str, Any]) -> None:
    """Show a bundle where a notebook is running."""
    if "IPython" in sys.modules:
        from IPython import get_ipython
        from IPython.display import display

        if get_ipython() is not None:
            display(dict(bundle), raw=True)


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


def verdict_table(claims: Iterable[Claim]) -> str:
    """The claims as an HTML table: outcome, statement, numbers, what they mean for the paper, and sabotages."""
    names = ("outcome", "claim", "testbed", "predicted", "measured", "the paper", "rejected")
    header = "".join(f"<th>{name}</th>" for name in names)
    sign = {"equal to": "", "at least": "&ge; ", "at most": "&le; "}
    rows = [
        f"<tr><td><b>{c.outcome}</b></td><td>{html.escape(c.statement)}</td><td>{c.testbed}</td>"
        f"<td>{sign[c.relation]}{_short(c.predicted)}</td><td>{_short(c.measured, c.tolerance)}</td>"
        f"<td>{c.paper.verdict}</td>"
        f"<td>{html.escape('; '.join(s.broken for s in c.sabotages if s.rejected))}</td></tr>"
        for c in claims
    ]
    return f'<table class="rlvr-claims"><thead><tr>{header}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


_LIST = TypeAdapter(list[Claim])


def to_json(claims: Iterable[Claim]) -> str:
    """The claims as a JSON list, a stable order of keys, one newline at the end. NaN and infinities are refused."""
    dumped = [claim.model_dump(mode="json") for claim in claims]
    return json.dumps(dumped, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def from_json(text: str | bytes) -> list[Claim]:
    """The claims in a JSON list, or a ``ValueError``."""
    return _LIST.validate_json(text)


def agrees(published: Claim, fresh: Claim) -> bool:
    """Whether a fresh run tells the published story: same outcome, and without sampling the same number.

    Those may differ by their tolerance plus one part in a million, which is what another instruction set can change;
    numbers of sampled and trained claims are free within the outcome.
    """
    if (published.outcome, published.paper.verdict) != (fresh.outcome, fresh.paper.verdict):
        return False
    return published.kind not in UNSAMPLED or math.isclose(
        published.measured, fresh.measured, rel_tol=1e-6, abs_tol=max(published.tolerance, 1e-9)
    )
