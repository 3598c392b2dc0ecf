"""Prepare notebook outputs for the page: pictures get alt text and a caption, data for programs is left out."""

import json
import re
from string import punctuation

from sphinx.errors import ExtensionError

from rlvr_lib.claims import MIME

CHAPTER = re.compile(r"notebooks/0*(\d+)_")


def escape(text):
    """Text that MyST shows as it is: every mark that could begin markup, mathematics or a role is escaped."""
    return re.sub(f"[{re.escape(punctuation)}]", r"\\\g<0>", text)


def prepare_outputs(app, docname, source):
    """Show the alt text that ``rlvr_lib.figures.show`` stored as alt text and as caption; drop the claims' JSON."""
    if not str(app.env.doc2path(docname)).endswith(".ipynb"):
        return
    notebook = json.loads(source[0])
    chapter = CHAPTER.match(docname)
    figures = 0
    for cell in notebook["cells"]:
        outputs = cell.get("outputs", [])
        for output in outputs:
            output.get("data", {}).pop(MIME, None)
        alts = [output.get("metadata", {}).get("image/png", {}).get("alt") for output in outputs]
        alts = [alt for alt in alts if alt]
        if len(alts) > 1:
            raise ExtensionError(
                f"{docname}: a cell shows {len(alts)} figures, so their captions would be one; split it"
            )
        if alts:
            figures += 1
            name = f"fig-{chapter[1] if chapter else docname.replace('/', '-')}-{figures}"
            shown = cell["metadata"].setdefault("mystnb", {})
            shown["image"] = {"alt": alts[0]}
            shown["figure"] = {"caption": escape(alts[0]), "name": name, "align": "left"}
    source[0] = json.dumps(notebook)


def number_by_chapter(app, env):
    """Number the figures of a chapter from one, after the chapter: its third is Figure 2.3, wherever it is built."""
    for docname, numbers in env.toc_fignumbers.items():
        chapter = CHAPTER.match(docname)
        if chapter and "figure" in numbers:
            first = min(number[-1] for number in numbers["figure"].values())
            numbers["figure"] = {
                figure: (int(chapter[1]), number[-1] - first + 1) for figure, number in numbers["figure"].items()
            }
    return []


def setup(app):
    app.connect("source-read", prepare_outputs)
    app.connect("env-get-updated", number_by_chapter, priority=900)  # after Sphinx has numbered the whole book
    return {"parallel_read_safe": True, "parallel_write_safe": True}
