"""Finished results: an executed notebook, its claims and the stamp that vouches for both."""

from __future__ import annotations

import ast
import copy
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nbformat

from rlvr_lib import claims
from rlvr_lib.files import sha256, write_whole
from rlvr_lib.reproduction import provenance
from rlvr_lib.reproduction.notebooks import in_order, read_source, resolve


class NotebookFailed(Exception):
    """A notebook did not run to its end, or published no claims."""


@dataclass(frozen=True)
class Result:
    """Where one notebook's finished result lies."""

    out: Path
    name: str
    profile: str

    @property
    def stem(self) -> str:
        """Common part of its files' paths."""
        return f"{self.name}.{self.profile}"

    @property
    def slug(self) -> str:
        """The same as the name of one file."""
        return self.stem.replace("/", "-")

    @property
    def files(self) -> dict[str, Path]:
        """The executed notebook and its claims."""
        return {"notebook": self.out / f"{self.stem}.ipynb", "claims": self.out / f"{self.stem}.json"}

    @property
    def stamp_file(self) -> Path:
        """The stamp, whose presence finishes the result."""
        return self.out / "provenance" / f"{self.stem}.json"

    @property
    def hidden(self) -> Path:
        """Folder for what is unfinished, and for locks."""
        return self.out / ".partial"

    @property
    def ready(self) -> Path:
        """Folder of a result that is whole but not yet in its place."""
        return self.hidden / f"{self.slug}.ready"

    def stamp(self) -> provenance.Stamp | None:
        """The stamp if the result is finished and whole."""
        stamp = self.own_stamp()
        return stamp if stamp and stamp.vouches_for(self.files) else None

    def own_stamp(self) -> provenance.Stamp | None:
        """The stamp in its place, if it was made for this notebook and profile."""
        stamp = provenance.read_stamp(self.stamp_file)
        return stamp if stamp and (stamp.notebook, stamp.profile) == (self.name, self.profile) else None

    def claims(self) -> list[claims.Claim]:
        """The claims; ``ValueError`` where they or their stamp are missing, damaged or not of one run."""
        stamp, file = self.own_stamp(), self.files["claims"]
        if stamp is None or not file.is_file() or sha256(file.read_bytes()) != stamp.outputs.get("claims"):
            raise ValueError(f"{file.name} must match its stamp in provenance/, got a damaged or unfinished result")
        try:
            return claims.from_json(file.read_bytes())
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{file.name} must hold claims in the form of this version, got {reason}") from None


def store(result: Result, executed: nbformat.NotebookNode, stamp: provenance.Stamp) -> None:
    """Put a finished result in place, the stamp last.

    All files are written to a hidden folder first, whose renaming is the moment from which the new result counts: a
    run killed before it leaves the old result, and one killed after it leaves what ``settle`` completes.
    """
    contents = {"notebook": to_bytes(executed), "claims": claims.to_json(published_claims(executed)).encode()}
    stamp = stamp.model_copy(update={"outputs": {name: sha256(data) for name, data in contents.items()}})
    result.hidden.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=result.hidden, prefix=f"{result.slug}.run-"))
    try:
        for name, data in {**contents, "stamp": stamp.sealed()}.items():
            write_whole(folder / name, data)
        os.replace(folder, result.ready)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    settle(result)


def to_bytes(executed: nbformat.NotebookNode) -> bytes:
    """The file of an executed notebook."""
    return (nbformat.writes(clean(executed)) + "\n").encode()


def renew(result: Result, source: nbformat.NotebookNode, root: Path) -> bool:
    """Carry the words of a source into a finished result with the same code; whether there was anything to carry."""
    executed = nbformat.read(result.files["notebook"], as_version=4)
    renewed = with_lines(with_words_of(source, executed), result.name, root)
    stamp, changed = result.stamp(), to_bytes(renewed) != result.files["notebook"].read_bytes()
    if changed and stamp:
        store(result, renewed, stamp)
    return changed


def settle(result: Result) -> None:
    """Move a result that is ready to where it belongs, also one that a killed run had begun to move."""
    for name, path in {**result.files, "stamp": result.stamp_file}.items():
        if (result.ready / name).exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(result.ready / name, path)
    if result.ready.exists():
        result.ready.rmdir()


