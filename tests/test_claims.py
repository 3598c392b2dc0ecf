import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rlvr_lib import claims, figures
from rlvr_lib.claims import (
    Ledger,
    Reading,
    agrees,
    folded_verdict,
    from_json,
    papers,
    passes,
    relative_error,
    to_json,
)

numbers = st.floats(-1e6, 1e6, allow_subnormal=False)


def ledger(**options):
    return Ledger(1, "P1", "book", [0], **options)


def check(book=None, **changes):
    fields = {
        "testbed": "none",
        "predicted": 1.0,
        "measured": 1.0,
        "tolerance": 0.1,
        "sabotages": {"doubled": 2.0},
    }
    return (book or ledger()).check("1-none-test", "a statement", **(fields | changes))


@given(numbers, numbers, st.floats(0, 10))
def test_relations_against_their_definitions(predicted, measured, tolerance):
    assert passes(predicted, "equal to", measured, tolerance) == (abs(predicted - measured) <= tolerance)
    assert passes(predicted, "at least", measured, tolerance) == (measured >= predicted - tolerance)
    assert passes(predicted, "at most", measured, tolerance) == (measured <= predicted + tolerance)


@pytest.mark.parametrize("relation", ["equal to", "at least", "at most"])
def test_nothing_passes_with_nan(relation):
    assert not passes(1.0, relation, math.nan, math.inf)


def test_a_claim_fails_when_its_numbers_differ():
    assert check().outcome == "holds"
    assert check(measured=1.2).outcome == "fails"


def test_the_outcome_is_ours_and_the_verdict_is_the_papers():
    """What the claim would mean for the paper's sentence does not depend on whether it holds."""
    for measured, outcome in ((1.0, "holds"), (5.0, "fails")):
        claim = check(measured=measured, paper=("P4.sum-bound", "contradicted"))
        assert (claim.outcome, claim.paper.verdict) == (outcome, "contradicted")
        assert claim.paper.says == papers()["P4.sum-bound"].says
    silent = check()
    assert (silent.paper.verdict, silent.paper.says, silent.paper.source) == ("beyond", "", "P1 (arXiv 2510.08539)")


@pytest.mark.parametrize("kind", ["training", "illustration"])
def test_only_exact_or_calibrated_evidence_contradicts(kind):
    evidence = {"kind": kind, "n": 8, "unit": "runs"}
    assert check(paper=("P4.sum-bound", "limited"), **evidence).paper.verdict == "limited"
    with pytest.raises(ValidationError, match="exact or calibrated evidence"):
        check(paper=("P4.sum-bound", "contradicted"), **evidence)


def test_an_illustration_is_shown_and_never_judged():
    claim = check(kind="illustration", n=1, unit="runs", measured=9.0, sabotages={"harmless": 1.0})
    assert claim.outcome == "not-judged"
    assert claim.accepted_sabotages == ()


def test_what_was_sampled_is_said():
    for kind in ("training", "illustration"):
        with pytest.raises(ValidationError, match="states n and its unit"):
            check(kind=kind)


@pytest.mark.parametrize(
    ("paper", "error", "named"),
    [
        (("P9.nothing", "confirmed"), ValueError, "^paper must be a key of data/papers.yml"),
        (("P4.sum-bound", "refuted"), ValidationError, "verdict"),
        (("P4.sum-bound", "beyond"), ValidationError, "names a sentence"),
        (("P4", "confirmed"), ValidationError, "names a sentence"),
    ],
)
def test_readings_that_do_not_fit_are_refused(paper, error, named):
    with pytest.raises(error, match=named):
        check(paper=paper)


def test_a_ledger_is_of_one_of_the_four_papers():
    for name in ("P5", "P1.alignment", "a paper"):
        with pytest.raises(ValueError, match="^paper must be one of P1, P2, P3, P4"):
            Ledger(1, name, "book", [0])


def test_sentences_are_whole_and_each_stands_once():
    known = papers()
    sentences = {key: said for key, said in known.items() if "." in key}
    assert {key.split(".")[0] for key in sentences} == {"P1", "P2", "P3", "P4"} == known.keys() - sentences.keys()
    assert len({said.says for said in sentences.values()}) == len(sentences)
    for key, said in sentences.items():
        assert said.source == known[key.split(".")[0]].source
        assert said.where
        assert said.says.endswith(".")
        Reading(**said.model_dump(), verdict="confirmed")


