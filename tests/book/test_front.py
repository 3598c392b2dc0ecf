"""The pages around the chapters say what is so: numbers by hand, reading times, terms, exercises, reach and print."""

import gzip
import re
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import numpy as np
import pytest
import yaml
from conftest import ROOT, slow_but

from rlvr_lib import Responses, gradient_gap, policy_gradient, success_rate
from rlvr_lib.reproduction.notebooks import notebook_names, read_source
from rlvr_lib.theory.advantages import group_advantages

sys.path.insert(0, str(ROOT / "book"))
landing_figure, pages = import_module("landing_figure"), import_module("pages")  # book/ and, by conftest, book/_ext

PRIMER = (ROOT / "book" / "primer.md").read_text()
NAMES = ["book/index", *re.findall(r"file: (\S+)", (ROOT / "book" / "_toc.yml").read_text())]
CHAPTERS = [name for name in NAMES if name.startswith("notebooks/0")]
REPOSITORY = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]
SITE = "https://{}.github.io/{}/".format(*REPOSITORY.split("/")[-2:])


def test_the_first_picture_shows_what_its_words_say():
    runs = {multiple: np.array(landing_figure.success_by_update(multiple)) for multiple in landing_figure.RATES}
    words = (ROOT / "book" / "index.md").read_text().split(":alt:")[1].split("\n")[0]
    assert "over 24 updates" in words
    for multiple in (0.1, 0.5):
        assert (np.diff(runs[multiple]) > -1e-12).all()
        assert abs(runs[multiple][-1] - 0.9) < 2e-3
    assert f"{runs[1.1][-1]:.2f}" == "0.82"
    assert "stays at 0.82" in words
    swings = runs[1.5][1:]
    assert f"swings between {swings.min():.2f} and {swings.max():.2f}" in words
    assert (runs[3.0][1:] < 1e-6).all()


def test_the_example_of_the_primer_is_right():
    rows = re.findall(r"^\| ([A-D]) \| \$([\d.]+)\$ \| \$([01])\$ \| \$\((.+?), (.+?)\)\$ \|$", PRIMER, re.M)
    prob, reward, *score = np.array([row[1:] for row in rows], float).T
    four = Responses(reward=reward, score=np.stack(score, 1), prob=prob)
    assert len(four.reward) == 4
    assert np.allclose(four.prob @ four.score, 0)
    assert np.allclose(four.score, landing_figure.FOUR.score)
    assert np.allclose(four.prob, landing_figure.FOUR.prob)
    J, D = success_rate(four), gradient_gap(four)
    assert np.isclose(J, 0.4)
    assert np.allclose(D, [5 / 3, 5 / 6])
    assert np.allclose(policy_gradient(four), [0.4, 0.2])
    assert np.allclose(policy_gradient(four), J * (1 - J) * D)
    tilted = four.prob * np.exp(0.1 * four.score @ D / np.linalg.norm(D))
    exact = tilted[four.reward == 1].sum() / tilted.sum()
    odds = np.log(J / (1 - J))
    first_order = odds + 0.1 * np.linalg.norm(D)
    for number in (f"{np.linalg.norm(D):.2f}", f"{odds:.3f}", f"{first_order:.3f}", f"{exact:.3f}",
                   f"{1 / (1 + np.exp(-first_order)):.3f}"):  # fmt: skip
        assert f"${number}$" in PRIMER or f"= {number}$" in PRIMER, number


def test_the_group_of_the_primer_is_right():
    reward, score = np.array([1.0, 0, 0, 0]), landing_figure.FOUR.score[[0, 2, 2, 3]]
    rows = {
        "REINFORCE with $b = J$": reward - 0.4,
        "Dr. GRPO": group_advantages(reward, "dr_grpo"),
        "RLOO": group_advantages(reward, "rloo"),
        "GRPO": group_advantages(reward, "grpo"),
    }
    for name, advantage in rows.items():
        printed = re.search(
            rf"^\| {re.escape(name)} \| \$(.+?)\$ \| \$(.+?)\$ \| \$\((.+?), (.+?)\)\$ \|$", PRIMER, re.M
        )
        expected = [advantage[0], advantage[1], *(advantage @ score / 4)]
        assert np.allclose(np.array(printed.groups(), float), expected, atol=6e-4), name


def test_trl_has_the_names_that_the_primer_gives():
    folder = Path(find_spec("trl").submodule_search_locations[0]) / "trainer"
    fields = (folder / "grpo_config.py").read_text()
    logged = (folder / "grpo_trainer.py").read_text()
    table = PRIMER.split("## The same things in TRL")[1].split("\n## ")[0]
    names = set(re.findall(r"(?<!\})`([a-z_]+)(?:=[^`]*)?`", table))
    assert len(names) > 6
    for name in names:
        assert re.search(rf"^    {name}:", fields, re.M) or f'"{name}"' in logged, name


