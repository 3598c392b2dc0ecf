"""What the attacks share: a record of what they found, and the ``rlvr`` command in a project of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from rlvr_lib.files import write_whole
from rlvr_lib.reproduction.provenance import hardware, today

ROOT = Path(__file__).resolve().parents[2]


def record(
    name: str, counts: Mapping[str, object], rows: Sequence[Mapping[str, str]], folder: Path | None = None
) -> None:
    """Print what an attack found and write it to ``results/NAME.json``, which the book's trust page shows."""
    found = {"date": today(), "hardware": hardware(), "counts": dict(counts), "rows": list(rows)}
    print(f"\n{name}\n" + "\n".join(f"  {what}: {count}" for what, count in counts.items()))
    if rows:
        print(pd.DataFrame(rows).to_string(index=False))
    write_whole((folder or ROOT / "results") / f"{name}.json", (json.dumps(found, indent=1) + "\n").encode())


def environment(project: Path, **more: str) -> dict[str, str]:
    """Environment in which the library of that project is imported, by the command and by its kernels."""
    return os.environ | {"PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"} | more


def start(project: Path, out: Path, *options: str, **popen: object) -> subprocess.Popen:
    """``rlvr reproduce`` of a project, started."""
    command = [sys.executable, "-m", "rlvr_lib", "reproduce", "--out", str(out), *options]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment(project)}
    return subprocess.Popen(command, cwd=project, **(quiet | popen))


def reproduce(
    project: Path, out: Path, *options: str, limit_s: float | None = None, **popen: object
) -> tuple[int, str]:
    """``rlvr reproduce`` of a project: its exit code and all it printed; interrupted after a limit."""
    child = start(project, out, *options, **({"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} | popen))
    try:
        said = child.communicate(timeout=limit_s)[0]
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGINT)
        said = child.communicate()[0]
    return child.returncode, said.decode(errors="replace")
