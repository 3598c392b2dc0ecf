"""Slips in a derivation, drawn at random from the syntax tree of the theory modules that pyproject.toml lists.

A sign (+ for -, or a lost minus), a constant (one more), an exponent (* for /, or a power one higher) or an index (one
further). Left alone: annotations, defaults, and what the argument checks of ``rlvr_lib.arguments`` are told.
"""

import ast
import random
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SEED = 0
EACH = 8
"""Slips a module."""
SWAPPED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}


class Mutant(NamedTuple):
    """One expression of one module of the library, by its place in the source, and what it is replaced with."""

    module: str
    start: int
    end: int
    original: str
    broken: str
    kind: str


def modules(root: Path) -> dict[str, Path]:
    """The modules of the theory among those that mutmut is given, by their names inside the library."""
    listed = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["mutmut"]["only_mutate"]
    paths = [path for path in listed if "/theory/" in path or path.endswith("responses.py")]
    return {path.removeprefix("rlvr_lib/").removesuffix(".py").replace("/", "."): root / path for path in paths}


def computed(tree: ast.Module) -> Iterator[ast.expr]:
    """The expressions of functions, without annotations, defaults and calls of argument checks."""
    checks = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module == "rlvr_lib.arguments"
        for alias in node.names
    }

    def inside(node: ast.AST) -> Iterator[ast.expr]:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in checks:
            return
        if isinstance(node, ast.expr):
            yield node
        for name, value in ast.iter_fields(node):
            if name not in ("annotation", "args" if isinstance(node, ast.FunctionDef) else "", "returns"):
                for child in value if isinstance(value, list) else [value]:
                    if isinstance(child, ast.AST):
                        yield from inside(child)

    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield from inside(node)


def is_number(node: ast.AST | None) -> bool:
    """Whether a node is a number written out."""
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


def slips(node: ast.expr) -> Iterator[tuple[ast.expr, str]]:
    """Ways to get an expression wrong, with their kinds."""
    match node:
        case ast.BinOp(op=ast.Pow(), right=ast.Constant(value=int(power))):
            yield ast.BinOp(node.left, node.op, ast.Constant(power + 1)), "exponent"
        case ast.BinOp() if type(node.op) in SWAPPED:
            sign = isinstance(node.op, ast.Add | ast.Sub)
            yield ast.BinOp(node.left, SWAPPED[type(node.op)](), node.right), "sign" if sign else "exponent"
            for side in ("left", "right"):
                number = getattr(node, side)
                if is_number(number):
                    sides = {"left": node.left, "right": node.right, side: ast.Constant(number.value + 1)}
                    yield ast.BinOp(sides["left"], node.op, sides["right"]), "constant"
        case ast.UnaryOp(op=ast.USub()) if not is_number(node.operand):
            yield node.operand, "sign"
        case ast.Subscript(slice=ast.Constant(value=int(place))):
            yield ast.Subscript(node.value, ast.Constant(place + 1), node.ctx), "index"


def mutants(module: str, path: Path) -> list[Mutant]:
    """All slips of one module."""
    source, starts, found = path.read_bytes(), [0], []  # the tree counts bytes
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node in computed(ast.parse(source)):
        start, end = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
        for broken, kind in slips(node):
            found.append(Mutant(module, start, end, source[start:end].decode(), f"({ast.unparse(broken)})", kind))
    return found


def apply(mutant: Mutant, root: Path) -> None:
    """Break the copy of the project at ``root``."""
    path = modules(root)[mutant.module]
    source = path.read_bytes()
    path.write_bytes(source[: mutant.start] + mutant.broken.encode() + source[mutant.end :])


def sample(root: Path, each: int = EACH) -> list[Mutant]:
    """A seeded sample, the same number from each module, one of each kind that it has among them."""
    drawn = []
    for module, path in modules(root).items():
        found = mutants(module, path)
        random.Random(f"{SEED} {module}").shuffle(found)
        first = {mutant.kind: mutant for mutant in reversed(found)}
        drawn += list(dict.fromkeys([*first.values(), *found]))[:each]
    return drawn