def test_every_exercise_of_the_chapters_is_listed():
    listed, stated = [], []
    for name in notebook_names(ROOT / "notebooks"):
        listed += [label for _, label, _ in pages.exercises(ROOT / "notebooks" / f"{name}.ipynb")]
        text = "\n".join(cell.source for cell in read_source(ROOT / "notebooks" / f"{name}.py").cells)
        stated += re.findall(r"\{exercise(?:-start)?\}.*\n:label: (\S+)", text)
    assert len(listed) >= 15
    assert listed == stated


def test_the_citation_has_what_its_format_asks_for_and_the_papers_of_the_book():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "license", "repository-code"} <= set(cited)
    assert cited["repository-code"] == REPOSITORY
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", cited["date-released"])
    assert all({"type", "title", "authors", "year"} <= set(paper) for paper in cited["references"])
    bibliography = (ROOT / "book" / "references.bib").read_text()
    for paper in cited["references"]:
        number = paper["url"].rsplit("/", 1)[1]
        assert number in bibliography
        assert {"type": "other", "value": f"arXiv:{number}"} in paper["identifiers"]


def test_words_that_are_not_read_are_not_counted():
    page = (
        "<article><h1>Two words</h1>\n<p>three more words <span class='math'>x = 1</span></p>\n<pre>code here</pre>"
        "<details><summary>Proof</summary><p>folded away</p></details><div class='cell_output'><div>printed"
        "<figure><img><figcaption>a caption</figcaption></figure></div></div><p>- … -</p></article>"
    )
    assert pages.words(page) == 7
    assert pages.minutes(1) == "1 minute"
    assert pages.minutes(201) == "2 minutes"


RECOUNT = """skipped => {
  const article = document.querySelector("article").cloneNode(true);
  for (const output of article.querySelectorAll(".cell_output"))
    output.replaceChildren(...output.querySelectorAll("figcaption, .rlvr-claim"));
  article.querySelectorAll(skipped).forEach(part => part.remove());
  return article.textContent.split(/\\s+/).filter(word => /[\\p{L}\\p{N}]/u.test(word)).length;
}"""
SKIPPED = (
    "pre, script, style, .math, mjx-container, .headerlink, .cell_input, details, .dropdown, .toggle-details, dl.py,"
    " div.citation, .rlvr-minutes, .rlvr-live, table.rlvr-table:not(.rlvr-findings), button"
)


