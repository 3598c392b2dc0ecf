"""Finished results: an executed notebook, its claims and the stamp that vouches for both."""

from __future__ import annotations

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
        """Common part of its file names."""
        return f"{self.name}.{self.profile}"

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
        return self.hidden / f"{self.stem}.ready"

    def stamp(self) -> provenance.Stamp | None:
        """The stamp if the result is finished and whole."""
        stamp = provenance.read_stamp(self.stamp_file)
        return stamp if stamp and stamp.vouches_for(self.files) else None

    def claims(self) -> list[claims.Claim]:
        """The claims, if they are those the stamp was made for.

        Raises:
            ValueError: the stamp or the claims are missing, damaged or not of one run.
        """
        stamp, file = provenance.read_stamp(self.stamp_file), self.files["claims"]
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

    Raises:
        NotebookFailed: the notebook published no valid claims.
        OSError: the disk is full or read-only.
    """
    contents = {
        "notebook": (nbformat.writes(clean(executed)) + "\n").encode(),
        "claims": claims.to_json(published_claims(executed)).encode(),
    }
    stamp = stamp.model_copy(update={"outputs": {name: sha256(data) for name, data in contents.items()}})
    result.hidden.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=result.hidden, prefix=f"{result.stem}.run-"))
    try:
        for name, data in {**contents, "stamp": stamp.sealed()}.items():
            write_whole(folder / name, data)
        os.replace(folder, result.ready)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    settle(result)


def settle(result: Result) -> None:
    """Move a result that is ready to where it belongs, also one that a killed run had begun to move."""
    result.stamp_file.parent.mkdir(parents=True, exist_ok=True)
    for name, path in {**result.files, "stamp": result.stamp_file}.items():
        if (result.ready / name).exists():
            os.replace(result.ready / name, path)
    if result.ready.exists():
        result.ready.rmdir()


def published_claims(notebook: nbformat.NotebookNode) -> list[claims.Claim]:
    """The claims an executed notebook published.

    Raises:
        NotebookFailed: it published none, several ledgers, or something that is not a claim.
    """
    found = [
        output.data[claims.MIME]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if claims.MIME in output.get("data", {})
    ]
    if len(found) != 1:
        raise NotebookFailed(f"it published {len(found)} ledgers, one was expected")
    try:
        return [claims.Claim.model_validate(claim) for claim in found[0]]
    except ValueError as error:
        raise NotebookFailed(f"its ledger is not valid: {error}") from None


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
    """Compare a finished result with the published one of the same notebook and profile.

    Returns:
        How many claims agree, how many there are in either, and a line for each outcome that differs.
    """
    fresh, old = ({claim.id: claim for claim in side.claims()} for side in (result, published))
    ids = sorted(fresh.keys() | old.keys())
    stamps = [provenance.read_stamp(side.stamp_file) for side in (result, published)]
    same_run = stamps[0].parameters == stamps[1].parameters
    agreeing, differing = 0, []
    for id in ids:
        if id not in fresh or id not in old:
            differing.append(f"{id}: only in the {'fresh' if id in fresh else 'published'} results")
        elif fresh[id].outcome != old[id].outcome:
            differing.append(f"{id}: {fresh[id].outcome}, published {old[id].outcome}")
        else:
            agreeing += claims.agrees(old[id], fresh[id]) if same_run else 1
    return agreeing, len(ids), differing


def finished_results(folder: Path) -> list[Result]:
    """The results in a folder that have a stamp, in the order of the chapters.

    Raises:
        ValueError: there is none.
    """
    stems = sorted(path.name.removesuffix(".json") for path in (folder / "provenance").glob("*.json"))
    if not stems:
        raise ValueError(f"out must be a folder of finished results, got {folder}, which has none")
    return [Result(folder, *stem.rsplit(".", 1)) for stem in stems]
