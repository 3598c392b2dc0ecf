"""``make bench``: every benchmark of the project, as ratios against a named baseline measured in the same run."""

import importlib
import sys
from pathlib import Path

import pandas as pd


def main(names: list[str]) -> None:
    """Run the named benchmarks (``groups`` for ``bench_groups.py``), or all."""
    known = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))
    for name in names or known:
        if name not in known:
            raise SystemExit(f"benchmark must be one of {', '.join(known)}, got {name}")
        rows = pd.DataFrame(importlib.import_module(f"tests.benchmarks.bench_{name}").run())
        print(f"\n{name}: how many times longer the baseline takes (median)\n")
        print(rows.to_string(index=False, float_format=lambda value: f"{value:.3g}"), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
