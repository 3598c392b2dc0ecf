"""Publish a reproduction: its claims and stamps into ``results``, its book-profile notebooks beside their sources.

Then, or alone when no folder is named, carry prose, comments and line numbers of the sources into published results
whose code is still the same, without executing anything.
"""

import argparse
import shutil
from pathlib import Path

import nbformat

from rlvr_lib.claims import to_json
from rlvr_lib.files import sha256, write_together
from rlvr_lib.reproduction import provenance
from rlvr_lib.reproduction.notebooks import read_source
from rlvr_lib.reproduction.results import (
    Result,
    finished_results,
    located,
    to_bytes,
    why_not_publishable,
    with_lines,
    with_words_of,
)

ROOT = Path(__file__).resolve().parent.parent
SHOWN = "book"
PUBLISHED = (SHOWN, "full", "paper")


def publish(reproduced: Path, root: Path) -> list[str]:
    """Copy every finished result below a project's root; what was published, by notebook and profile."""
    results = [result for result in finished_results(reproduced) if result.profile in PUBLISHED]
    # Everything is looked at before anything is copied: a refusal leaves the published results as they were.
    for result in results:
        if result.stamp() is None:
            raise SystemExit(f"{result.name} ({result.profile}) is not finished; run rlvr reproduce again")
        if wrong := why_not_publishable(result, root):
            raise SystemExit(f"{result.name} ({result.profile}) is not published: {'; '.join(wrong)}")
    for result in results:
        published = Result(root / "results", result.name, result.profile)
        pairs = {result.files["claims"]: published.files["claims"], result.stamp_file: published.stamp_file}
        if result.profile == SHOWN:
            pairs[result.files["notebook"]] = root / "notebooks" / f"{result.name}.ipynb"
        for source, target in pairs.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    return [f"{result.name} ({result.profile})" for result in results]


def renew(root: Path) -> list[str]:
    """Carry the words of the sources into the published results; those whose code has changed, which keep theirs."""
    stale = []
    for result in finished_results(root / "results"):
        file, stamp = root / "notebooks" / f"{result.name}.py", result.own_stamp()
        source = read_source(file) if file.is_file() else None
        if source is None or stamp is None or stamp.inputs != provenance.inputs(source, root):
            stale.append(f"{result.name} ({result.profile})")
            continue
        contents = {"claims": (result.files["claims"], to_json(located(result.claims(), result.name, root)).encode())}
        if result.profile == SHOWN:
            shown = file.with_suffix(".ipynb")
            words = with_words_of(source, nbformat.read(shown, as_version=4))
            contents["notebook"] = (shown, to_bytes(with_lines(words, result.name, root)))
        hashes = {name: sha256(data) for name, (_, data) in contents.items()}
        sealed = stamp.model_copy(update={"outputs": stamp.outputs | hashes}).sealed()
        write_together(dict(contents.values()) | {result.stamp_file: sealed})
    return stale


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reproduced", type=Path, nargs="?", help="folder that `rlvr reproduce` wrote")
    arguments = parser.parse_args()
    if arguments.reproduced:
        print("published", ", ".join(publish(arguments.reproduced, ROOT)))
    if changed := renew(ROOT):
        print("to be executed again, because their code has changed:", ", ".join(changed))
