import base64
import functools
import io
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
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


def check(book=None, measured=1.0, predicted=1.0, tolerance=0.1, relation="equals", sabotages=None, **changes):
    """A claim whose experiment returns a given number, and with the argument ``broken`` that of a sabotage."""
    broken = {"doubled": 2.0} if sabotages is None else sabotages

    def experiment(name=""):
        return broken.get(name, measured)

    kind = "numerical" if tolerance > 1e-9 else "exact"
    fields = {"id": "1-none-test", "headline": "It is {measured}.", "statement": "a statement", "testbed": "none"}
    fields |= {"kind": kind, "within": tolerance, relation: predicted} | changes
    book = book or ledger()
    book.claim(fields.pop("id"), sabotages={name: {"name": name} for name in broken}, **fields)(experiment)
    return book.claims[-1]


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
        claim = check(measured=measured, tolerance=0.0, paper=("P4.sum-bound", "contradicted"))
        assert (claim.outcome, claim.paper.verdict) == (outcome, "contradicted")
        assert claim.paper.says == papers()["P4.sum-bound"].says
    silent = check()
    assert (silent.paper.verdict, silent.paper.says, silent.paper.source) == ("beyond", "", "P1 (arXiv 2510.08539)")


def test_only_exact_or_calibrated_evidence_contradicts():
    evidence = {"kind": "illustration", "n": 8, "unit": "runs"}
    assert check(paper=("P4.sum-bound", "limited"), **evidence).paper.verdict == "limited"
    with pytest.raises(ValidationError, match="kind must be exact or statistical where a paper is contradicted"):
        check(paper=("P4.sum-bound", "contradicted"), **evidence)


def test_an_illustration_is_shown_and_never_judged():
    claim = check(kind="illustration", n=1, unit="runs", measured=9.0, sabotages={"harmless": 1.0})
    assert claim.outcome == "not-judged"
    assert claim.accepted_sabotages == ()


def test_what_was_sampled_is_said():
    with pytest.raises(ValidationError, match="n and unit must be those of a"):
        check(kind="illustration")


