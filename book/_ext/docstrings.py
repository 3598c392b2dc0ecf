"""Docstrings are plain text here: bars are absolute values and stars are axes, not reStructuredText markup."""

import re

LITERAL = re.compile(r"(``[^`]*``)")


def escape(app, what, name, obj, options, lines):
    """Escape bars and stars, except in literals and in examples."""
    example = False
    for number, line in enumerate(lines):
        example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))
        if not example:
            parts = LITERAL.split(line)
            parts[::2] = [re.sub(r"([|*])", r"\\\1", part) for part in parts[::2]]
            lines[number] = "".join(parts)


def setup(app):
    app.connect("autodoc-process-docstring", escape, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
