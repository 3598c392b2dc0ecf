"""The built book in a browser: math, alt text, links, and no request that leaves the machine."""

import functools
import http.server
import os
import re
import subprocess
import sys
import threading

import pytest
import yaml
from conftest import ROOT

from rlvr_lib.doctor import browser

pytestmark = pytest.mark.browser
PAGES = [
    line.split("file: ")[1].strip() for line in (ROOT / "book/_toc.yml").read_text().split("\n") if "file:" in line
]


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    out = tmp_path_factory.mktemp("book") / "built"
    built = subprocess.run(
        [sys.executable, ROOT / "book" / "build.py", "--out", out], capture_output=True, text=True, cwd=ROOT
    )
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    return out / "_build" / "html"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def address(html):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=html)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def chromium():
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
def visit(chromium, address):
    """Opens a page and waits for its math; fails on a console error, a missing file or an outside request."""
    troubles = []
    with chromium.new_page() as page:
        page.on("console", lambda m: troubles.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda r: troubles.append(r.url) if not r.url.startswith((address, "data:")) else None)
        page.on("response", lambda r: troubles.append(f"{r.status} {r.url}") if r.status >= 400 else None)

        def open_page(name):
            page.goto(f"{address}{name}.html")
            page.wait_for_load_state("networkidle")
            page.evaluate("() => window.MathJax ? MathJax.startup.promise : null")
            return page

        yield open_page
    assert troubles == []


@pytest.mark.parametrize("name", ["book/index", *PAGES])
def test_every_page_opens_offline_with_its_math_and_alt_text(visit, name):
    page = visit(name)
    assert page.locator("article h1").count() == 1
    raw, rendered = page.locator("span.math, div.math").count(), page.locator("mjx-container").count()
    assert rendered >= raw
    assert page.locator("mjx-merror").count() == 0
    prose = "[...document.querySelectorAll('article p, article li, article td')].map(e => e.innerText).join(' ')"
    assert "$" not in page.evaluate(prose)
    for picture in page.locator("article img").all():
        assert len(picture.get_attribute("alt") or "") >= 20, picture.get_attribute("src")


def test_theorems_are_numbered_and_references_resolve(visit):
    page = visit("notebooks/01_gap_alignment")
    titles = page.locator("div.proof.theorem .admonition-title").all_inner_texts()
    assert len(titles) >= 5
    assert all(re.match(r"Theorem \d+", title) for title in titles)
    assert "??" not in page.locator("article").inner_text()


def test_launch_buttons_lead_to_the_one_public_address(visit):
    page = visit("notebooks/01_gap_alignment")
    links = [link.get_attribute("href") for link in page.locator("a[href^='https://']").all()]
    address = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"].removeprefix(
        "https://github.com/"
    )
    for service in ("colab.research.google.com/github", "mybinder.org/v2/gh", "github.com"):
        assert any(link.startswith(f"https://{service}/{address}") for link in links), service


def test_ledger_lists_every_published_claim(visit):
    from rlvr_lib.results import finished_results

    claims = [claim for result in finished_results(ROOT / "results") for claim in result.claims()]
    text = visit("book/ledger").locator("article").inner_text()
    assert claims
    for claim in claims:
        assert claim.statement in text


def test_search_finds_a_word_of_the_book(visit):
    page = visit("search")
    page.goto(page.url + "?q=alignment")
    page.wait_for_selector("#search-results li")
    assert page.locator("#search-results li").count() >= 2


def test_dark_mode_keeps_a_light_ground_under_figures(chromium, address):
    with chromium.new_page(color_scheme="dark") as page:
        page.goto(f"{address}notebooks/01_gap_alignment.html")
        style = "e => getComputedStyle(e).backgroundColor"
        assert page.locator(".cell_output img").first.evaluate(style) == "rgb(255, 255, 255)"