def _ledger(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The output data of an executed notebook that hold its claims."""
    outputs = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    found = [data for data in outputs if claims.MIME in data]
    if len(found) != 1:
        raise NotebookFailed(f"it published {len(found)} ledgers, one was expected")
    return found[0]


def published_claims(notebook: nbformat.NotebookNode) -> list[claims.Claim]:
    """The claims an executed notebook published; ``NotebookFailed`` unless they are one valid ledger."""
    try:
        return [claims.Claim.model_validate(claim) for claim in _ledger(notebook)[claims.MIME]]
    except ValueError as error:
        raise NotebookFailed(f"its ledger is not valid: {error}") from None


def with_lines(executed: nbformat.NotebookNode, name: str, root: Path) -> nbformat.NotebookNode:
    """An executed notebook whose claims have their lines, see ``located``."""
    executed = copy.deepcopy(executed)
    found = located(published_claims(executed), name, root)
    _ledger(executed)[claims.MIME] = [claim.model_dump(mode="json") for claim in found]
    return executed


def located(found: list[claims.Claim], name: str, root: Path) -> list[claims.Claim]:
    """A notebook's claims, each with the one line of its source, or of the library, where its code begins."""
    home = f"notebooks/{name}.py"

    def place(claim: claims.Claim) -> claims.Code:
        file = claim.code.module or home
        lines = _claim_lines(ast.parse((root / file).read_text("utf-8")), claim) if (root / file).is_file() else []
        if len(lines) != 1:
            raise NotebookFailed(f"{claim.id}: code must be one place of {file}, got {len(lines)}: {lines}")
        return claim.code.model_copy(update={"module": file, "line": lines[0]})

    return [claim.model_copy(update={"code": place(claim)}) for claim in found]


def _claim_lines(tree: ast.Module, claim: claims.Claim) -> list[int]:
    """Lines of a file where a claim's function stands: the one that the claim decorates, if any."""
    nodes = list(ast.walk(tree))
    first = {node: getattr(node.args[0], "value", None) for node in nodes if isinstance(node, ast.Call) and node.args}
    calls = [call for call, value in first.items() if value == claim.id]
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef) and node.name == claim.code.function]
    decorated = [call.lineno for function in functions for call in function.decorator_list if call in calls]
    return decorated or [function.lineno for function in functions]


def with_words_of(source: nbformat.NotebookNode, executed: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """An executed notebook with prose and comments of a source whose code is the same."""
    cells, pending = [], [cell for cell in executed.cells if cell.cell_type == "code"]
    for cell in copy.deepcopy(source.cells):
        if cell.cell_type == "code":
            done = pending.pop(0)
            cell.outputs, cell.execution_count = done.outputs, done.execution_count
        cells.append(cell)
        if pending and "injected-parameters" in pending[0].metadata.get("tags", []):
            cells.append(pending.pop(0))
    return nbformat.NotebookNode({**executed, "cells": cells})


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy without run times, paths and injected cells' traces: what may be published."""
    notebook = copy.deepcopy(notebook)
    notebook.metadata.pop("papermill", None)
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if not cell.metadata.get("tags", [""]):
            del cell.metadata["tags"]
    return notebook


def accepted_sabotages(result: Result) -> list[str]:
    """A line for each sabotage that a check accepted: a defect whatever was published."""
    return [f"{c.id}: accepted the sabotage {broken!r}" for c in result.claims() for broken in c.accepted_sabotages]


def compare(result: Result, published: Result) -> tuple[int, int, list[str]]:
    """How many claims of two results of a notebook agree, how many there are, and a line for each other outcome."""
    fresh, old = ({claim.id: claim for claim in side.claims()} for side in (result, published))
    run, other = (provenance.read_stamp(side.stamp_file) for side in (result, published))
    same_run = run is not None and other is not None and run.parameters == other.parameters
    agreeing, differing = 0, []
    for id in sorted(fresh.keys() | old.keys()):
        if id not in fresh or id not in old:
            differing.append(f"{id}: only in the {'fresh' if id in fresh else 'published'} results")
        elif fresh[id].outcome != old[id].outcome:
            differing.append(f"{id}: {fresh[id].outcome}, published {old[id].outcome}")
        else:
            agreeing += claims.agrees(old[id], fresh[id]) if same_run else 1
    return agreeing, len(fresh.keys() | old.keys()), differing


def why_not_publishable(result: Result, root: Path) -> list[str]:
    """What keeps a result from being published as what a project's sources give under its profile; empty if nothing.

    The stamp must be made for the notebook and profile in the file's name, with the parameters of that profile and no
    others, from sources that are still the same and that say what they import.
    """
    stamp, source = result.own_stamp(), root / "notebooks" / f"{result.name}.py"
    if stamp is None:
        return ["its stamp is missing, damaged or of another notebook or profile"]
    if not source.is_file():
        return [f"notebooks/{result.name}.py is not there"]
    notebook = read_source(source)
    wanted = resolve([result.name], result.profile, {}, root / "notebooks")[result.name]
    given, now = stamp.parameters, provenance.inputs(notebook, root)
    other = [key for key in wanted.keys() | given.keys() if wanted.get(key, key) != given.get(key, key)]
    stale = [key for key in now.keys() | stamp.inputs.keys() if now.get(key) != stamp.inputs.get(key)]
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    found = {
        "parameters are not those of the profile": other,
        "inputs have changed since": stale,
        "imports cannot be followed": provenance.unseen_imports(code),
    }
    return [f"{what}: {', '.join(sorted(names))}" for what, names in found.items() if names]


def finished_results(folder: Path) -> list[Result]:
    """The results in a folder that have a stamp, in the order of the chapters; at least one."""
    stamps = folder / "provenance"
    stems = [path.relative_to(stamps).with_suffix("").as_posix() for path in stamps.rglob("*.*.json")]
    if not stems:
        raise ValueError(f"out must be a folder of finished results, got {folder}, which has none")
    return sorted(
        (Result(folder, *stem.rsplit(".", 1)) for stem in stems),
        key=lambda result: (in_order(result.name), result.profile),
    )
