"""The role ``claim`` prints a number of the published results, as a link to its row of the ledger.

{claim}`ID` prints what was measured; {claim}`ID:n` another field; {claim}`ID:measured:.0%` in a format of Python;
{claim}`ID@full` that of the full profile, where a page means it and not the book's.
"""

import functools
from pathlib import Path

from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxRole

from rlvr_lib.reproduction.results import finished_results

LEDGER = "book/ledger"
DEFAULT = ".2g"


@functools.cache
def published(root):
    """Every published claim, by id and profile, with the file that vouches for it."""
    return {
        (claim.id, claim.profile): (claim, result.stamp_file)
        for result in finished_results(root / "results")
        for claim in result.claims()
    }


def found(use, claims):
    """The claim, the field and the format that a use of the role names."""
    name, _, rest = use.partition(":")
    field, _, spec = rest.partition(":")
    id, _, profile = name.partition("@")
    if (id, profile or "book") not in claims:
        raise ValueError(f"no published claim {name!r}")
    return claims[id, profile or "book"][0], field or "measured", spec


def printed(claim, field, spec):
    """A field of a claim in a format; refuses what a reader could not read."""
    value = getattr(claim, field, None)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"claim {claim.id} has no number or word {field!r}")
    if spec.endswith("%") and not 0 <= value <= 1:
        raise ValueError(f"claim {claim.id} has {field} {value}, which is no share to print in percent")
    return format(value, spec or (DEFAULT if isinstance(value, float) else ""))


class ClaimRole(SphinxRole):
    def run(self):
        claims = published(Path(self.env.srcdir))
        try:
            claim, field, spec = found(self.text, claims)
            text = printed(claim, field, spec)
        except ValueError as error:
            raise ExtensionError(f"{self.env.docname}: {error}") from None
        self.env.note_dependency(str(claims[claim.id, claim.profile][1]))
        row = nodes.reference("", text, internal=True, refuri="", classes=["rlvr-number"], refid=f"claim-{claim.id}")
        return [row], []


def link(app, doctree, docname):
    """Point the numbers at their rows, seen from the page they stand on."""
    for row in doctree.findall(nodes.reference):
        if "rlvr-number" in row["classes"]:
            base = "" if docname == LEDGER else app.builder.get_relative_uri(docname, LEDGER)
            row["refuri"] = f"{base}#{row['refid']}"
            del row["refid"]


def setup(app):
    app.add_role("claim", ClaimRole())
    app.connect("doctree-resolved", link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
