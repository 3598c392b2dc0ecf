"""What the pages around the chapters need: reading times, terms that explain themselves, the exercises, light pages.

{minutes}`book/primer` prints the reading time of a page, and of several together where commas part them. The directive
``exercises`` lists those of the chapters. Every page has its reading time under its title; the first use of a term of
the glossary is a link with the definition in it, which ``pages.js`` shows.
"""

import html
import json
import math
import re
from pathlib import Path

from bs4 import BeautifulSoup
from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective, SphinxRole

WORDS_A_MINUTE = 200
NOT_COUNTED = (
    "pre, script, style, .math, .headerlink, .cell_input, details, .dropdown, dl.py, div.citation, .rlvr-minutes,"
    " .rlvr-live, table.rlvr-table:not(.rlvr-findings)"
)
"""Code, formulas, tables to look up, references, and what is folded."""

GLOSSARY = "book/primer"
FOUND_BY_THEMSELVES = (
    "advantage",
    "alignment",
    "baseline",
    "checkpoint",
    "critical learning rate",
    "gradient gap",
    "hand-off exponent",
    "log-linear",
    "sabotage",
    "score",
    "score energy",
    "success rate",
    "testbed",
    "verifier",
)
"""Terms that mean the same wherever they stand; a group may be one of mathematics, and a gain one of a step."""
WRITTEN = {"advantage": "advantages", "score": "score"}
"""Where only one form is the term: an advantage may be any, and a matrix scores its entries."""
NO_TERMS = (GLOSSARY, "book/references", "book/status")


def words(page):
    """How many words of a page's article a reader reads."""
    article = BeautifulSoup(page, "html.parser").find("article")
    for output in article.select(".cell_output"):
        kept = output.select("figcaption, .rlvr-claim")
        output.clear()
        output.extend(part for one in kept for part in (one, "\n"))
    for part in article.select(NOT_COUNTED):
        part.decompose()
    return sum(any(map(str.isalnum, word)) for word in article.get_text().split())


def minutes(count):
    """Reading time of so many words, in words."""
    time = max(1, math.ceil(count / WORDS_A_MINUTE))
    return f"{time} minute{'s' * (time > 1)}"


class MinutesRole(SphinxRole):
    def run(self):
        pages = ",".join(re.split(r",\s*", self.text))
        return [nodes.raw("", f'<span data-reading="{html.escape(pages)}"></span>', format="html")], []


def definitions(env):
    """What the glossary says of each term, by the anchor of the term."""
    found = {}
    for item in env.get_doctree(GLOSSARY).findall(nodes.definition_list_item):
        for term in item.findall(nodes.term):
            said = next(item.findall(nodes.definition)).astext()
            found |= {anchor: (term.astext(), " ".join(said.split())) for anchor in term["ids"]}
    return found


def link_terms(app, doctree, docname):
    """Make the first use of each term of the glossary a link to it."""
    if docname in NO_TERMS:
        return
    base = app.builder.get_relative_uri(docname, GLOSSARY)
    anchors = {name: anchor for anchor, (name, _) in definitions(app.env).items()}
    if missing := set(FOUND_BY_THEMSELVES) - set(anchors):
        raise ExtensionError(f"{GLOSSARY} does not explain {sorted(missing)}")
    used = {link.astext() for link in doctree.findall(nodes.reference) if "#term-" in link.get("refuri", "")}
    for name in sorted(set(FOUND_BY_THEMSELVES) - used, key=len, reverse=True):
        use = re.compile(rf"(?<![\w-])(?:{WRITTEN.get(name, f'{name}s?')})(?![\w-])", re.I)
        for text in list(doctree.findall(nodes.Text)):
            found = use.search(text) if prose(text) else None
            if found:
                before, after = text[: found.start()], text[found.end() :]
                link = nodes.reference("", found[0], internal=True, refuri=f"{base}#{anchors[name]}")
                link["classes"].append("rlvr-term")
                text.parent.replace(text, [part for part in (nodes.Text(before), link, nodes.Text(after)) if part])
                break


def prose(text):
    """Whether a text stands in a paragraph, and is neither a link nor code nor printed by a cell."""
    node, paragraph = text.parent, False
    while node is not None:
        if isinstance(node, nodes.reference | nodes.literal | nodes.literal_block | nodes.title | nodes.caption):
            return False
        if isinstance(node, nodes.raw | nodes.math | nodes.math_block | nodes.Inline | nodes.table):
            return False
        if {"cell_output", "cell_input"} & set(node.get("classes", ())):
            return False
        paragraph = paragraph or isinstance(node, nodes.paragraph)
        node = node.parent
    return paragraph


