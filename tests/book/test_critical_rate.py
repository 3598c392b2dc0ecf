"""The live figure of chapter 2 in a browser: it runs without a network, and its factors are those of the library."""

import json
import os
import re

import numpy as np
import pytest
from conftest import ROOT

from rlvr_lib.cli import browser
from rlvr_lib.studies.threshold.bandit import peak_curvature
from rlvr_lib.theory.threshold import critical_learning_rate

pytestmark = pytest.mark.browser
LEVELS = [0.1, 0.5, 0.9]
SCRIPT = (ROOT / "book" / "_static" / "critical_rate.js").read_text()


@pytest.fixture(scope="module", params=[400, 1300])
def page(request):
    if browser() is None:
        assert "RLVR_REQUIRE_BROWSER" not in os.environ, "a browser is required here: install chromium"
        pytest.skip("NO BROWSER: the live figure was not looked at; install chromium")
    from playwright.sync_api import sync_playwright

    bell = [peak_curvature("aggregate", 1, J) for J in LEVELS]
    figure = f"<div class='rlvr-critical-rate' data-levels='{LEVELS}' data-bell='{json.dumps(bell)}'>a table</div>"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": request.param, "height": 700})
        page.troubles = []
        page.on("pageerror", lambda error: page.troubles.append(str(error)))
        page.on("request", lambda asked: page.troubles.append(asked.url))
        page.set_content(f"<script>{SCRIPT}</script>{figure}")
        yield page
        chromium.close()


def said(page):
    text = page.inner_text("[aria-live]")
    return [int(T) for T in re.findall(r"at (\d+) tokens in place of (\d+)", text)[0]], re.findall(
        r"\xd7 (\d+\.\d+)", text
    )


def factors(T, J, estimator, normalised):
    wrong = -np.expm1(np.log(J) / T)

    def rate(kind, success, length):
        return critical_learning_rate(
            success, peak_curvature(kind, length, success), estimator, length if normalised else None
        )

    kinds = ("aggregate", "every token", "every token", "own parameters")
    levels = (J, J, (1 - wrong) ** (2 * T), J)
    return [rate(kind, level, 2 * T) / rate(kind, J, T) for kind, level in zip(kinds, levels, strict=True)]


@pytest.mark.parametrize("estimator", ["grpo", "reinforce", "grpo/T", "reinforce/T"])
def test_the_figure_says_what_the_library_computes(page, estimator):
    page.select_option("select", estimator)
    for level in (1, 2, 0):
        page.evaluate("([i, v]) => { const s = document.querySelectorAll('input')[i]; s.value = v; }", [1, level])
        for exponent in (4, 8):
            page.focus("input >> nth=0")
            page.evaluate(
                "([i, v]) => { const s = document.querySelectorAll('input')[i]; s.value = v; }", [0, exponent - 1]
            )
            for _ in range(4):  # by the keyboard, a quarter of an octave each
                page.keyboard.press("ArrowRight")
            (long, short), found = said(page)
            assert (short, long) == (2**exponent, 2 ** (exponent + 1))
            kind, *normalised = estimator.split("/")
            expected = factors(short, LEVELS[level], kind, bool(normalised))
            np.testing.assert_allclose([float(value) for value in found], expected, atol=0.0051)
    assert page.troubles == []


def test_the_figure_fits_and_can_be_read(page):
    width = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = page.evaluate("[...document.querySelectorAll('svg text')].map((t) => t.getBoundingClientRect().toJSON())")
    frame = page.evaluate("document.querySelector('svg').getBoundingClientRect().toJSON()")
    for box in boxes:
        assert box["height"] >= 12
        assert frame["left"] - 1 <= box["left"] <= box["right"] <= frame["right"] + 1
    assert page.get_attribute("svg", "aria-label")
