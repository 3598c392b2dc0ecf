"""Run the notebooks through papermill, each into an output folder that holds only finished results.

A result (``reproduction.results``) is prepared in a hidden folder and put in place with its stamp last, so a run killed
at any moment leaves the old result or the new one, or what the next run completes without executing anything again;
that run continues with the notebooks that have no fresh stamp. One lock a notebook keeps two runs in one folder apart.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

import nbformat
import yaml
from filelock import FileLock
from tqdm import tqdm

from rlvr_lib.arguments import require
from rlvr_lib.files import require_writable
from rlvr_lib.reproduction import provenance
from rlvr_lib.reproduction.notebooks import declared_parameters, read_source
from rlvr_lib.reproduction.results import NotebookFailed, Result, renew, settle, store, with_lines

KERNEL, LAUNCHER = "python3", "ipykernel_launcher"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
QUIET = {"PYDEVD_DISABLE_FILE_VALIDATION": "1", "TOKENIZERS_PARALLELISM": "false"}
# Python 3.11 cannot parse source in several threads at once.
PARSING = threading.Lock()
PROGRESS = re.compile(rb"(\d+)/(\d+) \[")


@dataclass(frozen=True)
class Job:
    """One notebook to bring up to date: its source, its parameters and the hashes of all it depends on.

    ``overrides`` are the parameters that differ from the notebook's defaults: what papermill injects.
    """

    result: Result
    notebook: nbformat.NotebookNode
    parameters: dict[str, Any]
    overrides: dict[str, Any]
    inputs: dict[str, str]
    root: Path

    @classmethod
    def prepare(cls, name: str, parameters: Mapping[str, Any], root: Path, out: Path) -> Job:
        """Read a notebook's source and hash what it depends on."""
        notebook = read_source(root / "notebooks" / f"{name}.py")
        declared = declared_parameters(notebook)
        overrides = {key: value for key, value in parameters.items() if value != declared[key].default}
        result = Result(out, name, parameters["profile"])
        return cls(result, notebook, dict(parameters), overrides, provenance.inputs(notebook, root), root)


@dataclass
class Run:
    """A reproduction in progress: its bar, and its child processes, so that an interrupt can end them all."""

    bar: tqdm
    fresh: bool
    children: set[subprocess.Popen] = field(default_factory=set)
    stopped: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        """End every child; papermill takes its kernel down with it."""
        self.stopped.set()
        for child in list(self.children):
            child.terminate()


def require_kernel() -> None:
    """Raise ``ValueError`` unless the kernel that runs the notebooks is installed for this interpreter."""
    if importlib.util.find_spec(LAUNCHER) is None:
        raise ValueError(f"kernel must be installed for this Python, got no {LAUNCHER}: pip install ipykernel")


def require_apart(out: Path, root: Path) -> None:
    """Raise ``ValueError`` if a folder lies, also by a link, where the published results or the notebooks do."""
    for place in (root / "results", root / "notebooks"):
        inside = out.resolve().is_relative_to(place.resolve())
        require(not inside, "out", out, f"outside of {place.name}, to which results are published")


def reproduce(
    parameters: Mapping[str, Mapping[str, Any]],
    root: Path,
    out: Path,
    jobs: int = 1,
    fresh: bool = False,
    report: Callable[[str], None] = tqdm.write,
) -> dict[str, str]:
    """Execute each notebook that has no fresh result in the folder.

    Args:
        parameters: by notebook, every parameter's value as ``rlvr_lib.reproduction.notebooks.resolve`` gives them.
        root: the project, with ``notebooks`` and the library.
        fresh: execute also where a fresh result is there.
        report: called with a line for each notebook as it ends.

    Returns, by notebook, ``""`` when its result is finished, otherwise what went wrong.
    """
    require_apart(out, root)
    require_writable(out)
    require_kernel()
    # Prepared in this thread: Python 3.11 cannot parse source in several threads at once.
    prepared = [Job.prepare(name, values, root, out) for name, values in parameters.items()]
    run = Run(tqdm(total=0, unit="cell", desc="cells", disable=None, dynamic_ncols=True), fresh)
    pool = ThreadPoolExecutor(max_workers=jobs)
    work = {pool.submit(_finish, job, run): job.result.name for job in prepared}
    failures = {}
    try:
        for future in as_completed(work):
            name = work[future]
            try:
                message, failures[name] = future.result(), ""
            except (NotebookFailed, OSError) as error:
                message, failures[name] = f"{name}: failed: {error}", str(error)
            report(message)
    finally:
        run.stop()
        pool.shutdown(cancel_futures=True)
        run.bar.close()
    return dict(sorted(failures.items()))


