"""The book profile as another processor would compute it: no vector instructions in PyTorch, NumPy and OpenBLAS.

Its claims are compared with the published ones. Exact numbers may differ by what ``rlvr_lib.claims.agrees`` allows.
"""

import tempfile
from pathlib import Path

import numpy as np

from rlvr_lib.claims import agrees
from rlvr_lib.reproduction.notebooks import notebook_names
from rlvr_lib.reproduction.provenance import read_stamp
from rlvr_lib.reproduction.results import Result
from tests.attack.common import ROOT, environment, record, reproduce
from tests.attack.meta import jobs


def plain_instructions() -> dict[str, str]:
    """Environment that turns off what can be turned off on this processor."""
    core = np._core._multiarray_umath
    features = [name for name in core.__cpu_dispatch__ if core.__cpu_features__.get(name)]
    return {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_CBWR": "COMPATIBLE",
        "NPY_DISABLE_CPU_FEATURES": " ".join(features),
        "OPENBLAS_CORETYPE": "Prescott",
    }


def run() -> None:
    """Reproduce, compare and record."""
    names, rows, claims, same, close = notebook_names(ROOT / "notebooks"), [], 0, 0, 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        out = Path(folder)
        variables = environment(ROOT, **plain_instructions())
        _, said = reproduce(ROOT, out, "--jobs", str(jobs()), env=variables)
        for name in names:
            fresh, published = (Result(where, name, "book") for where in (out, ROOT / "results"))
            assert fresh.stamp(), said[-3000:]
            old = {claim.id: claim for claim in published.claims()}
            for claim in fresh.claims():
                claims += 1
                same += claim.outcome == old[claim.id].outcome
                close += agrees(old[claim.id], claim)
                if not agrees(old[claim.id], claim):
                    numbers = [f"{one.outcome}, {one.measured:.10g}" for one in (old[claim.id], claim)]
                    rows.append({"claim": claim.id, "published": numbers[0], "without": numbers[1]})
        stamps = [read_stamp(Result(where, names[0], "book").stamp_file) for where in (ROOT / "results", out)]
    counts = {
        "instructions, published and here": " and ".join(stamp.hardware["instructions"] for stamp in stamps),
        "claims": claims,
        "with the published outcome": same,
        "and, if exact, with the published number within tolerance": close,
    }
    record("machines", counts, rows)
