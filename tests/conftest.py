"""Shared fixtures: a small project of its own, so that reproduction is tested without running the chapters; the built
book, once for all tests of a run, and a browser that looks at it.
"""

import functools
import http.server
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import hypothesis
import pytest
from filelock import FileLock

from rlvr_lib.cli import browser
from rlvr_lib.testbeds.grpo import one_thread

# A busy machine is no reason to fail.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 1800
"""Seconds after which a process that a test started counts as hanging; a busy machine is no reason to fail."""


def slow_but(names, *fast):
    """Parameters of a test that all are slow but some."""
    return [pytest.param(name, marks=() if name in fast else pytest.mark.slow) for name in names]


STUB = """# %% tags=["parameters"]
profile: str = "book"  # label
seed: int = 0  # [0, 100] seed
scale: float = 1.0  # [0, 10] a factor
names: list[int] = [1, 2]  # [1, 9] some numbers
kind: str = "mean"  # {mean, median} a choice
pause: float = 0.0  # [0, 60] seconds to wait

# %%
import time

from rlvr_lib.claims import Ledger

time.sleep(pause)
ledger = Ledger(1, "P1", profile, [seed])


@ledger.claim(
    "1-none-stub",
    headline="One is {measured}.",
    statement="one is one",
    testbed="none",
    equals=1.0,
    within=1e-9,
    sabotages={"two": {"factor": 2.0}},
)
def one(factor=1.0):
    return factor * scale

# %%
ledger.publish()
"""


def lay_out_project(folder: Path) -> Path:
    """A project with two stub notebooks and a copy of the library's sources."""
    root = folder / "project"
    (root / "notebooks").mkdir(parents=True)
    for name in ("01_stub", "02_stub"):
        (root / "notebooks" / f"{name}.py").write_text(STUB)
    (root / "notebooks" / "profiles.yml").write_text(
        "book: {}\nsmoke:\n  all: {seed: 3}\n  02_stub: {scale: 1.0}\nbroken:\n  01_stub: {scale: 99}\n"
    )
    (root / "requirements.txt").write_text("numpy==2.4.6\n")
    shutil.copytree(ROOT / "rlvr_lib", root / "rlvr_lib", ignore=shutil.ignore_patterns("__pycache__"))
    return root


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a job that a shell put into the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # or what tests start would be deaf to interrupts


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread():
    with one_thread():
        yield


@pytest.fixture(scope="session")
def make_project():
    return lay_out_project


@pytest.fixture
def project(tmp_path):
    return lay_out_project(tmp_path)


sys.path.insert(0, str(ROOT / "book" / "_ext"))


@pytest.fixture(scope="session")
def built_html(tmp_path_factory, request):
    """The folder of the built pages; workers that run side by side share it."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if hasattr(request.config, "workerinput") else base
    out = base / "built-book"
    with FileLock(base / "built-book.lock"):
        if not (out / "done").exists():
            command = [sys.executable, ROOT / "book" / "build.py", "--out", out]
            built = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
            assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
            (out / "done").touch()
    return out / "_build" / "html"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="session")
def book_address(built_html):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=built_html)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def reader_browser():
    if browser() is None:
        assert "RLVR_REQUIRE_BROWSER" not in os.environ, "a browser is required here: install chromium"
        pytest.skip("NO BROWSER: the built book was not looked at; install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-background-networking"]
        instance = playwright.chromium.launch(executable_path=browser(), args=flags)
        yield instance
        instance.close()


@pytest.fixture
def visit(reader_browser, book_address):
    """Opens a page and waits for its math; fails on a console error, a missing file or an outside request."""
    troubles = []
    with reader_browser.new_page() as page:
        page.on("console", lambda m: troubles.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda r: troubles.append(r.url) if not r.url.startswith((book_address, "data:")) else None)
        page.on("response", lambda r: troubles.append(f"{r.status} {r.url}") if r.status >= 400 else None)

        def open_page(name, width=1300):
            page.set_viewport_size({"width": width, "height": 900})
            page.goto(f"{book_address}{name}.html")
            page.wait_for_load_state("networkidle")
            page.evaluate("() => window.MathJax ? MathJax.startup.promise : null")
            return page

        yield open_page
    assert troubles == []
