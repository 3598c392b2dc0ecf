"""``python -m rlvr_lib`` is the ``rlvr`` command."""

from rlvr_lib.cli import main

main()