@pytest.mark.parametrize(
    ("paper", "error", "named"),
    [
        (("P9.nothing", "confirmed"), ValueError, "^paper must be a key of data/papers.yml"),
        (("P4.sum-bound", "refuted"), ValidationError, "verdict"),
        (("P4.sum-bound", "beyond"), ValidationError, "verdict must be 'beyond' without a sentence"),
        (("P4", "confirmed"), ValidationError, "verdict must be 'beyond' without a sentence"),
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
    with pytest.raises(ValidationError, match="false_alarm must be the rate"):
        check(kind="statistical", smallest_effect=0.2, n=20, unit="runs")
    with pytest.raises(ValidationError, match="smallest_effect"):
        check(kind="statistical", false_alarm=1e-6, n=20, unit="runs")


@pytest.mark.parametrize("changes", [{"testbed": "gpu"}, {"tolerance": -1.0}, {"n": -1}])
def test_malformed_claims_are_refused(changes):
    with pytest.raises(ValidationError):
        check(**changes)


def test_ids_are_unique_and_well_formed():
    book = ledger()
    check(book)
    with pytest.raises(ValueError, match="^id must be new"):
        check(book)
    with pytest.raises(ValidationError):
        check(id="no number")


def test_json_has_every_field_of_the_contract_and_comes_back():
    claim = check()
    text = to_json([claim])
    fields = set(json.loads(text)[0])
    assert fields >= {
        *("id", "theorem", "testbed", "statement", "kind", "predicted", "measured", "tolerance", "false_alarm"),
        *("smallest_effect", "outcome", "paper", "sabotages", "n", "unit", "seeds", "runtime_s", "profile"),
        *("headline", "lane", "code"),
    }
    assert json.loads(text)[0]["code"].keys() == {"module", "function", "line"}
    assert json.loads(text)[0]["paper"].keys() == {"source", "version", "where", "says", "verdict"}
    assert from_json(text) == [claim]
    for damaged in ("", "[", "{}", '[{"id": "1-x"}]', text.replace("holds", "wins")):
        with pytest.raises(ValueError, match="validation error"):
            from_json(damaged)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_numbers_that_are_not_finite_are_refused(value):
    for changes in ({"measured": value}, {"predicted": value}, {"sabotages": {"broken": value}}):
        with pytest.raises(ValueError, match="finite"):
            check(**changes)


def test_agreement_is_about_outcomes_and_exact_numbers():
    published = check(measured=1.01)
    assert agrees(published, check(measured=1.02))
    assert not agrees(published, check(measured=1.2))
    assert not agrees(published, check(measured=1.01, paper=("P1.alignment", "confirmed")))
    exact = check(tolerance=0.0)
    assert agrees(exact, check(tolerance=0.0, measured=1.0))
    assert not agrees(*(check(relation="at_least", tolerance=0.0, measured=value) for value in (1.5, 1.0)))


def twice(factor=2.0, shift=0.0, *, names=("a", "b")):
    return factor * len(names) + shift


def claim(function=twice, book=None, **changes):
    """The claim made of a function; ``changes`` are other options, None leaves one out."""
    fields = {
        "headline": "Twice two is {measured}.", "statement": "the product of two and two", "testbed": "none",
        "equals": 4.0, "sabotages": {"thrice": {"factor": 3.0}},
    } | changes  # fmt: skip
    book = book or ledger()
    identifier = fields.pop("id", "1-none-twice")
    assert book.claim(identifier, **{k: v for k, v in fields.items() if v is not None})(function) is function
    return book.claims[-1]


def test_a_claim_is_its_function_and_its_sabotages_are_other_arguments_of_it():
    made = claim(sabotages={"thrice": {"factor": 3.0}, "three names": {"names": ("a", "b", "c"), "shift": 1.0}})
    assert (made.measured, made.outcome, made.headline) == (4.0, "holds", "Twice two is 4.")
    assert [(s.broken, s.measured, s.rejected) for s in made.sabotages] == [
        ("thrice", 6.0, True), ("three names", 7.0, True)
    ]  # fmt: skip
    assert (made.lane, made.code.function) == ("chapter", "twice")
    assert claim(book=ledger(lane="evidence")).lane == "evidence"


@pytest.mark.parametrize(
    ("bound", "within", "outcome"),
    [({"at_least": 4.5}, 0.0, "fails"), ({"at_most": 4.5}, 0.0, "holds"), ({"at_least": 4.5}, 0.6, "holds")],
)
def test_a_claim_may_predict_a_bound(bound, within, outcome):
    kind = "numerical" if within else "exact"
    assert claim(equals=None, within=within, kind=kind, **bound).outcome == outcome


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"equals": None}, "^prediction must be one of equals"),
        ({"at_least": 1.0}, "^prediction must be one of equals"),
        ({"sabotages": {}}, "^sabotages must be at least one"),
        ({"sabotages": {"nothing": {}}}, "^sabotage 'nothing' must be arguments that are not all defaults"),
        ({"sabotages": {"the default": {"factor": 2.0}}}, "not all defaults"),
        ({"sabotages": {"the default": {"factor": 2, "names": ("a", "b")}}}, "not all defaults"),
        ({"sabotages": {"a number": 3.0}}, "^sabotage 'a number' must be arguments of twice, among factor"),
        ({"sabotages": {"unknown": {"factors": 3.0}}}, "^sabotage 'unknown' must be arguments of twice, among fac"),
        ({"headline": ""}, "^headline must be a sentence"),
        ({"headline": "It is {found}."}, "^headline must be a sentence, and a format string over measured"),
        ({"headline": "It is {}."}, "^headline must be a sentence, and a format string"),
        ({"headline": "It is {measured.nothing}."}, "^headline must be a sentence, and a format string"),
        ({"headline": "It is {measured:q}."}, "^headline must be a sentence, and a format string"),
        ({"headline": "It is {measured"}, "^headline must be a sentence, and a format string"),
        ({"within": 1e-6}, "^within must be at most 1e-09, or the kind numerical"),
        ({"within": -1.0}, "tolerance"),
        ({"kind": "numerical"}, "tolerance must be above 1e-09"),
        ({"kind": "lucky", "n": 3, "unit": "runs"}, "^kind must be exact, numerical, statistical or illustration"),
        ({"kind": "statistical", "n": 3, "unit": "runs", "smallest_effect": 0.1}, "false_alarm must be the rate"),
        ({"kind": "statistical", "n": 3, "unit": "runs", "false_alarm": 1e-6}, "smallest_effect"),
        ({"kind": "illustration"}, "n and unit must be those of a"),
        ({"paper": ("P9.nothing", "confirmed")}, "^paper must be a key of data/papers.yml"),
        ({"paper": ("P4", "confirmed")}, "verdict must be 'beyond' without a sentence"),
        ({"id": "first"}, "pattern"),
        ({"unknown": 1}, "unknown"),
    ],
)  # fmt: skip
def test_claims_that_are_no_evidence_are_refused(changes, named):
    with pytest.raises(ValueError, match=named):
        claim(**changes)


