"""Build the book from the published notebooks and results, or from those of a reproduction.

The sources are copied to a staging folder first, so that building never writes beside them and a reproduction's own
notebooks and results take the place of the published ones.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from publish import ROOT, publish


def stage(folder: Path, reproduced: Path | None) -> None:
    """Lay out the sources of the book in a folder of their own."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("book", "results", "notebooks"):
        # Sphinx would find a percent source beside its notebook and report two files for one page.
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("0*.py", "__pycache__"))
    shutil.copy(ROOT / "_config.yml", folder)
    if reproduced:
        publish(reproduced, folder)


def main() -> int:
    """Stage, build with warnings as errors, and say where the book is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reproduced", type=Path, help="folder of a reproduction whose outputs the book shows")
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "book", help="where the HTML goes")
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    sources = out.with_name(out.name + "-sources")
    stage(sources, arguments.reproduced)
    command = [Path(sys.executable).with_name("jupyter-book"), "build", ".", "--toc", "book/_toc.yml", "--all"]
    built = subprocess.run([*command, "-W", "-n", "--keep-going", "--path-output", out], cwd=sources)
    print(f"the book is at {out / '_build' / 'html' / 'index.html'}")
    return built.returncode


if __name__ == "__main__":
    sys.exit(main())
