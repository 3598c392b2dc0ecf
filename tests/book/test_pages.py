"""The built book in a browser: math, alt text, links, and no request that leaves the machine."""

import io
import re
from importlib import import_module

import pytest
import yaml
from conftest import ROOT, slow_but
from PIL import Image

outputs = import_module("outputs")  # book/_ext by conftest
pytestmark = pytest.mark.browser
PAGES = [
    line.split("file: ")[1].strip() for line in (ROOT / "book/_toc.yml").read_text().split("\n") if "file:" in line
]


TOO_WIDE = """([smallest, cards]) => {
  const article = document.querySelector("article"), column = article.getBoundingClientRect();
  const found = [], said = [], words = document.createRange();
  const say = (element, what) => {
    if (said.some(other => other.contains(element))) return;
    said.push(element);
    const text = (element.matches("mjx-container") ? element.textContent : element.innerText) || element.alt || "";
    const start = [...text.replace(/\\s+/g, " ").trim()].slice(0, 60).join("");
    found.push(`${[element.tagName.toLowerCase(), ...element.classList].join(".")} ${what}: ${start}`);
  };
  for (const element of article.querySelectorAll("*")) {
    if (element.closest("pre, mjx-container *, svg *, .headerlink") || !element.checkVisibility()) continue;
    const box = element.getBoundingClientRect(), room = element.clientWidth;
    const texts = [...element.childNodes].filter(child => child.nodeType === Node.TEXT_NODE && child.data.trim());
    const boxes = [box, ...texts.map(text => (words.selectNode(text), words.getBoundingClientRect()))];
    const scale = parseFloat(element.style.fontSize) / element.dataset.size;
    const scrolls = getComputedStyle(element).overflowX !== "visible" && !element.querySelector(":scope > pre");
    const out = boxes.find(box => box.right > column.right + 1 || box.left < column.left - 1);
    if (out)
      say(element, `sticks out, ${Math.round(out.width)} px in ${Math.round(column.width)} px`);
    else if (scrolls && room && element.scrollWidth > room + 1)
      say(element, `is cut, ${element.scrollWidth} px in ${room} px`);
    else if (element.matches("mjx-container") && scale < smallest)
      say(element, `is shrunk to ${Math.round(scale * 100)}%, ${Math.round(box.width / scale)} px in ${room} px`);
    else if (element.matches(".rlvr-cards") && !cards)
      say(element, "has been made into cards");
  }
  const page = document.scrollingElement;
  if (!found.length && page.scrollWidth > page.clientWidth) say(page, `scrolls sideways, ${page.scrollWidth} px`);
  return found;
}"""
SMALLEST = {1300: 0.9, 400: 0.5}  # of its size, that a formula may shrink to at a window's width


def too_wide(page, width):
    """What of an article does not fit its column at a window's width; code may scroll, on a phone tables be cards."""
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_function("() => (a => a.dataset.fitted == a.clientWidth)(document.querySelector('article'))")
    return page.evaluate(TOO_WIDE, [SMALLEST[width], width < 600])


CAPTIONS = """() => [...document.querySelectorAll("article .cell_output img")].map(
  picture => [picture.alt, picture.closest("figure")?.querySelector("figcaption")?.textContent || "no caption"])"""


@pytest.mark.parametrize("name", ["book/index", *PAGES])
def test_every_page_opens_offline_with_its_math_and_captions_and_nothing_cut(visit, name):
    page = visit(name)
    assert page.locator("article h1").count() == 1
    raw, rendered = page.locator("span.math, div.math").count(), page.locator("mjx-container").count()
    assert rendered >= raw
    assert page.locator("mjx-merror").count() == 0
    prose = "[...document.querySelectorAll('article p, article li, article td')].map(e => e.innerText).join(' ')"
    assert "$" not in page.evaluate(prose)
    for picture in page.locator("article img").all():
        assert len(picture.get_attribute("alt") or "") >= 20, picture.get_attribute("src")
    number = outputs.number(name, PAGES)
    for at, (alt, caption) in enumerate(page.evaluate(CAPTIONS), 1):
        assert caption.strip().startswith(f"Figure {number}.{at} "), caption
        assert len(caption) > 20, alt
    assert too_wide(page, 1300) == []
    assert too_wide(page, 400) == []


BROKEN = {
    "a block": "<div style='width: 2000px'>wide</div>",
    "a picture": "<p><img src='../_static/favicon.svg' style='width: 2000px; max-width: none' alt='wide'></p>",
    "a word": f"<p>{'wide' * 200}</p>",
    "a table without a head": "<table><tr>" + "<td>wide cell</td>" * 60 + "</tr></table>",
    "a table that scrolls": "<div style='overflow-x: auto'><table><tr>" + "<td>wide</td>" * 99 + "</tr></table></div>",
    "a table that became cards": "<table class='rlvr-cards'><tr><td>wide</td></tr></table>",
    "a formula in small print": "<p><mjx-container data-size='100' style='font-size: 40%'>wide</mjx-container></p>",
    "a formula that is cut": "<div style='overflow: hidden; white-space: nowrap'>" + "wide + " * 200 + "</div>",
    "a block to the left": "<div style='width: 100px; margin-left: -80px'>wide</div>",
}


