"""Claims that can fail: a claim compares two numbers, and the same comparison must reject its sabotages.

A notebook opens one ``Ledger``, adds a claim after each experiment and publishes the ledger in its last cell. The
reproduction driver reads the claims back from the executed notebook, so results and book come from one run.
"""

from __future__ import annotations

import html
import json
import math
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from rlvr_lib.arguments import real_array, require

Kind = Literal["exact", "statistical", "training"]
Relation = Literal["equal to", "at least", "at most"]
Verdict = Literal["holds", "holds-sharper", "holds-with-limits", "contradicted", "not-judged", "not-tested-here"]
Testbed = Literal["bandit", "transformer", "qwen", "none"]

Finite = Annotated[float, Field(allow_inf_nan=False)]

MIME = "application/vnd.rlvr.claims+json"
WIDTH = 74
"""Columns of a claim's text, which a page of the book shows without scrolling."""


class Sabotage(BaseModel):
    """A deliberately wrong variant of an experiment, put through its claim's own check."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    broken: str
    measured: Finite
    rejected: bool


class Claim(BaseModel):
    """One line of the ledger.

    ``tolerance`` is absolute, in the units of ``measured``. ``false_alarm`` is the probability that the check fails
    although the statement is true. ``smallest_effect`` is the deviation it would have caught: for an exact claim any
    beyond the tolerance; for a training claim the same, of the number over its own seeds and not of the population
    behind them. ``runtime_s`` is the time since the claim before it in the same notebook.
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
    verdict: Verdict
    sabotages: tuple[Sabotage, ...] = Field(min_length=1)
    seeds: tuple[int, ...]
    runtime_s: float = Field(ge=0)
    paper: str
    paper_version: str
    printed: str
    profile: str

    @model_validator(mode="after")
    def _statistics_are_stated(self) -> Claim:
        if self.kind == "statistical" and self.false_alarm == 0:
            raise ValueError(f"{self.id}: a statistical claim states its false-alarm rate")
        return self

    @property
    def judged(self) -> bool:
        """Whether the verdict is one that evidence can change."""
        return self.verdict not in ("not-judged", "not-tested-here")

    @property
    def accepted_sabotages(self) -> tuple[str, ...]:
        """What was broken without the check noticing; empty unless the check is defective."""
        return tuple(s.broken for s in self.sabotages if not s.rejected) if self.judged else ()

    def __repr__(self) -> str:
        verb = {"equal to": "=", "at least": ">=", "at most": "<="}[self.relation]
        lines = [
            f"{self.verdict}: {self.statement}",
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
        paper: short name and arXiv number of the paper whose statements are tested.
        paper_version: the version read, and how much of it.
        profile: label of the run's profile.
        seeds: seeds of the run, unless a claim names its own.
        judged: whether statistical and training claims get a verdict; false where the sample is too small for one.
    """

    def __init__(
        self, theorem: int, paper: str, paper_version: str, profile: str, seeds: Sequence[int], judged: bool = True
    ) -> None:
        self._shared = {"theorem": theorem, "paper": paper, "paper_version": paper_version, "profile": profile}
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
        outcome: Verdict = "holds",
        printed: str = "not stated",
        seeds: Sequence[int] | None = None,
    ) -> Claim:
        """Compare, put every sabotage through the same comparison, and add the claim to the ledger.

        Args:
            id: the theorem's number, a hyphen and a name: lower-case letters, digits and hyphens.
            measured: the number found; for an identity its largest relative error, with ``predicted`` 0.
            sabotages: what was broken -> the number found then, which the comparison must reject.
            outcome: verdict if the comparison passes (``contradicted`` when passing is evidence against the paper).
            printed: what the paper printed.

        Raises:
            ValueError: an id used before, or fields that do not fit together.
        """
        require(all(claim.id != id for claim in self.claims), "id", id, "new in its ledger")
        passed = passes(predicted, relation, measured, tolerance)
        against = "holds" if outcome == "contradicted" else "contradicted"
        verdict = (outcome if passed else against) if self._judged or kind == "exact" else "not-judged"
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
            verdict=verdict,
            sabotages=tuple(
                Sabotage(broken=broken, measured=value, rejected=not passes(predicted, relation, value, tolerance))
                for broken, value in sabotages.items()
            ),
            seeds=self._seeds if seeds is None else tuple(seeds),
            runtime_s=round(now - self._since, 3),
            printed=printed,
            **self._shared,
        )
        self._since = now
        self.claims.append(claim)
        return claim

    def publish(self) -> None:
        """Show the verdict table, and attach the claims to the notebook for the reproduction driver."""
        from IPython.display import display

        bundle = {"text/html": verdict_table(self.claims), "text/plain": "\n".join(map(repr, self.claims))}
        display(bundle | {MIME: [claim.model_dump(mode="json") for claim in self.claims]}, raw=True)


def verdict_table(claims: Iterable[Claim]) -> str:
    """The claims as an HTML table: verdict, statement, numbers and sabotages."""
    header = "".join(
        f"<th>{name}</th>" for name in ("verdict", "claim", "testbed", "predicted", "measured", "rejected")
    )
    sign = {"equal to": "", "at least": "&ge; ", "at most": "&le; "}
    rows = [
        f"<tr><td><b>{c.verdict}</b></td><td>{html.escape(c.statement)}</td><td>{c.testbed}</td>"
        f"<td>{sign[c.relation]}{_short(c.predicted)}</td><td>{_short(c.measured, c.tolerance)}</td>"
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
    """Whether a fresh run tells the published story: same verdict, and for exact claims the same number.

    Numbers of exact claims may differ by their tolerance plus one part in a million, which is what another
    instruction set can change; those of sampled and trained claims are free within the verdict.
    """
    if published.verdict != fresh.verdict:
        return False
    return published.kind != "exact" or math.isclose(
        published.measured, fresh.measured, rel_tol=1e-6, abs_tol=max(published.tolerance, 1e-9)
    )
