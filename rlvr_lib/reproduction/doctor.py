"""What an installation runs on, for bug reports and for the impatient."""

from __future__ import annotations

import shutil

from rlvr_lib.reproduction import provenance
from rlvr_lib.reproduction.driver import require_kernel

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def browser() -> str | None:
    """Path of an installed Chromium, which the tests of the built book use."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def findings() -> dict[str, str]:
    """What was found, by name; the value says what to do where something is missing."""
    import torch

    try:
        require_kernel()
        kernel = "installed"
    except ValueError as error:
        kernel = str(error)
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none; nothing in the book needs one"
    return {
        **provenance.versions(),
        **provenance.hardware(),
        "gpu": gpu,
        "kernel": kernel,
        "browser": browser() or "none; the tests of the built book are skipped (install chromium)",
    }
