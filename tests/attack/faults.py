"""Faults of papermill, nbval, jupyter-cache and joblib.Memory, each provoked here, beside ours under the same fault.

Every function does to a plain notebook what its docstring says, looks at what came of it, does the same to a small
project of this kind, and returns both observations. Nothing is asserted: the table says what was seen, also where a
tool does well.
"""

import json
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat
from tqdm import tqdm

from rlvr_lib.reproduction.results import Result
from tests.attack.common import environment, record, reproduce, start
from tests.attack.kills import broken_files, kill
from tests.conftest import STUB, lay_out_project

BIN = Path(sys.executable).parent
TRIALS = 30
NAME = "01_stub"
KERNELSPEC = {"name": "python3", "display_name": "Python 3", "language": "python"}

PLAIN = """# %% tags=["parameters"]
n: int = 3  # [0, 9] a whole number

# %%
import helper
print("value", helper.double(n))
"""

LONG = PLAIN + '\n# %%\nimport time; time.sleep(0.3); print("x" * 300_000)\n' * 5

FIGURE = """# %%
from IPython.display import Image, display
import base64
display(Image(base64.b64decode("{png}")))
"""

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"

MEMORY = """
import sys, joblib, numpy as np
import helper
memory = joblib.Memory("cache", verbose=0)
@memory.cache
def work(n):
    return np.full(1000, helper.double(n))
print("value", int(work(3)[-1]))
"""


@dataclass(frozen=True)
class Seen:
    """What a fault did: in words, and whether it did harm that nobody is told of."""

    words: str
    harm: bool


@dataclass
class Place:
    """A folder with a plain notebook and its helper, and a project with stub notebooks."""

    folder: Path
    project: Path

    @property
    def out(self) -> Path:
        """Where the project's results go."""
        return self.folder / "out"

    @property
    def result(self) -> Result:
        """The result of the stub."""
        return Result(self.out, NAME, "book")

    def notebook(self, text: str = PLAIN, name: str = "nb") -> Path:
        """A plain notebook beside a module that it imports."""
        (self.folder / "helper.py").write_text("def double(n):\n    return 2 * n\n")
        notebook = jupytext.reads(text, fmt="py:percent")
        notebook.metadata["kernelspec"] = KERNELSPEC
        path = self.folder / f"{name}.ipynb"
        nbformat.write(notebook, path)
        return path

    def tool(self, name: str, *arguments: str, **options: object) -> subprocess.CompletedProcess:
        """A command line tool run in the folder."""
        piped = {"capture_output": True, "text": True, "cwd": self.folder, "env": environment(self.folder)}
        return subprocess.run([BIN / name, *map(str, arguments)], **(piped | options))

    def papermill(self, *arguments: str, **options: object) -> subprocess.CompletedProcess:
        """Plain papermill of the plain notebook."""
        return self.tool("papermill", "nb.ipynb", "executed.ipynb", "--no-progress-bar", *arguments, **options)

    def ours(self, *options: str, **popen: object) -> tuple[int, str]:
        """``rlvr reproduce`` of the stub, its exit code and its last line."""
        code, said = reproduce(self.project, self.out, NAME, *options, **popen)
        lines = [line for line in said.splitlines() if line.startswith(("rlvr:", NAME)) and "it/s" not in line]
        return code, lines[-1] if lines else said[-200:]

    def edit(self, module: str) -> None:
        """Change a module of the project's library."""
        path = self.project / "rlvr_lib" / f"{module}.py"
        path.write_text(path.read_text() + "\n# edited\n")


def value(path: Path) -> str:
    """What the plain notebook printed, or that nothing can be read."""
    try:
        texts = [o.get("text", "") for c in nbformat.read(path, 4).cells for o in c.get("outputs", [])]
    except (OSError, ValueError, nbformat.reader.NotJSONError):
        return "nothing readable"
    return next((text.strip() for text in texts if text.startswith("value")), "no value")


