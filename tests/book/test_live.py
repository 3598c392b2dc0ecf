"""The interactive figures in a browser, by keyboard and touch at two widths: their numbers are the library's."""

import os

import numpy as np
import pytest
from conftest import ROOT

from rlvr_lib.cli import browser
from rlvr_lib.studies.threshold.bandit import peak_curvature
from rlvr_lib.theory.advantages import group_gain

pytestmark = pytest.mark.browser
STATIC = ROOT / "book" / "_static"


@pytest.fixture(scope="module", params=[400, 1300])
def page(request):
    if browser() is None:
        assert "RLVR_REQUIRE_BROWSER" not in os.environ, "a browser is required here: install chromium"
        pytest.skip("NO BROWSER: the live figures were not looked at; install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": request.param, "height": 800}, has_touch=True)
        page.troubles = []
        page.on("pageerror", lambda error: page.troubles.append(str(error)))
        page.on("request", lambda asked: page.troubles.append(asked.url))
        yield page
        chromium.close()


def show(page, figure, attributes=""):
    page.set_content(f"<div class='rlvr-live' data-figure='{figure}' {attributes}>a table</div>")
    page.add_script_tag(content=(STATIC / "live.js").read_text())


def write(page, name, value):
    """By touch into the field, then by the keyboard."""
    page.tap(f"[data-name='{name}']")
    page.keyboard.press("Control+a")
    page.keyboard.type(f"{value}")


def gain(kind, J, G):
    if kind == "rloo":
        return J * (1 - J)
    return group_gain(J, G, normalize=kind != "dr_grpo", bessel=kind == "grpo_trl")


KINDS = {"count": "aggregate", "every": "every token", "error": "every token", "own": "own parameters"}


@pytest.mark.parametrize("old, new", [("rloo", "grpo_trl"), ("grpo", "dr_grpo"), ("dr_grpo", "grpo")])
@pytest.mark.parametrize("reward", KINDS)
def test_the_calculator_converts_as_the_library_does(page, old, new, reward):
    show(page, "calculator")
    (J0, J1), (G0, G1), (T0, T1) = (0.4, 0.9), (4, 16), (100, 300)
    page.select_option("[data-name=reward]", reward)
    page.select_option("[data-name=old-estimator]", old)
    page.select_option("[data-name=new-estimator]", new)
    page.select_option("[data-name=new-divided]", "yes")
    fields = {"rate": 2e-5, "old-success": J0, "old-group": G0, "new-group": G1, "old-length": T0, "new-length": T1}
    if reward == "error":
        assert page.is_disabled("[data-name=new-success]")
        J1 = J0 ** (T1 / T0)
    else:
        fields["new-success"] = J1
    for name, value in fields.items():
        write(page, name, value)

    def rate(kind, J, G, T, tokens):
        return 2 * (1 - J) * tokens / (gain(kind, J, G) * peak_curvature(KINDS[reward], T, J))

    expected = 2e-5 * rate(new, J1, G1, T1, T1) / rate(old, J0, G0, T0, 1)
    printed = float(page.get_attribute("[data-rate]", "data-rate"))
    np.testing.assert_allclose(printed, expected, rtol=1e-9)
    np.testing.assert_allclose(float(page.inner_text("[data-rate]").split()[-1]), expected, rtol=6e-3)
    factors = [float(cell.get_attribute("data-factor")) for cell in page.query_selector_all("[data-factor]")]
    np.testing.assert_allclose(2e-5 * np.prod(factors), expected, rtol=1e-9)
    np.testing.assert_allclose(factors[0], gain(old, J0, G0) / gain(new, J0, G1), rtol=1e-9)
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    assert page.troubles == []


def test_the_calculator_steps_by_arrow_keys_and_refuses_what_is_no_rate(page):
    show(page, "calculator")
    page.focus("[data-name=new-group]")
    page.keyboard.press("ArrowUp")
    assert page.input_value("[data-name=new-group]") == "9"
    printed = float(page.query_selector("[data-factor]").get_attribute("data-factor"))
    np.testing.assert_allclose(printed, 0.25 / gain("grpo_trl", 0.5, 9), rtol=1e-9)
    for name, value in {"old-success": 1, "rate": -1, "new-group": 1, "old-length": 0}.items():
        before = page.input_value(f"[data-name={name}]")
        write(page, name, value)
        assert page.inner_text("[aria-live]").startswith("No rate:")
        write(page, name, before)
        assert page.inner_text("[aria-live]").startswith("New rate")


def test_a_delay_is_asked_for_only_where_the_page_says_so(page):
    show(page, "calculator")
    assert page.query_selector("[data-name=delay]") is None
    before = float(page.get_attribute("[data-rate]", "data-rate"))
    show(page, "calculator", "data-delay")
    write(page, "delay", 3)
    after = float(page.get_attribute("[data-rate]", "data-rate"))
    np.testing.assert_allclose(after / before, np.sin(np.pi / 14), rtol=1e-9)