def test_what_can_be_refused_early_is_refused_before_the_experiment_runs():
    def slow(factor=1.0):
        raise AssertionError("it ran")

    for changes in ({"headline": "{x}"}, {"paper": ("P9", "confirmed")}, {"sabotages": {"x": {"factor": 1.0}}}):
        with pytest.raises(ValueError, match="must be"):
            claim(slow, **changes)


def test_experiments_without_defaults_names_or_source_are_refused():
    def bare(factor):
        return factor

    def open_ended(**factors):
        return 1.0

    made = {}
    exec("def unseen(factor=2.0): return 2 * factor", made)
    for function, named in (
        (bare, "^arguments of bare must be named and with defaults"),
        (open_ended, "^arguments of open_ended must be named and with defaults"),
        (lambda factor=2.0: 2 * factor, "^code must be a function with a name"),
        (made["unseen"], "^code must be a function whose source can be found"),
        (functools.partial(twice, 2.0), "^code must be a function whose source can be found"),
        (len, "^code must be a function whose source can be found"),
    ):
        with pytest.raises(ValueError, match=named):
            claim(function)


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "many", [1.0, 2.0], 1j])
def test_experiments_return_one_finite_number(value):
    for when in (2.0, 3.0):
        with pytest.raises(ValueError, match="must be"):
            claim(returning(value, when))


def returning(value, when):
    def found(factor=2.0):
        return value if factor == when else 4.0

    return found


def test_a_default_that_is_an_array_is_recognised():
    def total(values=np.array([1.0, 3.0])):  # noqa: B008
        return float(sum(values))

    assert claim(total, sabotages={"other": {"values": np.array([1.0, 2.0])}}).sabotages[0].rejected
    with pytest.raises(ValueError, match="not all defaults"):
        claim(total, sabotages={"the same": {"values": np.array([1.0, 3.0])}})


def test_a_sabotage_that_changes_nothing_is_accepted_and_so_reported():
    def deaf(factor=2.0):
        return 4.0

    assert claim(deaf).accepted_sabotages == ("thrice",)


def test_headlines_print_the_numbers_of_their_claim():
    text = "{measured:.1f} for {predicted}, to {tolerance}, on {n} {unit}"
    said = claim(headline=text, kind="numerical", within=0.5, n=1900, unit="bandits").headline
    assert said == "4.0 for 4, to 0.5, on 1,900 bandits"