FAULTS: list[tuple[str, str, Callable[[Place], tuple[Seen, Seen]]]] = []


def fault(tool: str, what: str):
    """Add a fault to the table."""

    def add(function):
        FAULTS.append((tool, what, function))
        return function

    return add


def refused(place: Place, setting: str) -> Seen:
    """What ``--set`` does with a parameter that is wrong."""
    code, said = place.ours("--set", setting)
    return Seen(f"exit code {code}: {said}", code == 0)


@fault("papermill", "an unknown parameter, a typing error")
def unknown_parameter(place):
    place.notebook()
    done = place.papermill("-p", "nn", "5")
    warned = "warns, " if "unknown" in done.stderr else ""
    seen = f"{warned}exit code {done.returncode}, prints {value(place.folder / 'executed.ipynb')!r}"
    return Seen(seen, done.returncode == 0), refused(place, "sed=5")


@fault("papermill", "a parameter of the wrong type")
def wrong_type(place):
    place.notebook()
    done = place.papermill("-p", "n", "1.5")
    seen = f"exit code {done.returncode}, prints {value(place.folder / 'executed.ipynb')!r}"
    return Seen(seen, done.returncode == 0), refused(place, "seed=1.5")


@fault("papermill", "code in the name of a parameter")
def injection(place):
    place.notebook()
    name = "n = 3; open('{}', 'w') #"
    done = place.papermill("-y", json.dumps({name.format(place.folder / "pwned"): 1}))
    ran, ours = (place.folder / "pwned").exists(), refused(place, f"{name.format(place.folder / 'ours')}=1")
    seen = f"exit code {done.returncode}, the code {'ran' if ran else 'did not run'}"
    return Seen(seen, ran), Seen(ours.words.replace(str(place.folder), ""), (place.folder / "ours").exists())


@fault("papermill", f"kill -9 at {TRIALS} random moments of the execution")
def killed(place):
    place.notebook(LONG)
    executed = place.folder / "executed.ipynb"
    command = [BIN / "papermill", "nb.ipynb", "executed.ipynb", "--no-progress-bar"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

    def theirs() -> subprocess.Popen:
        executed.unlink(missing_ok=True)
        return subprocess.Popen(command, cwd=place.folder, env=environment(place.folder), **quiet)

    def ours() -> subprocess.Popen:
        if place.result.stamp():
            shutil.rmtree(place.out, ignore_errors=True)
        return start(place.project, place.out, NAME)

    def left() -> str:
        if broken_files(place.out):
            return "corrupt"
        return "finished" if place.result.stamp() else "absent, known to be unfinished"

    (place.project / "notebooks" / f"{NAME}.py").write_text(STUB + LONG[LONG.index("\n# %%\nimport time") :])
    seen = kill_during(theirs, executed.exists, lambda: state(executed))
    mine = kill_during(ours, lambda: any(place.out.glob(".partial/*.run-*/executed.ipynb")), left)
    words = [", ".join(f"{count} {name}" for name, count in sorted(found.items())) for found in (seen, mine)]
    return Seen(words[0], seen["invalid JSON"] + seen["partial"] > 0), Seen(words[1], mine["corrupt"] > 0)


def kill_during(begin: Callable[[], subprocess.Popen], begun: Callable[[], bool], left: Callable[[], str]) -> Counter:
    """Kill runs at random moments between their first output and their end; how often what is left."""
    moments, found, child, longest = random.Random(2), Counter(), begin(), 0.0
    while child.poll() is None:
        if begun():
            longest += 0.01
        time.sleep(0.01)
    for _ in tqdm(range(TRIALS), disable=None):
        child = begin()
        while not begun() and child.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, longest))
        kill(child, with_children=True)
        found[left()] += 1
    return found


def state(path: Path) -> str:
    """What is left of papermill's output."""
    if not path.exists():
        return "absent"
    try:
        notebook = nbformat.reads(path.read_text(), 4)
    except (ValueError, nbformat.reader.NotJSONError):
        return "invalid JSON"
    return "finished" if all(c.execution_count for c in notebook.cells if c.cell_type == "code") else "partial"


