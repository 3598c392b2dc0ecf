"""The published ledger as a whole: every claim is complete, and together they hardly ever raise a false alarm."""

import ast
import re
from collections import Counter

import pytest
from conftest import ROOT

from rlvr_lib.claims import LARGEST_FALSE_ALARM, papers
from rlvr_lib.reproduction.notebooks import notebook_names, read_source
from rlvr_lib.reproduction.results import finished_results

RESULTS = finished_results(ROOT / "results")
CLAIMS = [claim for result in RESULTS for claim in result.claims()]
NAMES = notebook_names(ROOT / "notebooks")
RUNS = re.compile(r"\b(checkpoints|seeds|runs|instances)\b")  # units that are runs, not samples of prompts or responses

# What draws a conclusion from a sample: tests, and the laws that are used for nothing but intervals.
INFERENCE = re.compile(
    r"beta|f|chi2|bootstrap|permutation_test|monte_carlo_test|\w*test(_\w+)?|ttest_\w+|ks_\w+|wilcoxon|mannwhitneyu"
    r"|kruskal|pearsonr|spearmanr|kendalltau|fisher_exact|combine_pvalues|chisquare|anderson\w*|bayes_mvs"
)


def test_false_alarms_of_the_whole_ledger_are_rare():
    """Bonferroni over every judged statistical claim of every profile; each rate is calibrated or a bound.

    Runs are few, the fewest those of a Qwen, whose unit is the checkpoint, so their rates are larger.
    """
    judged = [claim for claim in CLAIMS if claim.judged]
    assert sum(claim.false_alarm for claim in judged if not RUNS.search(claim.unit)) <= 1e-4
    assert sum(claim.false_alarm for claim in judged) <= 1e-3


def test_each_printed_sentence_stands_once_on_the_findings():
    """What the published claims say of a paper is what the list of its sentences says now, word for word."""
    known = {said.says: said for key, said in papers().items() if "." in key}
    for claim in CLAIMS:
        if claim.paper.verdict != "beyond":
            said = known[claim.paper.says]
            assert (claim.paper.source, claim.paper.where) == (said.source, said.where), claim.id


def test_profiles_read_the_papers_alike():
    read = {}
    for claim in CLAIMS:
        seen = (claim.kind, claim.paper.verdict, claim.paper.says)
        assert read.setdefault(claim.id, seen) == seen, claim.id


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: result.stem)
def test_ids_are_unique_and_belong_to_the_notebook(result):
    claims = result.claims()
    assert claims
    lane, stem = f"chapter/{result.name}".split("/")[-2:]
    for claim in claims:
        assert claim.id.startswith(f"{int(stem[:2])}-{claim.testbed}-"), claim.id
        assert claim.theorem == int(stem[:2])
        assert (claim.profile, claim.lane) == (result.profile, lane)
        assert claim.code.module == f"notebooks/{result.name}.py" or claim.code.module.startswith("rlvr_lib/")


def test_an_id_stands_once_in_a_profile_over_chapters_and_evidence():
    assert max(Counter((claim.id, claim.profile) for claim in CLAIMS).values()) == 1


def test_an_id_stands_once_in_the_sources():
    """Before anything has run."""
    calls = [
        node
        for name in NAMES
        for node in ast.walk(ast.parse((ROOT / "notebooks" / f"{name}.py").read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "claim"
    ]
    ids = Counter(ast.literal_eval(call.args[0]) for call in calls)
    assert len(ids) > 90
    assert max(ids.values()) == 1, ids.most_common(3)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{claim.id}-{claim.profile}")
def test_every_claim_is_complete(claim):
    assert len(claim.statement) > 10
    assert claim.seeds
    assert re.search(r"\bv\d|abstract", claim.paper.version)
    assert claim.headline
    rare = claim.kind != "statistical" or claim.false_alarm <= LARGEST_FALSE_ALARM
    assert claim.judged == (claim.kind != "illustration" and rare)
    if claim.judged:
        assert claim.sabotages
        assert not claim.accepted_sabotages
    if claim.kind == "exact":
        assert claim.false_alarm == 0


@pytest.mark.parametrize("name", NAMES)
def test_statistics_come_from_the_calibrated_module(name):
    """Laws such as ``binom`` and ``norm`` may describe; what concludes from a sample is in ``rlvr_lib.intervals``."""
    cells = read_source(ROOT / "notebooks" / f"{name}.py").cells
    source = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    used, aliases = set(), {"scipy.stats"}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "scipy.stats":
            used |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module == "scipy":
            aliases |= {alias.asname or alias.name for alias in node.names if alias.name == "stats"}
        if isinstance(node, ast.Import):
            aliases |= {alias.asname for alias in node.names if alias.name == "scipy.stats" and alias.asname}
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in aliases:
            used.add(node.attr)
    forbidden = sorted(name for name in used if INFERENCE.fullmatch(name))
    assert not forbidden, f"{name} takes {', '.join(forbidden)} from scipy.stats: use rlvr_lib.intervals"
    if 'kind="statistical"' in source:
        assert "rlvr_lib.intervals" in source or "rlvr_lib import intervals" in source, name