EXERCISE = re.compile(r"^```\{exercise\} (?P<title>[^\n]+)\n:label: (?P<label>\S+)\n(?P<text>.*?)^```$", re.M | re.S)


def exercises(notebook):
    """Title, label and text of each exercise of a notebook."""
    cells = json.loads(notebook.read_text())["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return [(found["title"], found["label"], found["text"].strip()) for found in EXERCISE.finditer(text)]


class Exercises(SphinxDirective):
    """Every exercise of the chapters, with a way to it."""

    def run(self):
        lines = []
        for notebook in sorted((Path(self.env.srcdir) / "notebooks").glob("0*.ipynb")):
            self.env.note_dependency(str(notebook))
            lines += [f"**Chapter {{doc}}`/notebooks/{notebook.stem}`**", ""]
            for title, label, text in exercises(notebook):
                indented = text.replace("\n", "\n  ")
                lines += [f"- {{ref}}`{title} <{label}>`.", f"  {indented}", ""]
        return self.parse_text_to_nodes("\n".join(lines))


def drop_mathjax(app, pagename, templatename, context, doctree):
    """A page without formulas needs no megabyte of MathJax."""
    if 'class="math' not in context.get("body", ""):
        context["script_files"] = [
            script
            for script in context.get("script_files", [])
            if "mathjax" not in f"{getattr(script, 'filename', '')} {getattr(script, 'attributes', '')}".lower()
        ]


# The theme brings its icons twice, as a font and as a script of a megabyte and a half; the font is enough.
ICONS = re.compile(r'^.*<script src="[^"]*fontawesome\.js[^"]*"></script>\n', re.M)
TERM = re.compile(r'(<a class="[^"]*\breference internal\b[^"]*" href="[^"#]*#(term-[^"]+)")')
FOLD = '<summary><span class="toctree-toggle" role="presentation">'
BIBLIOGRAPHY = '<div role="list" class="citation-list">'  # whose entries have a role of their own, so it is no list
READING = re.compile(r'<span data-reading="([^"]*)"></span>')


def finish(app, exception):
    """Write what only the finished pages know: their reading times, and the definitions into the links to terms."""
    if exception or app.builder.format != "html":
        return
    said = {anchor: text for anchor, (_, text) in definitions(app.env).items()}
    files = {name: Path(app.builder.get_outfilename(name)) for name in app.env.found_docs}
    pages = {name: file.read_text() for name, file in files.items()}
    counts = {name: words(page) for name, page in pages.items()}

    def reading(match):
        wanted = html.unescape(match[1]).split(",")
        if unknown := set(wanted) - set(counts):
            raise ExtensionError(f"no page {sorted(unknown)} whose reading time could be printed")
        return minutes(sum(counts[name] for name in wanted))

    for name, page in pages.items():
        time = f"{minutes(counts[name])} to read: {counts[name]:,} words at {WORDS_A_MINUTE} a minute."
        page = ICONS.sub("", page)
        page = page.replace(FOLD, FOLD.replace("<summary", '<summary aria-label="Show what belongs to this chapter"'))
        page = page.replace(BIBLIOGRAPHY, '<div class="citation-list">')
        page = TERM.sub(lambda match: f'{match[1]} data-term="{html.escape(said.get(match[2], ""))}"', page)
        frame, article = page.split("<article", 1)  # the frame has a title for print
        article = article.replace("</h1>", f'</h1>\n<p class="rlvr-minutes">{time}</p>', 1)
        files[name].write_text(f"{frame}<article{READING.sub(reading, article)}")


def take_address(app, config):
    """The site is the repository's on GitHub Pages, so that its address is written in one place."""
    owner, name = config.html_theme_options["repository_url"].rstrip("/").split("/")[-2:]
    config.html_baseurl = config.ogp_site_url = f"https://{owner}.github.io/{name}/"


def setup(app):
    app.add_role("minutes", MinutesRole())
    app.add_directive("exercises", Exercises)
    app.connect("config-inited", take_address)
    app.connect("doctree-resolved", link_terms, priority=900)
    app.connect("html-page-context", drop_mathjax, priority=950)
    app.connect("build-finished", finish)
    app.add_css_file("pages.css")
    app.add_js_file("pages.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
