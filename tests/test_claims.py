import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rlvr_lib import claims, figures
from rlvr_lib.claims import Ledger, agrees, from_json, passes, relative_error, to_json

numbers = st.floats(-1e6, 1e6, allow_subnormal=False)


def ledger(**options):
    return Ledger(1, "a paper", "v1", "book", [0], **options)


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
    assert check().verdict == "holds"
    assert check(measured=1.2).verdict == "contradicted"
    assert check(outcome="holds-sharper").verdict == "holds-sharper"
    assert check(outcome="contradicted").verdict == "contradicted"
    assert check(outcome="contradicted", measured=5.0).verdict == "holds"


def test_a_sabotage_that_passes_is_reported():
    claim = check(sabotages={"harmless": 1.05, "doubled": 2.0})
    assert claim.accepted_sabotages == ("harmless",)
    assert "SABOTAGE ACCEPTED: harmless" in repr(claim)


def test_small_samples_are_not_judged_but_exact_claims_are():
    small = ledger(judged=False)
    statistics = {"kind": "statistical", "false_alarm": 1e-6, "smallest_effect": 0.2}
    claim = check(small, measured=9.0, sabotages={"harmless": 1.0}, **statistics)
    assert claim.verdict == "not-judged"
    assert claim.accepted_sabotages == ()
    assert check(ledger(judged=False), measured=9.0).verdict == "contradicted"


def test_statistical_claims_state_their_error_rates():
    with pytest.raises(ValidationError, match="false-alarm rate"):
        check(kind="statistical", smallest_effect=0.2)
    with pytest.raises(ValidationError, match="smallest_effect"):
        check(kind="statistical", false_alarm=1e-6)


@pytest.mark.parametrize(
    "changes", [{"sabotages": {}}, {"testbed": "gpu"}, {"kind": "lucky"}, {"tolerance": -1.0}, {"outcome": "maybe"}]
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
        *(
            "smallest_effect",
            "verdict",
            "sabotages",
            "seeds",
            "runtime_s",
            "paper",
            "paper_version",
            "printed",
            "profile",
        ),
    }
    assert from_json(text) == [claim]
    for damaged in ("", "[", "{}", '[{"id": "1-x"}]', text.replace("holds", "wins")):
        with pytest.raises(ValueError, match="validation error"):
            from_json(damaged)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_numbers_that_are_not_finite_are_refused(value):
    for changes in ({"measured": value}, {"predicted": value}, {"sabotages": {"broken": value}}):
        with pytest.raises(ValidationError, match="finite"):
            check(**changes)


def test_agreement_is_about_verdicts_and_exact_numbers():
    published = check(measured=1.01)
    assert agrees(published, check(measured=1.02))
    assert not agrees(published, check(measured=1.2))
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
