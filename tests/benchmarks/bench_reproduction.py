"""The reproduction as a reader runs it: all notebooks in the book profile, two at a time, and again with no change."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from rlvr_lib.reproduction.notebooks import notebook_names
from rlvr_lib.reproduction.results import Result

ROOT = Path(__file__).parents[2]
FASTER = "times faster than the baseline"
RERUNS = 3


def seconds(out: Path) -> float:
    """Wall time of ``rlvr reproduce``."""
    command = [sys.executable, "-m", "rlvr_lib", "reproduce", "--jobs", "2", "--out", str(out)]
    started = time.perf_counter()
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"TQDM_DISABLE": "1"}, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def run() -> list[dict]:
    """Rows with name, baseline, ratio, meaning, repeats, bounds, and seconds for information; takes minutes."""
    with tempfile.TemporaryDirectory() as folder:
        out, names = Path(folder), notebook_names(ROOT / "notebooks")
        full = seconds(out)
        apart = sum(Result(out, name, "book").stamp().runtime_s for name in names)
        again = median(seconds(out) for _ in range(RERUNS))
    what = f"{len(names)} notebooks, book profile"
    return [
        {
            "name": f"{what}, two at a time",
            "baseline": "their run times one after the other",
            "ratio": apart / full,
            "meaning": FASTER,
            "repeats": 1,
            "seconds": full,
            "bound_s": 480,
        },
        {
            "name": f"{what}, nothing changed",
            "baseline": "the reproduction before it",
            "ratio": full / again,
            "meaning": FASTER,
            "repeats": RERUNS,
            "seconds": again,
            "bound_s": 15,
        },
    ]