def _finish(job: Job, run: Run) -> str:
    """Make one result fresh, unless it is; the message for the user."""
    result, installed = job.result, provenance.versions()
    state = provenance.written(job.inputs, job.root)
    result.hidden.mkdir(exist_ok=True)
    with FileLock(result.hidden / f"{result.slug}.lock"):
        if run.stopped.is_set():
            raise NotebookFailed("stopped before it began")
        settle(result)
        made = (old := result.stamp()) and (old.inputs, old.parameters, old.versions)
        if not run.fresh and made == (job.inputs, job.parameters, installed):
            words = ", its words renewed" if renew(result, job.notebook, job.root) else ""
            return f"{result.name}: up to date{words}"
        for leftover in result.hidden.glob(f"{result.slug}.run-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        # A folder of its own: the kernel of a run that was killed may still be writing into the last one.
        folder = Path(tempfile.mkdtemp(dir=result.hidden, prefix=f"{result.slug}.run-"))
        started = time.perf_counter()
        try:
            executed = with_lines(_execute(folder, job, run), result.name, job.root)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        require_unchanged(job, state)
        stamp = provenance.Stamp(
            notebook=result.name,
            profile=result.profile,
            parameters=job.parameters,
            inputs=job.inputs,
            versions=installed,
            hardware=provenance.hardware() | {"threads": ONE_THREAD["OMP_NUM_THREADS"]},
            outputs={},
            date=provenance.today(),
            runtime_s=round(time.perf_counter() - started, 1),
        )
        store(result, executed, stamp)
    return f"{result.name}: finished in {stamp.runtime_s:.0f} s"


def require_unchanged(job: Job, state: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ``NotebookFailed`` if what a notebook depends on is not what it was when the run read it.

    Hashes see what is changed still; a module that was changed and put back has them as before, but was written, and
    what the kernel imported in between is not known.
    """
    with PARSING:
        now = provenance.inputs(read_source(job.root / "notebooks" / f"{job.result.name}.py"), job.root)
    changed = {name for name in now.keys() | job.inputs.keys() if now.get(name) != job.inputs.get(name)}
    after = provenance.written(job.inputs, job.root)
    changed |= {name for name in state.keys() | after.keys() if state.get(name) != after.get(name)}
    if changed:
        raise NotebookFailed(f"not kept, since its inputs were written while it ran: {', '.join(sorted(changed))}")


def own_environment(folder: Path) -> dict[str, str]:
    """Environment in which papermill finds one kernel, of this interpreter, with an empty IPython profile."""
    spec = folder / "jupyter" / "kernels" / KERNEL / "kernel.json"
    spec.parent.mkdir(parents=True)
    argv = [sys.executable, "-m", LAUNCHER, "-f", "{connection_file}", "--InteractiveShellApp.exec_PYTHONSTARTUP=False"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}), encoding="utf-8")
    places = {"JUPYTER_PATH": spec.parents[2], "JUPYTER_CONFIG_DIR": folder / "none", "IPYTHONDIR": folder / "ipython"}
    own = {name: str(place) for name, place in places.items()} | {"JUPYTER_NO_CONFIG": "1"}
    return QUIET | os.environ | ONE_THREAD | own


def _execute(folder: Path, job: Job, run: Run) -> nbformat.NotebookNode:
    """The notebook with its outputs, run by papermill in a process of its own."""
    notebook = copy.deepcopy(job.notebook)
    notebook.metadata["kernelspec"] = {"name": KERNEL, "display_name": "Python 3", "language": "python"}
    (folder / "source.ipynb").write_text(nbformat.writes(notebook), encoding="utf-8")
    (folder / "parameters.yml").write_text(yaml.safe_dump(job.overrides), encoding="utf-8")
    command = [sys.executable, "-m", "papermill", "source.ipynb", "executed.ipynb", "--progress-bar"]
    command += ["--parameters_file", "parameters.yml", "--kernel", KERNEL, "--cwd", str(job.root)]
    # A session of its own, so that an interrupt reaches this process alone, which then ends the child.
    with subprocess.Popen(
        command, env=own_environment(folder), cwd=folder, stderr=subprocess.PIPE, start_new_session=True
    ) as child:
        run.children.add(child)
        if run.stopped.is_set():
            child.terminate()
        tail = _follow(cast(BufferedReader, child.stderr), run.bar)
    run.children.discard(child)
    if child.returncode != 0:
        raise NotebookFailed(_last_lines(tail))
    return nbformat.read(folder / "executed.ipynb", as_version=4)


def _follow(printed: BufferedReader, bar: tqdm) -> bytes:
    """Move the bar with papermill's own, until the child ends; the last of what it printed."""
    tail, done, total = b"", 0, 0
    while chunk := printed.read1(65536):
        tail = (tail + chunk)[-20_000:]
        if steps := PROGRESS.findall(tail):
            now, of = map(int, steps[-1])
            bar.total += of - total
            bar.update(now - done)
            done, total = now, of
    return tail


def _last_lines(tail: bytes, count: int = 30) -> str:
    text = tail.decode(errors="replace").replace("\r", "\n")
    lines = [line for line in text.splitlines() if line.strip() and not PROGRESS.search(line.encode())]
    return "\n".join(lines[-count:]) or "papermill ended without a message"
