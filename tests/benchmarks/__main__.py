"""``make bench``: every benchmark of the project, as ratios against a named baseline measured in the same run.

A row has name, baseline, ratio, meaning (``times faster than`` or ``times the cost of`` the baseline) and repeats.

The rows of a run replace those of the same benchmarks in ``results/benchmarks.json``, and its ratios are appended to
``results/benchmark_history.jsonl``; the status page prints both.
"""

import importlib
import json
import sys
from pathlib import Path

import pandas as pd

from rlvr_lib.files import write_whole
from rlvr_lib.reproduction.provenance import hardware, today

RESULTS = Path(__file__).parents[2] / "results"
LAST, HISTORY = RESULTS / "benchmarks.json", RESULTS / "benchmark_history.jsonl"


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
        save(name, rows)


def save(name: str, rows: list[dict]) -> None:
    """Replace the last run of a benchmark, and append this one to the history."""
    run = {"date": today(), "hardware": hardware()}
    saved = json.loads(LAST.read_text()) if LAST.is_file() else {}
    saved[name] = {**run, "rows": rows}
    write_whole(LAST, (json.dumps(saved, indent=1, sort_keys=True) + "\n").encode())
    # A baseline may carry what was measured on the day, such as its rate; what it is stands before the comma.
    ratios = [
        {"name": row["name"], "baseline": row["baseline"].split(",")[0], "ratio": float(f"{row['ratio']:.4g}")}
        for row in rows
    ]
    before = HISTORY.read_bytes() if HISTORY.is_file() else b""
    line = json.dumps({"benchmark": name, **run, "ratios": ratios}, sort_keys=True)
    write_whole(HISTORY, before + line.encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1:])
