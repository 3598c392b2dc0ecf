"""``make bench``: every benchmark of the project, as ratios against a named baseline measured in the same run.

A row has name, baseline, ratio, meaning (``times faster than`` or ``times the cost of`` the baseline) and repeats.

The rows of a run replace those of the same benchmarks in ``results/benchmarks.json``, which the status page prints.
"""

import importlib
import json
import sys
from pathlib import Path

import pandas as pd

from rlvr_lib.files import write_whole
from rlvr_lib.provenance import hardware, today

HISTORY = Path(__file__).parents[2] / "results" / "benchmarks.json"


def main(names: list[str]) -> None:
    """Run the named benchmarks (``groups`` for ``bench_groups.py``), or all."""
    known = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))
    for name in names or known:
        if name not in known:
            raise SystemExit(f"benchmark must be one of {', '.join(known)}, got {name}")
    for name in names or known:
        rows = importlib.import_module(f"tests.benchmarks.bench_{name}").run()
        print(f"\n{name}: ratios to a baseline in the same run, medians\n")
        print(pd.DataFrame(rows).to_string(index=False, float_format=lambda value: f"{value:.3g}"), flush=True)
        saved = json.loads(HISTORY.read_text()) if HISTORY.is_file() else {}
        saved[name] = {"date": today(), "hardware": hardware(), "rows": rows}
        write_whole(HISTORY, (json.dumps(saved, indent=1, sort_keys=True) + "\n").encode())


if __name__ == "__main__":
    main(sys.argv[1:])
