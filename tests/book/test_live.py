"""The interactive figures in a browser, by keyboard at both widths: offline, and what they say is the library's."""

import os
import re

import numpy as np
import pytest
from conftest import ROOT

from rlvr_lib.cli import browser
from rlvr_lib.studies.threshold.bandit import peak_curvature
from rlvr_lib.testbeds.lines import TokenChain
from rlvr_lib.theory.advantages import group_gain, power_gain
from rlvr_lib.theory.baseline import baseline_loss, critical_energy_ratio, mean_baseline_loss
from rlvr_lib.theory.delay import delay_factor
from rlvr_lib.theory.relay import handoff_exponent, next_ratio, normalized_success
from rlvr_lib.theory.threshold import critical_learning_rate, critical_step

pytestmark = pytest.mark.browser
STATIC = ROOT / "book" / "_static"


@pytest.fixture(scope="module", params=[400, 1300])
def chromium_page(request):
    if browser() is None:
        assert "RLVR_REQUIRE_BROWSER" not in os.environ, "a browser is required here: install chromium"
        pytest.skip("NO BROWSER: the live figures were not looked at; install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": request.param, "height": 700}, has_touch=True)
        page.troubles = []
        page.on("pageerror", lambda error: page.troubles.append(str(error)))
        page.on("request", lambda asked: page.troubles.append(asked.url))
        yield page
        assert page.troubles == []
        chromium.close()


@pytest.fixture
def page(chromium_page, request):
    script, style = (STATIC / "live.js").read_text(), (STATIC / "live.css").read_text()
    kind = request.function.__name__.split("_")[1]
    figure = f"<div class='rlvr-live' data-live='{kind}'>words instead</div>"
    chromium_page.set_content(f"<!doctype html><style>{style}</style>{figure}<script>{script}</script>")
    yield chromium_page
    assert chromium_page.troubles == []
    assert "words instead" not in chromium_page.inner_text("body")
    width = chromium_page.viewport_size["width"]
    assert chromium_page.evaluate("document.documentElement.scrollWidth") <= width
    bare = "[...document.querySelectorAll('input, select')].filter((x) => !x.labels.length).length"
    assert chromium_page.evaluate(bare) == 0


def enter(page, label, value, nth=0):
    """Type into a field as a reader does."""
    page.get_by_label(label).nth(nth).focus()
    page.keyboard.press("Control+A")
    page.keyboard.type(str(value))


def choose(page, label, steps, nth=0):
    """Pick an option by arrow keys, from the first."""
    page.get_by_label(label).nth(nth).focus()
    page.keyboard.press("Home")
    for _ in range(steps):
        page.keyboard.press("ArrowDown")


def said(page):
    return page.inner_text("[aria-live]")


REWARDS = ("every token", "aggregate", "own parameters")
ESTIMATORS = ("rloo", "dr_grpo", "grpo", "grpo_sample")


def critical(reward, estimator, J, G, T, divided, delay=0):
    kind = "grpo" if estimator.startswith("grpo") else "reinforce"
    size = None if estimator == "rloo" else G
    bessel = estimator == "grpo_sample"
    length = T if divided else None
    return delay_factor(delay) * critical_learning_rate(J, peak_curvature(reward, T, J), kind, length, size, bessel)


SETTINGS = [
    # reward, from, to: estimator, J, G, T, divided, delay
    (0, (0, 0.5, 8, 256, False, 0), (3, 0.5, 8, 256, False, 0)),
    (0, (1, 0.2, 4, 64, False, 0), (2, 0.9, 16, 640, True, 8)),
    (1, (2, 0.7, 8, 100, True, 2), (0, 0.3, 2, 1000, False, 1)),
    (2, (3, 0.95, 64, 32, False, 16), (1, 0.05, 3, 4096, False, 0)),
]


@pytest.mark.parametrize("setting", SETTINGS)
def test_calculator_converts_as_the_library_does(page, setting):
    reward, *sides = setting
    choose(page, "what is right", reward)
    enter(page, "your learning rate", "0.002")
    for nth, (estimator, J, G, T, divided, delay) in enumerate(sides):
        choose(page, "estimator", estimator, nth)
        enter(page, "success rate J", J, nth)
        enter(page, "group size G", G, nth)
        enter(page, "tokens T", T, nth)
        enter(page, "updates of delay k", delay, nth)
        if divided:
            page.get_by_label("divided by the length").nth(nth).focus()
            page.keyboard.press("Space")
    new, factor = map(float, re.findall(r"Set (\S+), which is (\S+) times", said(page))[0])
    old, now = (critical(REWARDS[reward], ESTIMATORS[side[0]], *side[1:]) for side in sides)
    np.testing.assert_allclose(factor, now / old, rtol=6e-3 if now / old < 1e-3 else 6e-4)
    np.testing.assert_allclose(new, 0.002 * now / old, rtol=6e-3)
    parts = [float(part) for part in re.findall(r"\xd7 (\S+)", page.inner_text("ul"))]
    np.testing.assert_allclose(np.prod(parts), now / old, rtol=2e-2)
    (_, J, G, *_), (_, J2, G2, *_) = sides
    gains = [
        power_gain(J, 0),
        group_gain(J, G, False),
        group_gain(J, G),
        group_gain(J, G, bessel=True),
        power_gain(J2, 0),
        group_gain(J2, G2, False),
        group_gain(J2, G2),
        group_gain(J2, G2, bessel=True),
    ]
    np.testing.assert_allclose(parts[0], gains[sides[0][0]] / gains[4 + sides[1][0]], rtol=6e-4)


