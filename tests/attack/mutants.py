"""mutmut on the theory and the claims: a random sample of its mutants against the unit tests (see pyproject.toml).

Mutants that change nothing but the wording of an error message are left out: they would measure how literally the
tests quote. mutmut itself leaves out functions with decorators, such as cached properties.
"""

import ast
import random
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from tests.attack.common import environment, record
from tests.attack.faults import BIN
from tests.attack.meta import copy_project, jobs

SAMPLE = 200
SEED = 0
FIRST = "rlvr_lib.theory.gap.x_log_odds__mutmut_1"
KILLED = ("killed", "timeout", "segfault", "suspicious")


class Wordless(ast.NodeTransformer):
    """Leaves out what ``require`` would say: what it got and what is allowed."""

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "require":
            node.args = node.args[:2]
        return node


def functions(module: Path) -> dict[str, ast.FunctionDef]:
    """Every function of a module that mutmut has rewritten, by name: originals and mutants."""
    return {node.name: node for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.FunctionDef)}


def changed_lines(original: ast.FunctionDef, mutant: ast.FunctionDef) -> tuple[str, str]:
    """The lines of code that differ."""
    sides = [ast.unparse(node).splitlines()[1:] for node in (original, mutant)]
    pairs = [[line.strip() for line in side if line not in other] for side, other in (sides, sides[::-1])]
    return " ".join(pairs[0]), " ".join(pairs[1])


def is_wording(original: ast.FunctionDef, mutant: ast.FunctionDef) -> bool:
    """Whether a mutant changes the words of an error message only."""
    calls = [len(re.findall(r"require\(", ast.unparse(node))) for node in (original, mutant)]
    before, after = (
        ast.unparse(Wordless().visit(ast.parse(ast.unparse(node)))).split("\n", 1)[1] for node in (original, mutant)
    )
    return calls[0] == calls[1] and before == after


def candidates(project: Path) -> tuple[dict[str, tuple[str, str]], int]:
    """By full name the lines each mutant changes, wording left out, and how many that were."""
    found, wording, generated = {}, 0, project / "mutants"
    for module in sorted((generated / "rlvr_lib").rglob("*.py")):
        home = ".".join(module.relative_to(generated).with_suffix("").parts)
        by_name = functions(module)
        for name, mutant in by_name.items():
            stem, _, number = name.rpartition("__mutmut_")
            if not number.isdigit():
                continue
            original = by_name[f"{stem}__mutmut_orig"]
            if is_wording(original, mutant):
                wording += 1
            else:
                found[f"{home}.{name}"] = changed_lines(original, mutant)
    return found, wording


def mutmut(project: Path, *arguments: str) -> str:
    """Run mutmut in the copy; what it printed."""
    command = [BIN / "mutmut", *arguments]
    variables = environment(project, PYTHONPATH="")
    done = subprocess.run(command, cwd=project, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def run() -> None:
    """Sample, test, and record the rate and the survivors."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        project = copy_project(Path(folder))
        mutmut(project, "run", "--max-children", str(jobs()), FIRST)
        found, wording = candidates(project)
        chosen = random.Random(SEED).sample(sorted(found), min(SAMPLE, len(found)))
        mutmut(project, "run", "--max-children", str(jobs()), *chosen)
        status = dict(re.findall(r"^ +(\S+): (.+)$", mutmut(project, "results", "--all", "true"), re.M))
    outcomes = Counter(status[name] for name in chosen)
    killed = sum(outcomes[name] for name in KILLED)
    counts = {
        "mutants of the modules": len(found),
        "left out, wording of error messages": wording,
        "random sample": len(chosen),
        **{f"of these {outcome}": count for outcome, count in sorted(outcomes.items())},
        "share killed": f"{killed / len(chosen):.1%}",
    }
    survivors = [name for name in sorted(chosen) if status[name] not in KILLED]
    rows = [
        {"mutant": name.removeprefix("rlvr_lib."), "original": found[name][0], "broken": found[name][1]}
        for name in survivors
    ]
    record("mutants", counts, rows)