@fault("papermill", "the disk fills up while a result is replaced (a limit on the size of a file)")
def full_disk(place):
    place.notebook(LONG)
    place.papermill()
    (place.project / "notebooks" / f"{NAME}.py").write_text(STUB + LONG[LONG.index("\n# %%\nimport time") :])
    place.ours()

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))

    done = place.papermill(preexec_fn=limit)
    left = state(place.folder / "executed.ipynb")
    code, _ = place.ours("--fresh", preexec_fn=limit)
    kept = "the old result is whole" if place.result.stamp() else "no result is left"
    seen = f"exit code {done.returncode}, the finished notebook of before is {left}"
    return Seen(seen, left != "finished"), Seen(f"exit code {code}, {kept}", not place.result.stamp())


@fault("papermill", "execution in place of a notebook paired with a script")
def in_place(place):
    path = place.notebook()
    place.tool("jupytext", "--set-formats", "ipynb,py:percent", path.name)
    script = place.folder / "nb.py"
    before = script.read_text()
    place.tool("papermill", "nb.ipynb", "nb.ipynb", "--no-progress-bar")
    place.tool("jupytext", "--sync", "nb.ipynb")
    leaked = sorted(set(re.findall(r"start_time|end_time|duration|tags=\[\]", script.read_text())))
    source = place.project / "notebooks" / f"{NAME}.py"
    ours = source.read_bytes()
    place.ours()
    same = source.read_bytes() == ours
    seen = f"the script has changed; in it now: {', '.join(leaked) or 'nothing of the run'}"
    if script.read_text() == before:
        seen = "the script is untouched"
    return Seen(seen, bool(leaked)), Seen(f"the source is {'untouched' if same else 'changed'}", not same)