@pytest.mark.browser
def test_reading_times_are_those_of_the_words_on_the_page(visit):
    times = {}
    for name in NAMES:
        page = visit(name)
        said = page.locator("article h1 + .rlvr-minutes").inner_text()
        time, words, rate = re.fullmatch(r"(\d+) minutes? to read: ([\d,]+) words at (\d+) a minute\.", said).groups()
        words, rate, counted = int(words.replace(",", "")), int(rate), page.evaluate(RECOUNT, SKIPPED)
        assert abs(words - counted) <= 0.02 * counted + 5, (name, words, counted)
        assert int(time) == max(1, -(-words // rate)), name
        times[name] = words
    index = visit("book/index").locator("article").inner_text()
    chapters = sum(words for name, words in times.items() if re.match(r"notebooks/0", name))
    assert f"the five chapters {-(-chapters // 200)} minutes" in index
    assert page.locator("[data-reading]").count() == 0


@pytest.mark.browser
@pytest.mark.parametrize("width", [1300, 400])
def test_a_term_shows_its_meaning_to_pointer_and_keyboard(visit, width):
    page = visit("book/primer", width)
    meaning = page.locator("dt#term-gradient-gap + dd").inner_text()
    for name in ("book/notation", "notebooks/02_step_threshold"):
        page = visit(name, width)
        link, tip = page.locator("article a[href$='#term-gradient-gap']").first, page.locator("#rlvr-tip")
        assert not tip.is_visible()
        link.focus()
        assert tip.inner_text() == meaning
        assert link.get_attribute("aria-describedby") == tip.get_attribute("id")
        box = tip.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        page.keyboard.press("Escape")
        assert not tip.is_visible()
        link.hover()
        assert tip.is_visible()
        tip.hover()
        page.wait_for_timeout(400)
        assert tip.is_visible()  # one may move onto it
        page.mouse.move(0, 0)
        page.wait_for_timeout(400)
        assert not tip.is_visible()


@pytest.mark.browser
def test_every_term_link_has_a_meaning_and_stands_once_where_it_found_itself(built_html):
    linked = set()
    for name in NAMES:
        text = (built_html / f"{name}.html").read_text()
        links = re.findall(r'<a class="([^"]*)" href="[^"#]*#(term-[^"]+)"([^>]*)>', text.split("<article", 1)[1])
        links = [link for link in links if link[0] != "headerlink"]
        assert all(re.search(r'data-term="[^"]{10,}"', rest) for _, _, rest in links), name
        own = [anchor for classes, anchor, _ in links if "rlvr-term" in classes]
        assert len(own) == len(set(own)), name
        linked |= set(own)
    assert len(linked) > len(pages.FOUND_BY_THEMSELVES) / 2


@pytest.mark.browser
def test_the_list_of_exercises_leads_to_them(built_html):
    article = (built_html / "book" / "exercises.html").read_text().split("<article", 1)[1]
    links = re.findall(r'href="\.\./(notebooks/[\w/]+\.html)#(ex-[\w-]+)"', article)
    labels = [
        (f"notebooks/{name}.html", label)
        for name in notebook_names(ROOT / "notebooks")
        for _, label, _ in pages.exercises(ROOT / "notebooks" / f"{name}.ipynb")
    ]
    assert links == labels
    for page, label in links:
        assert f'id="{label}"' in (built_html / page).read_text()


@pytest.mark.browser
def test_the_first_page_is_light(visit, built_html, book_address):
    asked = []
    page = visit("book/limits")  # anything but the first page, for its fixture
    page.context.clear_cookies()
    page.on("response", lambda response: asked.append(response.url))
    visit("book/index")
    files = [built_html / url.removeprefix(book_address).split("?")[0] for url in dict.fromkeys(asked)]
    packed = {".png", ".woff2", ".woff"}  # what a server sends as it is; all else goes out compressed
    weight = sum(
        len(file.read_bytes() if file.suffix in packed else gzip.compress(file.read_bytes())) for file in files
    )
    assert len(files) > 15
    assert weight < 500_000, weight
    assert not any("mathjax" in file.parts or file.name == "fontawesome.js" for file in files)
    assert page.locator(".mjx-container, mjx-container, .math").count() == 0


@pytest.mark.browser
def test_every_page_can_be_shown_elsewhere_and_found(built_html):
    sitemap = ElementTree.parse(built_html / "sitemap.xml")
    addresses = {node.text for node in sitemap.iter() if node.tag.endswith("loc")}
    assert {f"{SITE}{name}.html" for name in NAMES} <= addresses
    for name in NAMES:
        head = (built_html / f"{name}.html").read_text().split("</head>")[0]
        tags = dict(re.findall(r'<meta (?:property|name)="([^"]+)" content="([^"]*)"', head))
        assert tags["og:url"] == f"{SITE}{name}.html"
        assert tags["og:image"] == f"{SITE}_static/card.png"
        assert tags["twitter:card"] == "summary_large_image"
        assert tags["og:title"]
        assert tags["og:site_name"] == "The theory of RLVR, re-runnable"
        if "index" in name or "notebooks/0" in name:
            assert len(tags["description"]) > 80
    card = (built_html / "_static" / "card.png").read_bytes()
    assert [int.from_bytes(card[at : at + 4]) for at in (16, 20)] == [1200, 630]
    assert len(card) < 300_000


@pytest.mark.browser
def test_every_notebook_can_be_downloaded(visit, built_html):
    for name in notebook_names(ROOT / "notebooks"):
        page = visit(f"notebooks/{name}")
        link = page.locator("a.btn-download-source-button").get_attribute("href")
        notebook = (built_html / "notebooks" / name).parent / link
        content = nbformat.read(notebook, nbformat.NO_CONVERT)
        nbformat.validate(content)  # what Colab and Binder open
        assert content.cells


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", slow_but(NAMES, "book/index", "book/ledger", "notebooks/02_step_threshold"))
def test_a_page_has_no_serious_barrier(reader_browser, book_address, name, scheme):
    from axe_playwright_python.sync_playwright import Axe

    with reader_browser.new_page(color_scheme=scheme) as page:
        page.goto(f"{book_address}{name}.html")
        page.wait_for_load_state("networkidle")
        found = Axe().run(page).response["violations"]
        serious = [fault for fault in found if fault["impact"] in ("serious", "critical")]
        assert not serious, [(fault["id"], len(fault["nodes"]), fault["nodes"][0]["html"][:300]) for fault in serious]


CUT = """() => [...document.querySelectorAll("article :is(p, li, figure, img, table, mjx-container, .rlvr-claim)")]
  .filter(part => part.checkVisibility() && !part.closest("pre, mjx-container mjx-container"))
  .filter(part => part.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(part => `${part.tagName} ${part.className} ${part.textContent.slice(0, 60)}`)"""


@pytest.mark.browser
@pytest.mark.parametrize("name", slow_but(CHAPTERS, "notebooks/01_gap_alignment"))
def test_a_chapter_prints_without_code_and_without_loss(visit, name):
    page = visit(name, 704)  # what the margins of a sheet of A4 leave
    page.evaluate("() => MathJax.startup.promise")
    proofs = page.locator("article details.sd-dropdown")
    assert not any(proof.evaluate("p => p.open") for proof in proofs.all())
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    assert all(proof.evaluate("p => p.open") for proof in proofs.all())
    page.wait_for_timeout(500)
    for hidden in (
        ".bd-header-article",
        ".bd-sidebar-primary",
        ".bd-sidebar-secondary",
        ".cell_input",
        "footer",
        ".headerlink",
    ):
        assert not any(part.is_visible() for part in page.locator(hidden).all()), hidden
    assert page.locator("article figure img").first.is_visible()
    assert page.locator("article figure img").first.evaluate("e => getComputedStyle(e).filter") == "none"
    assert page.evaluate(CUT) == []
    page.evaluate("() => dispatchEvent(new Event('afterprint'))")
    assert not any(proof.evaluate("p => p.open") for proof in proofs.all())
