"""Prepare notebook outputs for the page: pictures get their alt text, data for programs is left out."""

import json

from rlvr_lib.claims import MIME


def prepare_outputs(app, docname, source):
    """Move the alt text that ``rlvr_lib.figures.show`` stored to where MyST-NB looks for it; drop the claims' JSON."""
    if not str(app.env.doc2path(docname)).endswith(".ipynb"):
        return
    notebook = json.loads(source[0])
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(MIME, None)
            alt = output.get("metadata", {}).get("image/png", {}).get("alt")
            if alt:
                cell["metadata"].setdefault("mystnb", {})["image"] = {"alt": alt}
    source[0] = json.dumps(notebook)


def setup(app):
    app.connect("source-read", prepare_outputs)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
