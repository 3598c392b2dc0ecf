"""The directive ``live`` places an interactive figure; its text is what a reader without scripts sees.

The scripts are served from the book, once, and only pages that have such a figure load them.
"""

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

SCRIPTS = {
    "calculator": ["live.js"],
}
"""Figures, and what each of them loads in this order."""


class Live(SphinxDirective):
    """An interactive figure by name; ``:delay:`` shows the calculator's row for stale rollouts."""

    required_arguments = 1
    has_content = True
    option_spec = {"delay": directives.flag}

    def run(self):
        name = self.arguments[0]
        if name not in SCRIPTS:
            raise self.error(f"no interactive figure {name!r}; there are {', '.join(SCRIPTS)}")
        delay = " data-delay" if "delay" in self.options else ""
        start = nodes.raw("", f'<div class="rlvr-live" data-figure="{name}"{delay}>', format="html")
        start["live"] = name
        return [start, *self.parse_content_to_nodes(), nodes.raw("", "</div>", format="html")]


def load_scripts(app, pagename, templatename, context, doctree):
    """Ask for the scripts of the figures on this page."""
    if doctree is None:
        return
    figures = [node["live"] for node in doctree.findall(nodes.raw) if "live" in node]
    for script in dict.fromkeys(script for figure in figures for script in SCRIPTS[figure]):
        app.add_js_file(script, loading_method="defer")


def setup(app):
    app.add_directive("live", Live)
    app.connect("html-page-context", load_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
