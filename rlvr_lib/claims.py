"""Claims that can fail: a claim compares two numbers, and the same comparison must reject its sabotages.

A notebook opens one ``Ledger``, adds a claim after each experiment and publishes the ledger in its last cell. The
reproduction driver reads the claims back from the executed notebook, so results and book come from one run.
"""

from __future__ import annotations

import functools
import html
import importlib.resources
import json
import math
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
import yaml
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from rlvr_lib.arguments import real_array, require

Kind = Literal["exact", "statistical", "training", "illustration"]
Relation = Literal["equal to", "at least", "at most"]
Outcome = Literal["holds", "fails", "not-judged"]
Verdict = Literal["confirmed", "sharpened", "limited", "contradicted", "not-reproduced", "beyond"]
Testbed = Literal["bandit", "transformer", "qwen", "none"]

Finite = Annotated[float, Field(allow_inf_nan=False)]

MIME = "application/vnd.rlvr.claims+json"
WIDTH = 74
"""Columns of a claim's text, which a page of the book shows without scrolling."""


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


class Claim(BaseModel):
    """One line of the ledger: what is claimed, the two numbers, our outcome, and what it means for a paper.

    ``outcome`` is ours: the statement holds, it fails, or it is not judged (an illustration, or a sample too small).
    ``paper`` is the sentence it bears on, with the verdict on that sentence should the claim hold.

    ``tolerance`` is absolute, in the units of ``measured``. ``false_alarm`` is the probability that the check fails
    although the statement is true; 0 for an exact claim, and for a training claim without an interval, which is about
    its own runs only. ``smallest_effect`` is the deviation it would have caught: for an exact claim any beyond the
    tolerance; for a training claim the same, of the number over its own runs. ``n`` of ``unit`` were sampled.
    ``runtime_s`` is the time since the claim before it in the same notebook.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[1-5]-[a-z0-9-]+$")
    theorem: int = Field(ge=1, le=5)
    testbed: Testbed
    statement: str
    kind: Kind
    predicted: Finite
    relation: Relation
    measured: Finite
    tolerance: Finite = Field(ge=0)
    false_alarm: float = Field(ge=0, lt=1)
    smallest_effect: Finite
    outcome: Outcome
    paper: Reading
    sabotages: tuple[Sabotage, ...] = Field(min_length=1)
    n: int = Field(ge=0)
    unit: str
    seeds: tuple[int, ...]
    runtime_s: float = Field(ge=0)
    profile: str

    @model_validator(mode="after")
    def _evidence_is_stated(self) -> Claim:
        if self.kind == "statistical" and self.false_alarm == 0:
            raise ValueError(f"{self.id}: a statistical claim states its false-alarm rate")
        if self.kind != "exact" and not (self.n and self.unit):
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
    """Whether the measured number stands in the stated relation to the predicted one; never for NaN.

    Args:
        tolerance: absolute slack, at least 0, in the units of the numbers.
    """
    if relation == "equal to":
        return abs(measured - predicted) <= tolerance
    return measured >= predicted - tolerance if relation == "at least" else measured <= predicted + tolerance


def relative_error(measured: ArrayLike, expected: ArrayLike) -> float:
    """Largest absolute difference over the largest absolute entry expected; 0 where both vanish.

    Raises:
        ValueError: different shapes, or entries that are not finite.
    """
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
    """

    def __init__(self, theorem: int, paper: str, profile: str, seeds: Sequence[int], judged: bool = True) -> None:
        require(paper in papers() and "." not in paper, "paper", paper, "one of P1, P2, P3, P4")
        self._shared = {"theorem": theorem, "profile": profile}
        self._paper = paper
        self._seeds = tuple(seeds)
        self._judged = judged
        self._since = time.perf_counter()
        self.claims: list[Claim] = []

    def check(
        self,
        id: str,
        statement: str,
        *,
        testbed: Testbed,
        predicted: float,
        measured: float,
        sabotages: Mapping[str, float],
        kind: Kind = "exact",
        relation: Relation = "equal to",
        tolerance: float = 0.0,
        false_alarm: float = 0.0,
        smallest_effect: float | None = None,
        paper: tuple[str, Verdict] | None = None,
        n: int = 0,
        unit: str = "",
        seeds: Sequence[int] | None = None,
    ) -> Claim:
        """Compare, put every sabotage through the same comparison, and add the claim to the ledger.

        Args:
            id: the theorem's number, a hyphen and a name: lower-case letters, digits and hyphens.
            measured: the number found; for an identity its largest relative error, with ``predicted`` 0.
            sabotages: what was broken -> the number found then, which the comparison must reject.
            kind: an ``illustration`` has too few runs for a rate; it is shown and never judged.
            paper: key of a sentence of ``data/papers.yml`` and the verdict on it if the claim holds; nothing where the
                papers are silent.
            n: how many units were sampled, 0 for an exact claim.
            unit: what they are, in the plural: prompts, runs, checkpoints.

        Raises:
            ValueError: an id used before, an unknown sentence, or fields that do not fit together.
        """
        require(all(claim.id != id for claim in self.claims), "id", id, "new in its ledger")
        key, verdict = paper or (self._paper, "beyond")
        require(key in papers(), "paper", key, "a key of data/papers.yml")
        passed = passes(predicted, relation, measured, tolerance)
        judged = kind == "exact" or (self._judged and kind != "illustration")
        now = time.perf_counter()
        claim = Claim(
            id=id,
            testbed=testbed,
            statement=statement,
            kind=kind,
            predicted=predicted,
            relation=relation,
            measured=measured,
            tolerance=tolerance,
            false_alarm=false_alarm,
            smallest_effect=tolerance if smallest_effect is None and kind != "statistical" else smallest_effect,
            outcome=("holds" if passed else "fails") if judged else "not-judged",
            paper=Reading(**papers()[key].model_dump(), verdict=verdict),
            sabotages=tuple(
                Sabotage(broken=broken, measured=value, rejected=not passes(predicted, relation, value, tolerance))
                for broken, value in sabotages.items()
            ),
            n=n,
            unit=unit,
            seeds=self._seeds if seeds is None else tuple(seeds),
            runtime_s=round(now - self._since, 3),
            **self._shared,
        )
        self._since = now
        self.claims.append(claim)
        return claim

    def publish(self) -> None:
        """Show the table of claims, and attach the claims to the notebook for the reproduction driver."""
        from IPython.display import display

        bundle = {"text/html": verdict_table(self.claims), "text/plain": "\n".join(map(repr, self.claims))}
        display(bundle | {MIME: [claim.model_dump(mode="json") for claim in self.claims]}, raw=True)


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
    """The claims in a JSON list.

    Raises:
        ValueError: not JSON, or not a list of claims.
    """
    return _LIST.validate_json(text)


def agrees(published: Claim, fresh: Claim) -> bool:
    """Whether a fresh run tells the published story: same outcome, and for exact claims the same number.

    Numbers of exact claims may differ by their tolerance plus one part in a million, which is what another
    instruction set can change; those of sampled and trained claims are free within the outcome.
    """
    if (published.outcome, published.paper.verdict) != (fresh.outcome, fresh.paper.verdict):
        return False
    return published.kind != "exact" or math.isclose(
        published.measured, fresh.measured, rel_tol=1e-6, abs_tol=max(published.tolerance, 1e-9)
    )