@pytest.mark.parametrize(
    ("verdicts", "folded"),
    [
        ([], "beyond"),
        (["beyond", "beyond"], "beyond"),
        (["confirmed", "beyond"], "confirmed"),
        (["confirmed", "sharpened", "confirmed"], "sharpened"),
        (["confirmed", "limited", "sharpened"], "limited"),
        (["confirmed", "not-reproduced"], "limited"),
        (["not-reproduced", "not-reproduced"], "not-reproduced"),
        (["limited", "contradicted", "confirmed"], "contradicted"),
    ],
)
def test_verdicts_fold_to_one(verdicts, folded):
    assert folded_verdict(verdicts) == folded_verdict(reversed(verdicts)) == folded


def test_a_sabotage_that_passes_is_reported():
    claim = check(sabotages={"harmless": 1.05, "doubled": 2.0})
    assert claim.accepted_sabotages == ("harmless",)
    assert "SABOTAGE ACCEPTED: harmless" in repr(claim)


def test_small_samples_are_not_judged_but_exact_claims_are():
    small = ledger(judged=False)
    statistics = {"kind": "statistical", "false_alarm": 1e-6, "smallest_effect": 0.2, "n": 20, "unit": "runs"}
    claim = check(small, measured=9.0, sabotages={"harmless": 1.0}, **statistics)
    assert claim.outcome == "not-judged"
    assert claim.accepted_sabotages == ()
    assert check(ledger(judged=False), measured=9.0).outcome == "fails"


def test_statistical_claims_state_their_error_rates():
    with pytest.raises(ValidationError, match="false-alarm rate"):
        check(kind="statistical", smallest_effect=0.2, n=20, unit="runs")
    with pytest.raises(ValidationError, match="smallest_effect"):
        check(kind="statistical", false_alarm=1e-6, n=20, unit="runs")


@pytest.mark.parametrize(
    "changes", [{"sabotages": {}}, {"testbed": "gpu"}, {"kind": "lucky"}, {"tolerance": -1.0}, {"n": -1}]
)
def test_malformed_claims_are_refused(changes):
    with pytest.raises(ValidationError):
        check(**changes)


def test_ids_are_unique_and_well_formed():
    book = ledger()
    check(book)
    with pytest.raises(ValueError, match="^id must be new"):
        check(book)
    with pytest.raises(ValidationError):
        ledger().check("no number", "s", testbed="none", predicted=0, measured=0, sabotages={"x": 1})


def test_json_has_every_field_of_the_contract_and_comes_back():
    claim = check()
    text = to_json([claim])
    fields = set(json.loads(text)[0])
    assert fields >= {
        *("id", "theorem", "testbed", "statement", "kind", "predicted", "measured", "tolerance", "false_alarm"),
        *("smallest_effect", "outcome", "paper", "sabotages", "n", "unit", "seeds", "runtime_s", "profile"),
    }
    assert json.loads(text)[0]["paper"].keys() == {"source", "version", "where", "says", "verdict"}
    assert from_json(text) == [claim]
    for damaged in ("", "[", "{}", '[{"id": "1-x"}]', text.replace("holds", "wins")):
        with pytest.raises(ValueError, match="validation error"):
            from_json(damaged)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_numbers_that_are_not_finite_are_refused(value):
    for changes in ({"measured": value}, {"predicted": value}, {"sabotages": {"broken": value}}):
        with pytest.raises(ValidationError, match="finite"):
            check(**changes)


def test_agreement_is_about_outcomes_and_exact_numbers():
    published = check(measured=1.01)
    assert agrees(published, check(measured=1.02))
    assert not agrees(published, check(measured=1.2))
    assert not agrees(published, check(measured=1.01, paper=("P1.alignment", "confirmed")))
    exact = check(tolerance=0.0)
    assert agrees(exact, check(tolerance=0.0, measured=1.0))
    assert not agrees(
        check(relation="at least", tolerance=0.0, measured=1.5), check(relation="at least", tolerance=0.0)
    )


@given(st.lists(numbers, min_size=1, max_size=5))
def test_relative_error_is_that_of_the_largest_entry(values):
    expected = np.array(values)
    scale = np.abs(expected).max()
    error = relative_error(expected + 0.5 * scale, expected)
    assert error == pytest.approx(0.5 if scale else 0.0, rel=1e-6)


def test_relative_error_refuses_what_cannot_be_compared():
    with pytest.raises(ValueError, match="^measured must be"):
        relative_error([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="^measured must be finite"):
        relative_error([math.nan], [1.0])


def test_table_escapes_what_it_prints():
    claim = check(sabotages={"a < b": 2.0})
    assert "a &lt; b" in claims.verdict_table([claim])


def test_figures_need_labels_and_alt_text():
    fig, ax = figures.panels()
    ax.plot([0, 1], [0, 1])
    with pytest.raises(ValueError, match="labelled on both axes"):
        figures.show(fig, "A line that rises from zero to one.")
    ax.set(xlabel="x", ylabel="y")
    with pytest.raises(ValueError, match="^alt must be"):
        figures.show(fig, "")