INSERT = "html => document.querySelector('article section').insertAdjacentHTML('beforeend', html)"


def test_what_does_not_fit_is_found(visit):
    page = visit("book/limits")
    assert too_wide(page, 1300) == []
    for broken, html in BROKEN.items():
        page.evaluate(INSERT, f"<div id='broken'>{html}</div>")
        found = too_wide(page, 1300)
        assert len(found) == 1, broken
        assert "wide" in found[0], broken
        page.evaluate("document.getElementById('broken').remove()")
    assert too_wide(page, 1300) == []


def test_code_may_scroll(visit):
    page = visit("book/limits")
    page.evaluate(INSERT, f"<div class='highlight'><pre>{'wide = 1; ' * 200}</pre></div>")
    assert too_wide(page, 400) == []


def test_a_wide_table_becomes_cards_on_a_phone_and_back(visit):
    page = visit("book/status")
    assert page.locator("table.rlvr-cards").count() == 0
    assert too_wide(page, 400) == []
    cell = page.locator("table.rlvr-cards td").nth(1)
    assert cell.get_attribute("data-label") == "profile"
    assert too_wide(page, 1300) == []
    assert page.locator("table.rlvr-cards").count() == 0


def test_a_wide_formula_shrinks_on_a_phone(visit):
    page = visit("notebooks/01_gap_alignment")
    assert too_wide(page, 400) == []
    scales = "[...document.querySelectorAll('mjx-container')].map(m => parseFloat(m.style.fontSize) / m.dataset.size)"
    assert 0.5 <= min(page.evaluate(scales)) < 0.95


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
    from rlvr_lib.reproduction.results import finished_results

    claims = [claim for result in finished_results(ROOT / "results") for claim in result.claims()]
    page = visit("book/ledger")
    text = page.locator("article").text_content()
    links = page.evaluate("() => Object.fromEntries([...document.querySelectorAll('details.rlvr-row a')].map("
                          "link => [link.textContent, link.href]))")  # fmt: skip
    address = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]
    assert claims
    for claim in claims:
        assert claim.statement in text
        assert claim.headline in text
        assert page.locator(f"[id='claim-{claim.id}']").count() == 1
        assert links[claim.id].startswith(f"{address}/blob/main/{claim.code.module}#L")


def test_a_printed_sentence_stands_once_on_the_findings(visit):
    from rlvr_lib.claims import papers

    page = visit("book/findings")
    article = page.locator("article").inner_text()
    for key, sentence in papers().items():
        if "." in key:
            assert article.count(sentence.says) == 1, key
    verdicts = page.locator("table.rlvr-findings tbody > tr > td:first-child").all_inner_texts()
    allowed = {"Contradicted", "Not reproduced", "Limited", "Sharpened", "Confirmed"}
    assert len(verdicts) > 30
    quoted = page.locator("table.rlvr-findings tbody > tr > td:nth-child(3) > p > strong")
    assert quoted.count() == len(verdicts)
    assert set(verdicts) <= allowed


def test_search_finds_a_word_of_the_book(visit):
    page = visit("search")
    page.goto(page.url + "?q=alignment")
    page.wait_for_selector("#search-results li")
    assert page.locator("#search-results li").count() >= 2


CONTRAST = """element => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => numbers(colour).slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
  let ground = element;
  const clear = element => numbers(getComputedStyle(element).backgroundColor)[3] === 0;
  while (ground.parentElement && clear(ground)) ground = ground.parentElement;
  const both = [getComputedStyle(element).color, getComputedStyle(ground).backgroundColor].map(light);
  return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
}"""


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_figures_follow_the_theme_and_captions_and_tables_are_legible(reader_browser, book_address, scheme):
    with reader_browser.new_page(color_scheme=scheme) as page:
        page.goto(f"{book_address}notebooks/01_gap_alignment.html")
        turned = page.locator(".cell_output img").first.evaluate("e => getComputedStyle(e).filter")
        assert ("invert" in turned) == (scheme == "dark")
        for part in (".cell_output figcaption", ".rlvr-claim", "article table td", "article table th"):
            assert page.locator(part).first.evaluate(CONTRAST) >= 4.5, part
        page.goto(f"{book_address}book/ledger.html")
        for part in ("details.rlvr-row dt", "details.rlvr-row dd"):
            assert page.locator(part).first.evaluate(CONTRAST) >= 4.5, part


@pytest.mark.parametrize("name", slow_but(["book/index", *PAGES], "book/index", "notebooks/01_gap_alignment"))
def test_no_picture_is_a_white_slab_in_the_dark(reader_browser, book_address, name):
    with reader_browser.new_page(color_scheme="dark", viewport={"width": 1300, "height": 900}) as page:
        page.goto(f"{book_address}{name}.html")
        page.wait_for_load_state("networkidle")
        for picture in page.locator("article :is(figure, .cell_output) :is(img, object, svg.main-svg)").all():
            if picture.is_visible():
                shot = Image.open(io.BytesIO(picture.screenshot())).convert("L")
                edges = [shot.getpixel(at) for at in ((2, 2), (shot.width - 3, 2), (2, shot.height - 3))]
                assert max(edges) < 128, (picture.get_attribute("alt") or "")[:80]