@fault("papermill", "two runs at once into one file")
def two_runs(place):
    place.notebook(LONG)
    command = [BIN / "papermill", "nb.ipynb", "executed.ipynb", "--no-progress-bar"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    runs = [subprocess.Popen(command, cwd=place.folder, env=environment(place.folder), **quiet) for _ in range(2)]
    states = Counter()
    while any(run.poll() is None for run in runs):
        states[state(place.folder / "executed.ipynb")] += 1
        time.sleep(0.02)
    codes = [run.returncode for run in runs]
    children = [start(place.project, place.out, NAME, stdout=subprocess.PIPE) for _ in range(2)]
    said = b"".join(child.communicate()[0] for child in children).decode()
    seen = f"exit codes {codes}, both ran; a reader found the file invalid JSON {states['invalid JSON']} times"
    mine = f"{said.count('finished in')} ran, {said.count('up to date')} waited and found it up to date"
    return Seen(seen, codes == [0, 0]), Seen(mine, said.count("finished in") != 1)


def jupyter_cache(place: Place) -> Path:
    """Execute the plain notebook into a cache; the cached notebook."""
    place.notebook()
    place.tool("jcache", "notebook", "add", "nb.ipynb", input="y\n")
    place.tool("jcache", "project", "execute")
    (cached,) = (place.folder / ".jupyter_cache").rglob("base.ipynb")
    return cached


def served(place: Place) -> str:
    """What the cache gives after another execution."""
    (place.folder / "merged.ipynb").unlink(missing_ok=True)
    place.tool("jcache", "project", "execute")
    merged = place.tool("jcache", "notebook", "merge", "1", "merged.ipynb")
    return "a traceback" if "Traceback" in merged.stderr + merged.stdout else value(place.folder / "merged.ipynb")


def damaged(place: Place, file: str, change: Callable[[bytes], bytes]) -> Seen:
    """What we do when a finished result has been damaged."""
    place.ours()
    path = place.result.files[file]
    path.write_bytes(change(path.read_bytes()))
    code, said = place.ours()
    return Seen(f"noticed: {said}" if "finished in" in said else said, "finished in" not in said or code != 0)


@fault("jupyter-cache", "the imported library changes")
def library_changed(place):
    jupyter_cache(place)
    (place.folder / "helper.py").write_text("def double(n):\n    return 20 * n\n")
    found = served(place)
    place.ours()
    place.edit("claims")
    _, said = place.ours()
    return Seen(f"serves {found!r}, now it would be 'value 60'", found == "value 6"), Seen(said, "up to date" in said)


@fault("jupyter-cache", "a cached notebook is truncated")
def truncated_record(place):
    cached = jupyter_cache(place)
    cached.write_bytes(cached.read_bytes()[:300])
    found = served(place)
    return Seen(f"gives {found}", found == "a traceback"), damaged(place, "notebook", lambda data: data[:300])


@fault("jupyter-cache", "a number in a cached output is changed")
def changed_record(place):
    cached = jupyter_cache(place)
    cached.write_text(cached.read_text().replace("value 6", "value 7"))
    found = served(place)
    ours = damaged(place, "claims", lambda data: data.replace(b'"measured": 1.0', b'"measured": 1.5'))
    return Seen(f"serves {found!r}", found == "value 7"), ours


def remembered(place: Place) -> str:
    """What a function under joblib.Memory gives in a new process."""
    done = place.tool("python", "-c", MEMORY)
    return done.stdout.strip() or "a traceback"


@fault("joblib.Memory", "a helper of the cached function changes")
def helper_changed(place):
    place.notebook()
    remembered(place)
    (place.folder / "helper.py").write_text("def double(n):\n    return 20 * n\n")
    found = remembered(place)
    place.ours()
    place.edit("arguments")
    _, said = place.ours()
    return Seen(f"serves {found!r}, now it would be 'value 60'", found == "value 6"), Seen(said, "up to date" in said)


TENSORS = """
import sys, torch
from pathlib import Path
from rlvr_lib.testbeds.checkpoint import load_tensors, save_tensors
path = Path("cache.safetensors")
if not path.exists():
    save_tensors(path, {"work": torch.full((1000,), 6)}, {})
print("value", int(load_tensors(path)[0]["work"][-1]))
"""


def safetensors(place: Place, change: Callable[[bytes], bytes]) -> Seen:
    """What our store of tensors does with a changed file; whoever reads it computes anew."""
    options = {"cwd": place.folder, "env": environment(place.project)}
    place.tool("python", "-c", TENSORS, **options)
    path = place.folder / "cache.safetensors"
    path.write_bytes(change(path.read_bytes()))
    done = place.tool("python", "-c", TENSORS, **options)
    words = "refused as damaged, to be recomputed" if "must be" in done.stderr else f"serves {done.stdout.strip()!r}"
    return Seen(words, "must be" not in done.stderr)


def flip_last(data: bytes) -> bytes:
    """One bit of the last number changed."""
    return data[:-8] + bytes([data[-8] ^ 1]) + data[-7:]


@fault("joblib.Memory", "one bit of a cached array is flipped")
def flipped_bit(place):
    place.notebook()
    remembered(place)
    (pickled,) = (place.folder / "cache").rglob("output.pkl")
    data = pickled.read_bytes()
    last = data.rindex((6).to_bytes(8, "little"))
    pickled.write_bytes(data[:last] + bytes([data[last] ^ 1]) + data[last + 1 :])
    found = remembered(place)
    return Seen(f"serves {found!r}, it was 'value 6'", found == "value 7"), safetensors(place, flip_last)


@fault("joblib.Memory", "a foreign file in the cache")
def foreign_file(place):
    import pickle

    class Foreign:
        def __reduce__(self):
            return exec, (f"open({str(place.folder / 'pwned')!r}, 'w')",)

    place.notebook()
    remembered(place)
    (pickled,) = (place.folder / "cache").rglob("output.pkl")
    pickled.write_bytes(pickle.dumps(Foreign()))
    remembered(place)
    ran = (place.folder / "pwned").exists()
    (place.folder / "pwned").unlink(missing_ok=True)
    ours = safetensors(place, lambda data: pickle.dumps(Foreign()))
    seen = "its code runs" if ran else "its code does not run"
    return Seen(seen, ran), Seen(ours.words, ours.harm or (place.folder / "pwned").exists())


def nbval(place: Place, text: str, change: Callable[[str], str]) -> int:
    """Exit code of nbval for a notebook executed and then changed."""
    place.notebook(text)
    place.papermill()
    path = place.folder / "executed.ipynb"
    path.write_text(change(path.read_text()))
    return place.tool("pytest", "--nbval", "-q", "-p", "no:cacheprovider", "executed.ipynb").returncode


def verdict(code: int) -> str:
    """Exit code of pytest in a word."""
    return "passes" if code == 0 else "fails"


@fault("nbval", "a published figure is wholly replaced")
def replaced_figure(place):
    import base64

    other = base64.b64encode(base64.b64decode(PNG)[:-20] + b"something else entirely").decode()
    assert nbval(place, FIGURE.format(png=PNG), str) == 0

    def swap(text):
        head, _, tail = text.partition('"image/png": "')
        return f'{head}"image/png": "{other}{tail[tail.index(chr(34)) :]}'

    code = nbval(place, FIGURE.format(png=PNG), swap)
    ours = damaged(place, "notebook", lambda data: data.replace(b"holds", b"other", 1))
    return Seen(verdict(code), code == 0), ours


@fault("nbval", "another processor changes the last digit of a printed number")
def last_digit(place):
    text = PLAIN + "\n# %%\nprint(0.1 + 0.2)\n"
    code = nbval(place, text, lambda notebook: notebook.replace("0.30000000000000004", "0.30000000000000002"))
    place.ours()
    shutil.copytree(place.out, place.project / "results")
    source = place.project / "notebooks" / f"{NAME}.py"
    source.write_text(source.read_text().replace("factor * scale", "factor * scale + 3e-16"))
    ours, said = reproduce(place.project, place.out, NAME)
    agreed = re.findall("agrees with .*", said)
    return Seen(verdict(code), code != 0), Seen(f"exit code {ours}, {''.join(agreed)}", ours != 0)


@fault("nbval", "a progress bar on stderr")
def progress_bar(place):
    text = PLAIN + "\n# %%\nfrom tqdm import tqdm\nimport time\nfor _ in tqdm(range(3)): time.sleep(0.11)\n"
    code = nbval(place, text, lambda notebook: re.sub(r"(\d\.\d+)it/s", "1.00it/s", notebook))
    source = place.project / "notebooks" / f"{NAME}.py"
    source.write_text(STUB + text[text.index("\n# %%\nfrom tqdm") :])
    ours, said = place.ours()
    return Seen(verdict(code), code != 0), Seen(f"exit code {ours}, {said}", ours != 0)


def plain(seen: Seen) -> str:
    """What was seen, without run times."""
    return re.sub(r"finished in \d+ s", "executed again", seen.words).replace(f"{NAME}: ", "")


def run(names: tuple[str, ...] = ()) -> None:
    """Provoke every fault, each in a folder of its own, and record the table."""
    rows, harmed = [], Counter()
    for tool, what, function in FAULTS:
        if names and function.__name__ not in names:
            continue
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            theirs, ours = function(Place(Path(folder), lay_out_project(Path(folder))))
        harmed.update({tool: theirs.harm, "rlvr": ours.harm})
        rows.append(
            {"tool": tool, "fault": what, "what it does": plain(theirs), "what rlvr reproduce does": plain(ours)}
        )
        print(f"{tool}: {what}\n    {theirs}\n    {ours}", flush=True)
    counts = {"faults provoked": len(rows)} | {
        f"faults that got through: {tool}": count for tool, count in harmed.items()
    }
    record("faults", counts, rows)


if __name__ == "__main__":
    run(tuple(sys.argv[1:]))
