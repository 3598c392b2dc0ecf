"""What a result depends on, and the stamp that says what it was made from.

A result is finished when its stamp is: the stamp is written last and holds the hashes of the files it vouches for. It
is fresh while everything it depends on still has the hashes in the stamp: the notebook's code, its parameters, the
library modules in its import closure, the pinned requirements and the installed versions. Dates play no part, and
neither do comments and docstrings: code is what Python runs.
"""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import yaml
from pydantic import BaseModel, ConfigDict

import rlvr_lib
from rlvr_lib.files import sha256

PACKAGE = "rlvr_lib"
VERSIONED = ("numpy", "scipy", "pandas", "sympy", "torch", "transformers", "matplotlib", "seaborn", "papermill")


class Stamp(BaseModel):
    """Provenance of one executed notebook."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    notebook: str
    profile: str
    parameters: dict[str, Any]
    inputs: dict[str, str]
    versions: dict[str, str]
    hardware: dict[str, str]
    outputs: dict[str, str]
    date: str
    runtime_s: float

    def vouches_for(self, files: Mapping[str, Path]) -> bool:
        """Whether every output is there with the content it was finished with."""
        return files.keys() == self.outputs.keys() and all(
            path.is_file() and sha256(path.read_bytes()) == self.outputs[name] for name, path in files.items()
        )

    def sealed(self) -> bytes:
        """The stamp as JSON that ends with a hash of itself, so that no changed byte goes unnoticed."""
        body = self.model_dump_json(indent=1).encode()
        return b'{"stamp": %b,\n "seal": "%b"}\n' % (body, sha256(body).encode())


def read_stamp(path: Path) -> Stamp | None:
    """The stamp in a file, or nothing when the file is absent or its seal does not fit its content."""
    try:
        content = path.read_bytes()
        stamp = Stamp.model_validate(json.loads(content)["stamp"])
    except (FileNotFoundError, IsADirectoryError, RecursionError, ValueError, KeyError, TypeError):
        return None
    return stamp if stamp.sealed() == content else None


def module_file(module: str, root: Path) -> Path | None:
    """The source file of a module of the library, or nothing if it is not one."""
    base = root.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def imported_modules(source: str, root: Path, package: str = PACKAGE) -> set[str]:
    """Library modules that Python source imports anywhere in it, parent packages and lazy re-exports included.

    ``package`` is the one that the source belongs to, from which relative imports count. What no reading of the source
    can see is found by ``unseen_imports``.
    """
    names: set[str] = set()
    for node in ast.walk(_parsed(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    own = {name for name in names if name.split(".")[0] == PACKAGE}
    every = f"{PACKAGE}.*" in own
    exported = {f"{PACKAGE}.{home}" for name, home in rlvr_lib.EXPORTS.items() if every or f"{PACKAGE}.{name}" in own}
    parents = {name.rsplit(".", depth)[0] for name in own for depth in range(1, name.count(".") + 1)}
    return {name for name in own | parents | exported if module_file(name, root)}


def unseen_imports(source: str) -> list[str]:
    """Places of Python source that reach library modules in a way that ``imported_modules`` cannot follow.

    These are modules named at run time, and the package itself under a name, whose attributes are any of its modules.
    """
    found = []
    for node in ast.walk(_parsed(source)):
        if isinstance(node, ast.Import):
            bad = any(name.name == PACKAGE or (name.name.startswith(f"{PACKAGE}.") and not name.asname)
                      for name in node.names)  # fmt: skip
        else:
            called = getattr(node, "func", None)
            bad = getattr(called, "id", getattr(called, "attr", None)) in ("import_module", "__import__", "run_module")
        if bad:
            found.append(f"line {node.lineno}: {ast.unparse(node)}")  # type: ignore[attr-defined]
    return found


def _parsed(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise ValueError(f"code must be Python without commands to the notebook, got {error}") from None


def _meaning(node: object) -> object:
    """Syntax as nested tuples: without positions and comments, and without strings that stand as statements."""
    if isinstance(node, ast.AST):
        parts = ((name, part) for name, part in ast.iter_fields(node) if part is not None and part != [])
        return type(node).__name__, *((name, _meaning(part)) for name, part in parts)
    if isinstance(node, list):
        return tuple(_meaning(part) for part in node if not _is_string(part))
    return repr(node)


def _is_string(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@functools.cache
def module_code(source: str) -> str:
    """What a module means to Python, in a form that is the same for every version of it: no comments, no docstrings."""
    return repr(_meaning(ast.parse(source).body))


def cell_code(cell: nbformat.NotebookNode) -> str:
    """What a code cell means: its tags and code, and where comments declare the ranges of parameters, its comments too.

    A string at the end of a cell is its output, and a semicolon there hides one.
    """
    tags = cell.metadata.get("tags", [])
    try:
        code = cell.source if "parameters" in tags else repr(tuple(map(_meaning, ast.parse(cell.source).body)))
    except SyntaxError:  # a command to the notebook
        code = cell.source
    return f"{tags}\n{code}{';' * cell.source.rstrip().endswith(';')}"


def import_closure(source: str, root: Path) -> dict[str, str]:
    """Code of every library module that Python source depends on, directly or through others, by module name."""
    pending, found = imported_modules(source, root), {}
    while pending:
        module = pending.pop()
        if not (path := module_file(module, root)):
            continue
        text = path.read_text(encoding="utf-8")
        found[module] = module_code(text)
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        pending |= imported_modules(text, root, package) - found.keys()
    return dict(sorted(found.items()))


def inputs(notebook: nbformat.NotebookNode, root: Path) -> dict[str, str]:
    """Hashes of what a notebook's result depends on, besides its parameters: code, library, data, requirements.

    A file of the library's folder ``data`` counts where the notebook or a module in its import closure names it, and of
    ``papers.yml`` what the papers say that the notebook names.
    """
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    code = "\n\f".join(map(cell_code, cells))
    pins, library = root / "requirements.txt", import_closure("\n".join(cell.source for cell in cells), root)
    return {
        "source": sha256(code.encode()),
        "requirements": sha256(pins.read_bytes()) if pins.is_file() else "none",
        **{
            f"data/{path.name}": sha256(_sentences(path, code) if path.name == "papers.yml" else path.read_bytes())
            for path in sorted((root / PACKAGE / "data").glob("*"))
            if path.is_file() and any(path.name in source for source in (code, *library.values()))
        },
        **{module: sha256(source.encode()) for module, source in library.items()},
    }


def written(names: Iterable[str], root: Path) -> dict[str, tuple[int, ...]]:
    """When each of the named inputs was last written, and as which file: what putting old content back does not undo.

    ``names`` are keys of ``inputs``. The source is left out, of which a run has a copy.
    """
    places = {name: root / PACKAGE / name if name.startswith("data/") else module_file(name, root) for name in names}
    places |= {"requirements": root / "requirements.txt"}
    return {
        name: (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        for name, place in places.items()
        if place is not None and place.is_file() and (state := place.stat())
    }


def _sentences(path: Path, code: str) -> bytes:
    """The entries of ``papers.yml`` that belong to papers named in code, ``P1`` to ``P4``."""
    named = set(re.findall(r"\bP\d\b", code))
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    said = {name: {k: v for k, v in part.items() if k.split(".")[0] in named} for name, part in data.items()}
    return json.dumps(said, sort_keys=True).encode()


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def hardware() -> dict[str, str]:
    """Processor, its vector instructions as PyTorch uses them, cores and memory; nothing that names the machine."""
    import psutil
    import torch

    return {
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "memory_gib": f"{psutil.virtual_memory().total / 2**30:.0f}",
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or "unknown"


def today() -> str:
    """The date of a stamp, UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%d")