@pytest.mark.parametrize(
    ("rate", "outcome"), [(1e-6, "holds"), (1e-3, "holds"), (0.0011, "not-judged"), (1.0, "not-judged")]
)
def test_a_statistical_claim_that_often_fails_by_chance_is_not_judged(rate, outcome):
    evidence = {"kind": "statistical", "n": 2, "unit": "checkpoints", "smallest_effect": 0.1, "false_alarm": rate}
    made = claim(sabotages={"deaf": {"shift": 0.0, "names": "no"}, "x": {"factor": 3.0}}, **evidence)
    assert made.outcome == outcome
    assert claim(book=ledger(judged=False), **evidence).outcome == "not-judged"
    assert made.accepted_sabotages == (("deaf",) if outcome == "holds" else ())


def test_code_leads_to_the_library_or_into_the_notebook():
    there = claims._code(passes)
    assert (there.module, there.function) == ("rlvr_lib/claims.py", "passes")
    assert claim().code.module == ""


def test_the_line_of_a_claim_escapes_and_links_to_its_row():
    line = claims.claim_line(claim(headline="a < b: {measured}", n=12, unit="bandits", book=ledger(lane="evidence")))
    assert "a &lt; b: 4" in line
    assert "(12 bandits)" in line
    assert 'href="../../book/ledger.html#claim-1-none-twice"' in line
    assert "rlvr-holds" in line


@pytest.fixture
def shown():
    """What a call shows in a notebook."""
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    def outputs(call, *arguments):
        with capture_output() as captured:
            call(*arguments)
        return captured.outputs

    InteractiveShell.instance()
    yield outputs
    InteractiveShell.clear_instance()


def test_a_notebook_shows_a_claim_as_one_line_and_publishes_unseen(shown):
    book = ledger()
    (line,) = shown(functools.partial(claim, book=book))
    assert line.data["text/html"].count('class="rlvr-claim"') == 1
    assert line.data["text/plain"].startswith("holds: the product")
    (published,) = shown(book.publish)
    assert published.data.keys() == {claims.MIME}
    assert published.data[claims.MIME][0]["id"] == "1-none-twice"


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


def test_figures_need_labels_and_alt_text():
    fig, ax = figures.panels()
    ax.plot([0, 1], [0, 1])
    with pytest.raises(ValueError, match="labelled on both axes"):
        figures.show(fig, "A line that rises from zero to one.")
    ax.set(xlabel="x", ylabel="y")
    with pytest.raises(ValueError, match="^alt must be"):
        figures.show(fig, "")


def test_a_figure_is_twice_as_fine_as_its_place_and_has_alt_text_and_caption(shown):
    alt, sizes = "A line that rises from zero to one.", []
    for caption in ("", "It rises."):
        fig, ax = figures.panels()
        ax.plot([0, 1], [0, 1])
        ax.set(xlabel="x", ylabel="y")
        (output,) = shown(figures.show, fig, alt, caption)
        said = output.metadata["image/png"]
        assert (said["alt"], said["caption"]) == (alt, caption)
        assert output.data["text/plain"] == alt
        picture = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
        assert picture.width == pytest.approx(2 * said["width"], abs=1)
        sizes.append(len(output.data["image/png"]))
    assert sizes[0] == sizes[1] < 60_000


def test_a_table_is_html_and_text_with_three_digits_and_nothing_unescaped(shown):
    rows = [("a < b", 0.123456, 12345), ("c", "0.5000", np.float64(2))]
    data = shown(figures.table, rows, ("what", "share", "n"))[0].data
    assert "a &lt; b" in data["text/html"]
    assert 'class="dataframe rlvr-results"' in data["text/html"]
    assert [line.split() for line in data["text/plain"].splitlines()] == [
        ["what", "share", "n"],
        ["a", "<", "b", "0.123", "12345"],
        ["c", "0.5000", "2"],
    ]
    with pytest.raises(ValueError, match="^rows must be of 2 cells each"):
        figures.table([(1, 2, 3)], ("a", "b"))
