"""The built book, once for all tests of a run, and a browser that looks at it."""

import functools
import http.server
import os
import subprocess
import sys
import threading

import pytest
from conftest import ROOT
from filelock import FileLock

from rlvr_lib.cli import browser

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
