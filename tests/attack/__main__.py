"""``python -m tests.attack [NAME...]``: attacks on the project, each of which writes what it found to ``results/``.

- ``kills``: kill -9 at random moments of a reproduction, and of the moment in which a result is put in place.
- ``faults``: faults of papermill, nbval, jupyter-cache and joblib, each reproduced, beside ours under the same fault.
- ``machines``: the book profile without vector instructions; do the outcomes and the numbers stand?
- ``meta``: theory functions broken on purpose; what do the unit tests and what do the claims catch?
- ``mutants``: a random sample of mutmut's mutants of the theory modules against the unit tests.
- ``audit``: known vulnerabilities of the pinned dependencies; printed only.

They take minutes to an hour and are no part of ``make test``. Left out: power failures, which need a machine to spoil.
"""

import argparse
import importlib

NAMES = ("kills", "faults", "machines", "meta", "mutants", "audit")


def main() -> None:
    """Run the named attacks, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; default: all")
    for name in parser.parse_args().names or NAMES:
        if name not in NAMES:
            parser.error(f"attack must be one of {', '.join(NAMES)}, got {name}")
        importlib.import_module(f"tests.attack.{name}").run()


if __name__ == "__main__":
    main()
