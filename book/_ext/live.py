"""The directive ``live`` places an interactive figure; what it holds stands there where its script does not run.

Only pages that have such a figure load the script and its style.
"""

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

FIGURES = ("calculator", "baseline", "relay", "parabola")


class Live(SphinxDirective):
    required_arguments = 1
    has_content = True

    def run(self):
        (kind,) = self.arguments
        if kind not in FIGURES:
            raise self.error(f"no live figure {kind!r}; there are {', '.join(FIGURES)}")
        self.assert_has_content()
        fallback = nodes.Element()
        self.state.nested_parse(self.content, self.content_offset, fallback)
        opened = nodes.raw("", f'<div class="rlvr-live" data-live="{kind}">', format="html")
        return [opened, *fallback.children, nodes.raw("", "</div>", format="html")]


def load(app, pagename, templatename, context, doctree):
    """Load the script on this page if it has a figure; from this event it is for the one page only."""
    if 'class="rlvr-live"' in context.get("body", ""):
        app.add_js_file("live.js", defer="")
        app.add_css_file("live.css")


def setup(app):
    app.add_directive("live", Live)
    app.connect("html-page-context", load)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
