"""Prepare notebook outputs for the page: pictures get alt text and a caption, data for programs is left out."""

import json
import re
from string import punctuation

from sphinx.errors import ExtensionError

from rlvr_lib.claims import MIME

CHAPTER = re.compile(r"notebooks/(evidence/)?0*(\d+)_")


def escape(text):
    """Text that MyST shows as it is: every mark that could begin markup, mathematics or a role is escaped."""
    return re.sub(f"[{re.escape(punctuation)}]", r"\\\g<0>", text)


def number(docname, every):
    """The number of a chapter, 2, or of its evidence: E2, and where it has several pages E2b, E2c; else nothing.

    ``every`` are the names of all pages; the evidence that has its chapter's name comes first.
    """
    if not (chapter := CHAPTER.match(docname)):
        return None
    if not chapter[1]:
        return chapter[2]
    beside = (name for name in every if (other := CHAPTER.match(name)) and other[1] and other[2] == chapter[2])
    order = sorted(beside, key=lambda name: (name.replace("evidence/", "") not in every, name))
    letter = "abcdefghijklmnopqrstuvwxyz"[order.index(docname)]
    return f"E{chapter[2]}{letter if letter != 'a' else ''}"


def prepare_outputs(app, docname, source):
    """Show the alt text and the caption that ``rlvr_lib.figures.show`` stored; drop the claims' JSON."""
    if not str(app.env.doc2path(docname)).endswith(".ipynb"):
        return
    notebook = json.loads(source[0])
    figures, chapter = 0, number(docname, app.env.found_docs)
    for cell in notebook["cells"]:
        outputs = cell.get("outputs", [])
        for output in outputs:
            output.get("data", {}).pop(MIME, None)
        if outputs:
            cell["outputs"] = [output for output in outputs if output.get("data", True)]
        said = [output.get("metadata", {}).get("image/png", {}) for output in outputs]
        said = [words for words in said if "alt" in words]
        if len(said) > 1:
            raise ExtensionError(
                f"{docname}: a cell shows {len(said)} figures, so their captions would be one; split it"
            )
        for words in said:
            figures += 1
            name = f"fig-{(chapter or docname.replace('/', '-')).lower()}-{figures}"
            shown = cell["metadata"].setdefault("mystnb", {})
            shown["image"] = {"alt": words["alt"]}
            caption = words.get("caption") or escape(words["alt"])
            shown["figure"] = {"caption": caption, "name": name, "align": "left"}
    source[0] = json.dumps(notebook)


def number_by_chapter(app, env):
    """Number what a chapter shows from one, kind by kind: its Figure 2.3, Theorem 2.1; in its evidence Figure E2.3."""
    for docname, kinds in env.toc_fignumbers.items():
        if chapter := number(docname, env.found_docs):
            for numbers in kinds.values():
                first = min(at[-1] for at in numbers.values())
                numbers.update({id: (chapter, at[-1] - first + 1) for id, at in numbers.items()})
    return []


def setup(app):
    app.connect("source-read", prepare_outputs)
    app.connect("env-get-updated", number_by_chapter, priority=900)  # after Sphinx has numbered the whole book
    return {"parallel_read_safe": True, "parallel_write_safe": True}