def test_calculator_keeps_the_token_error_by_touch_and_refuses_what_is_no_rate(page):
    page.get_by_label("same token error").tap()
    enter(page, "tokens T", 512, 1)
    factor, J = map(float, re.findall(r"is (\S+) times your rate, at a success of (\S+)\.", said(page))[0])
    assert J == 0.25
    expected = critical("every token", "grpo_sample", 0.25, 8, 512, False) / critical(
        "every token", "rloo", 0.5, 8, 256, False
    )
    np.testing.assert_allclose(factor, expected, rtol=6e-4)
    enter(page, "success rate J", 1.5)
    assert said(page).startswith("success rate J: ")
    assert "Set" not in said(page)


def numbers(page):
    return [float(x) for x in re.findall(r"-?\d+(?:\.\d+)?(?:e[+-]\d+)?", said(page))]


def picture_is_read(page):
    """Words of the picture lie in it and are large enough, and so is the point."""
    boxes = page.evaluate(
        "[...document.querySelectorAll('svg text, circle')].map((t) => t.getBoundingClientRect().toJSON())"
    )
    frame = page.evaluate("document.querySelector('svg').getBoundingClientRect().toJSON()")
    for box in boxes:
        assert box["height"] >= 11
        assert frame["left"] - 1 <= box["left"] <= box["right"] <= frame["right"] + 1
        assert frame["top"] - 1 <= box["top"] <= box["bottom"] <= frame["bottom"] + 1


@pytest.mark.parametrize(("J", "x"), [(0.75, 17), (0.5, 2.5), (0.98, 50), (0.02, 0.05), (0.9, 4000)])
def test_baseline_prices_are_those_of_the_library(page, J, x):
    enter(page, "success rate J", J)
    enter(page, "energy ratio x", x)
    words, edge = said(page), critical_energy_ratio(J)
    assert words.startswith("The zero baseline" if x > edge else "The mean")
    best = J / (J + (1 - J) * x)
    assert baseline_loss(J, x, best) == pytest.approx(1)
    expected = [x, edge, mean_baseline_loss(J, x), baseline_loss(J, x, 0.0), best]
    np.testing.assert_allclose(numbers(page), expected, rtol=6e-3)
    picture_is_read(page)


@pytest.mark.parametrize(
    ("P", "chance", "R", "G", "n"), [(0.8, 0, 9, 8, 16), (0.6, 1 / 6, 3, 4, 64), (0.95, 0.25, 20, 16, 1)]
)
def test_relay_chances_are_those_of_the_library(page, P, chance, R, G, n):
    enter(page, "success at this level", P)
    enter(page, "success of a blind guess", chance)
    enter(page, "ratio R", R)
    enter(page, "group size G", G)
    enter(page, "prompts a batch", n)
    y = normalized_success(P, round(1 / chance)) if chance else P
    later = y ** handoff_exponent(R)
    right = chance + (1 - chance) * later
    group = 1 - right**G - (1 - right) ** G
    expected = [y, later, R, group, 1 - (1 - group) ** n, next_ratio(y, 0.1)]
    np.testing.assert_allclose(numbers(page), expected, rtol=6e-3)
    picture_is_read(page)


def test_relay_says_nothing_of_success_below_chance(page):
    enter(page, "success of a blind guess", 0.9)
    assert said(page).startswith("Success is not above")


@pytest.mark.parametrize(("start", "steps"), [(-2.0, 15), (-0.5, 20), (-3.0, 70), (-1.0, 20)])
def test_parabola_steps_as_the_library_does(page, start, steps):
    page.get_by_label("start x").focus()
    page.keyboard.press("Home")
    for _ in range(round((start + 3) * 10)):
        page.keyboard.press("ArrowRight")
    page.get_by_label("length of the step").focus()
    page.keyboard.press("Home")
    for _ in range(steps):
        page.keyboard.press("ArrowRight")
    chain, h = TokenChain.with_peak(1, 0.9), steps / 10
    here, after = chain.along(start), chain.along(start + h)
    predicted = float(critical_step(here.success, here.gap, here.curvature))
    local = here.success * np.exp(here.slope * h - here.curvature * h**2 / 2)
    turns = "leaves" if h == -2 * start else "raises" if h < -2 * start else "lowers"
    assert f" {turns} success" in said(page)
    expected = [h, here.success, after.success, local, -2 * start, predicted, predicted / 2]
    if turns == "leaves":
        del expected[1]
    np.testing.assert_allclose(numbers(page), expected, rtol=6e-3)
    picture_is_read(page)
