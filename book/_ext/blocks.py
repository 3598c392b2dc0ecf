"""What the pages printed from results are built of: tables, cells, folds, badges, and the results themselves."""

from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from rlvr_lib.reproduction.results import finished_results


def table(header, rows, widths, classes=()):
    """A docutils table; a cell is text, a list of inline nodes or a list of paragraphs."""
    group = nodes.tgroup("", *(nodes.colspec(colwidth=width) for width in widths), cols=len(header))
    for part, lines in ((nodes.thead(), [header]), (nodes.tbody(), rows)):
        group += part
        part += [nodes.row("", *map(entry, line)) for line in lines]
    return nodes.table("", group, classes=["rlvr-table", *classes])


def entry(cell):
    """A table cell from text, inline nodes or paragraphs."""
    cell = [cell] if isinstance(cell, str) else cell
    return nodes.entry("", *(cell if isinstance(cell[0], nodes.paragraph) else [paragraph(*cell)]))


def paragraph(*parts):
    """A paragraph of text and inline nodes."""
    return nodes.paragraph("", "", *(nodes.Text(part) if isinstance(part, str) else part for part in parts))


def number(value):
    """A number as the ledger prints it."""
    return f"{value:.3g}"


class Published(SphinxDirective):
    """Reads the results folder of the source tree, and makes the page depend on it."""

    def results(self):
        folder = Path(self.env.srcdir) / "results"
        found = finished_results(folder)
        for result in found:
            self.env.note_dependency(str(result.stamp_file))
        return found


class ledger_fold(nodes.General, nodes.Element):
    """A part of a page that opens natively; its first child is its summary, ``data`` its data attributes."""


class ledger_line(nodes.General, nodes.TextElement):
    """The line of a fold that is always seen; it holds no link, because a press on it opens the fold."""


def visit_fold(self, node):
    data = {f"data-{name}": value for name, value in node.get("data", {}).items()}
    self.body.append(self.starttag(node, "details", **data))


def depart_fold(self, node):
    self.body.append("</details>\n")


def visit_line(self, node):
    self.body.append(self.starttag(node, "summary", ""))


def depart_line(self, node):
    self.body.append("</summary>\n")


def badge(text, kind):
    """A word in a rounded frame, in the colour of its kind."""
    return nodes.inline("", text, classes=["rlvr-badge", f"rlvr-{kind}"])


def spaced(parts):
    """Inline nodes with a blank between two."""
    return [piece for part in parts for piece in (part, nodes.Text(" "))][:-1]


def setup(app):
    app.add_node(ledger_fold, html=(visit_fold, depart_fold))
    app.add_node(ledger_line, html=(visit_line, depart_line))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
