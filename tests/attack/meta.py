"""Break the theory functions one by one: what do their unit tests catch, and what do the claims of the smoke profile?

The slips are drawn by ``tests.attack.slips``. A mutant counts as caught by the tests when a test of its module fails,
and as caught by the claims when a notebook that imports the module, directly or not, stops with an error, accepts a
sabotage or reaches another outcome than with the library as it is. Sampled and trained claims have no outcome in the
smoke profile and catch nothing here.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from rlvr_lib.cli import INTERRUPTED
from rlvr_lib.reproduction import provenance
from rlvr_lib.reproduction.notebooks import notebook_names, read_source
from rlvr_lib.reproduction.results import Result, accepted_sabotages
from tests.attack import slips
from tests.attack.common import ROOT, environment, record, reproduce
from tests.attack.slips import Mutant

UNIT_TESTS = {"theory.readings": ("tests/theory/test_groups.py", "tests/theory/test_relay.py")}
"""Modules whose tests stand in other files than their own."""
LIMIT = 300
"""Seconds after which a broken library counts as caught because it does not end."""


def copy_project(folder: Path) -> Path:
    """A copy of the library, the notebooks and the tests."""
    project = folder / "project"
    for name in ("rlvr_lib", "notebooks", "tests"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__", "*.ipynb"))
    for name in ("requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, project)
    return project


def failing_test(mutant: Mutant, project: Path) -> str:
    """The first unit test of the mutant's module that fails, or nothing."""
    own = Path("tests", *mutant.module.split("."))
    files = UNIT_TESTS.get(mutant.module, (str(own.with_name(f"test_{own.name}.py")),))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", *files]
    try:
        done = subprocess.run(
            command, cwd=project, env=environment(project), capture_output=True, text=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return "does not end"
    if done.returncode == 0:
        return ""
    found = re.search(r"^(?:FAILED|ERROR) \S+?::(\w+)", done.stdout, re.M)
    return found[1] if found else "the tests cannot be collected"


def importers(module: str, root: Path) -> list[str]:
    """Notebooks whose import closure holds a module; first those that name it themselves."""
    sources = {name: read_source(root / "notebooks" / f"{name}.py") for name in notebook_names(root / "notebooks")}
    holding = [name for name in sources if f"rlvr_lib.{module}" in provenance.inputs(sources[name], root)]
    word = module.rpartition(".")[2]
    return sorted(holding, key=lambda name: not any(word in cell.source for cell in sources[name].cells))


def failing_claim(mutant: Mutant, project: Path, out: Path, clean: Path, cache: Path) -> str:
    """What the first notebook that notices says: a claim, an accepted sabotage or an error; nothing if none does."""
    for name in importers(mutant.module, project):
        variables = environment(project, RLVR_CACHE=str(cache))
        code, said = reproduce(project, out, name, "--profile", "smoke", limit_s=LIMIT, env=variables)
        if code == INTERRUPTED:
            return f"{name} does not end"
        broken, intact = Result(out, name, "smoke"), Result(clean, name, "smoke")
        if not broken.stamp():
            errors = re.findall(r"^(\w*(?:Error|Exception|Warning)\b.*)$", said, re.M)
            return f"{name} stops: {errors[-1][:90] if errors else 'an error'}"
        outcomes = {claim.id: claim.outcome for claim in intact.claims()}
        changed = [claim.id for claim in broken.claims() if claim.outcome != outcomes[claim.id]]
        if changed or accepted_sabotages(broken):
            return (changed or accepted_sabotages(broken))[0]
    return ""


def judge(mutant: Mutant, clean: Path, cache: Path) -> dict[str, str]:
    """A row of the table."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        project = copy_project(Path(folder))
        slips.apply(mutant, project)
        caught = failing_test(mutant, project), failing_claim(mutant, project, Path(folder) / "out", clean, cache)
    print(f"{mutant.module}: {mutant.broken}: {caught[0] or 'no test'}, {caught[1] or 'no claim'}", flush=True)
    return {
        "module": mutant.module,
        "original": " ".join(mutant.original.split()),
        "broken": mutant.broken,
        "kind": mutant.kind,
        "caught by the test": caught[0] or "-",
        "caught by the claim": caught[1] or "-",
    }


def run() -> None:
    """Judge every mutant and record the table, survivors first."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, ThreadPoolExecutor(jobs()) as pool:
        clean, cache = Path(folder) / "clean", Path(folder) / "cache"
        project = copy_project(Path(folder))
        code, said = reproduce(project, clean, "--profile", "smoke", env=environment(project, RLVR_CACHE=str(cache)))
        assert code == 0, said
        mutants = slips.sample(project)
        judged = pool.map(lambda mutant: judge(mutant, clean, cache), mutants)
        rows = list(tqdm(judged, total=len(mutants), desc="mutants", disable=None))
        names = notebook_names(project / "notebooks")
        reached = {module: bool(importers(module, project)) for module in {mutant.module for mutant in mutants}}
    columns = "caught by the test", "caught by the claim"
    caught = [tuple(row[column] != "-" for column in columns) for row in rows]
    counts = {
        "functions broken": len(rows),
        "notebooks whose claims judged": len(names),
        "broken functions that a notebook imports": sum(reached[row["module"]] for row in rows),
        "caught by the unit tests": sum(test for test, _ in caught),
        "caught by the claims": sum(claim for _, claim in caught),
        "caught by either": sum(test or claim for test, claim in caught),
        "share caught by either": f"{sum(test or claim for test, claim in caught) / len(rows):.1%}",
    }
    record("meta", counts, sorted(rows, key=lambda row: any(row[column] != "-" for column in columns)))


def jobs() -> int:
    """How many mutants to judge at a time: the environment's JOBS."""
    return int(os.environ.get("JOBS", "2"))
