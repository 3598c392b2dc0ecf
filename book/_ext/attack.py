"""The directive ``attack NAME``: what an attack on the project found, from ``results/NAME.json``; ``:counts:`` only."""

import json
from pathlib import Path
from typing import ClassVar

from blocks import table
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

CODE = ("mutant", "original", "broken")


class Attack(SphinxDirective):
    """The counts of an attack and, row by row, what it found."""

    required_arguments = 1
    option_spec: ClassVar = {"counts": directives.flag}

    def run(self):
        file = Path(self.env.srcdir) / "results" / f"{self.arguments[0]}.json"
        self.env.note_dependency(str(file))
        if not file.is_file():
            return [nodes.paragraph("", "Not run yet.")]
        found = json.loads(file.read_text())
        counts = [(what, str(count)) for what, count in found["counts"].items()]
        hardware = f"{found['hardware']['processor']}, {found['hardware']['cores']} cores"
        parts = [table(("what", "count"), counts, (70, 30)), nodes.paragraph("", f"Run {found['date']} on {hardware}.")]
        if found["rows"] and "counts" not in self.options:
            header = tuple(found["rows"][0])
            rows = [tuple(self.cell(column, text) for column, text in row.items()) for row in found["rows"]]
            parts.append(table(header, rows, (100 // len(header),) * len(header), ["rlvr-attack"]))
        return parts

    @staticmethod
    def cell(column, text):
        """Code as code, the rest as text."""
        return [nodes.literal("", text)] if column in CODE and text else text


def setup(app):
    app.add_directive("attack", Attack)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
