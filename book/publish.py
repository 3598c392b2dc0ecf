"""Publish a reproduction: its claims and stamps into ``results``, its book-profile notebooks beside their sources."""

import argparse
import shutil
from pathlib import Path

from rlvr_lib.reproduction.results import Result, finished_results

ROOT = Path(__file__).resolve().parent.parent
SHOWN = "book"
PUBLISHED = (SHOWN, "full", "paper")


def publish(reproduced: Path, root: Path) -> list[str]:
    """Copy every finished result below a project's root; what was published, by notebook and profile."""
    results = [result for result in finished_results(reproduced) if result.profile in PUBLISHED]
    for result in results:
        if result.stamp() is None:
            raise SystemExit(f"{result.name} ({result.profile}) is not finished; run rlvr reproduce again")
        published = Result(root / "results", result.name, result.profile)
        published.stamp_file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(result.files["claims"], published.files["claims"])
        shutil.copy(result.stamp_file, published.stamp_file)
        if result.profile == SHOWN:
            shutil.copy(result.files["notebook"], root / "notebooks" / f"{result.name}.ipynb")
    return [f"{result.name} ({result.profile})" for result in results]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reproduced", type=Path, help="folder that `rlvr reproduce` wrote")
    print("published", ", ".join(publish(parser.parse_args().reproduced, ROOT)))
