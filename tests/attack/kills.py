"""Kill -9 at random moments of a reproduction of about three seconds, and within the write of a result."""

import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
from tqdm import tqdm

from rlvr_lib.files import sha256
from rlvr_lib.reproduction.results import Result
from tests.attack.common import environment, record, reproduce, start
from tests.conftest import lay_out_project

KILLS = 200
NAMES = ("01_stub", "02_stub")
OPTIONS = ("--set", "pause=0.3")

STORE = """
import json, sys
from pathlib import Path
import nbformat
from rlvr_lib.reproduction import provenance, results
result = results.Result(Path(sys.argv[1]), "01_stub", "book")
results.settle(result)
stamp, notebook = provenance.read_stamp(result.stamp_file), nbformat.read(result.files["notebook"], 4)
(claims,) = [o.data for c in notebook.cells for o in c.get("outputs", []) if results.claims.MIME in o.get("data", {})]
print("ready", flush=True)
for number in range(10**9):
    claims[results.claims.MIME][0]["runtime_s"] = float(number)
    results.store(result, notebook, stamp)
"""


def story(result: Result) -> list[dict]:
    """What the claims say, without their run times."""
    return [claim.model_dump(exclude={"runtime_s"}) for claim in result.claims()]


def seal(result: Result) -> str:
    """Identity of a finished result."""
    return sha256(result.stamp_file.read_bytes())


def kill(child: subprocess.Popen, with_children: bool) -> None:
    """Kill -9 a run, and with it papermill and the kernels if asked; they go on as orphans otherwise."""
    running = with_children and child.poll() is None
    family = psutil.Process(child.pid).children(recursive=True) if running else []
    child.send_signal(signal.SIGKILL)
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    child.wait()


def broken_files(out: Path) -> list[str]:
    """Visible files that are not whole JSON, and stamps that vouch for files that are not theirs."""
    broken = []
    for path in out.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(out).parts)
        if path.is_file() and not hidden:
            try:
                json.loads(path.read_bytes())
            except ValueError:
                broken.append(path.name)
    results = [Result(out, name, "book") for name in NAMES]
    return broken + [result.stamp_file.name for result in results if result.stamp_file.exists() and not result.stamp()]


def kill_reproductions(project: Path, folder: Path, kills: int, moments: random.Random) -> Counter:
    """Kill runs in a folder until it is finished, then start over in a new one."""
    began = time.monotonic()
    assert reproduce(project, folder / "reference", *OPTIONS)[0] == 0
    longest = time.monotonic() - began
    reference = {name: story(Result(folder / "reference", name, "book")) for name in NAMES}
    found = Counter({"seconds of a run left alone": round(longest, 1), "kills": 0})
    out, kept, bar = folder / "out", {}, tqdm(total=kills, desc="kills", disable=None)
    while found["kills"] < kills:
        child = start(project, out, *OPTIONS)
        time.sleep(moments.uniform(0, longest))
        if child.poll() is None:
            kill(child, with_children=found["kills"] % 2 == 0)
            found["kills"] += 1
            bar.update()
        found["corrupt or half-written results"] += len(broken_files(out))
        for name in NAMES:
            result = Result(out, name, "book")
            if name in kept:
                found["finished results lost or made again"] += not result.stamp() or seal(result) != kept[name]
            elif result.stamp():
                kept[name] = seal(result)
                found["results finished in spite of the kills"] += 1
                found["results whose claims differ"] += story(result) != reference[name]
        if len(kept) == len(NAMES):
            found["folders finished"] += 1
            found["temporary files left beside results"] += sum(path.is_file() for path in out.glob(".*"))
            kept = {}
            shutil.rmtree(out, ignore_errors=True)  # an orphaned kernel may still write into it
            out = folder / f"out-{found['folders finished']}"
    bar.close()
    return found


def kill_stores(project: Path, folder: Path, kills: int, moments: random.Random) -> Counter:
    """Kill a process that does nothing but replace one finished result with the next."""
    out = folder / "reference"
    expected, found = story(Result(out, "01_stub", "book")), Counter()
    for _ in tqdm(range(kills), desc="kills of the write", disable=None):
        command = [sys.executable, "-c", STORE, str(out)]
        child = subprocess.Popen(command, cwd=project, env=environment(project), stdout=subprocess.PIPE)
        assert child.stdout.readline() == b"ready\n"
        time.sleep(moments.uniform(0, 0.05))
        kill(child, with_children=False)
        child.stdout.close()
        result = Result(out, "01_stub", "book")
        unfinished = result.stamp() is None
        found["kills within the write of a result"] += 1
        found["of these between two renames"] += unfinished
        if unfinished:
            _, said = reproduce(project, out, "01_stub", *OPTIONS)
            found["of these completed without a new execution"] += "up to date" in said
        found["corrupt results served"] += not result.stamp() or story(result) != expected
    return found


def run(kills: int = KILLS) -> None:
    """Both attacks, recorded."""
    moments = random.Random(1)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        project = lay_out_project(Path(folder))
        found = kill_reproductions(project, Path(folder), kills, moments)
        found.update(kill_stores(project, Path(folder), kills, moments))
    record("kills", found, [])
