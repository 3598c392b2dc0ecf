"""Whether a text says a number: by math-verify, or where the extra ``scale`` is missing by its digits."""

from __future__ import annotations

import functools
import threading
from types import ModuleType
from typing import Any


def verifier() -> str:
    """What compares answers: ``math-verify``, or ``integers`` where that is not installed."""
    return "integers" if _math_verify() is None else "math-verify"


@functools.lru_cache(maxsize=2**14)
def same_number(text: str, number: int) -> bool:
    """Whether a text says a number; digits and nothing else where math-verify is not installed."""
    library = _math_verify()
    if library is None:
        digits = text.strip()
        return digits.isascii() and digits.isdigit() and int(digits) == number
    return bool(library.verify(_parsed(str(number)), _parsed(text), timeout_seconds=_limit()))


@functools.cache
def _math_verify() -> ModuleType | None:
    try:
        import math_verify
    except ImportError:
        return None
    return math_verify


@functools.lru_cache(maxsize=2**12)
def _parsed(text: str) -> Any:
    library: Any = _math_verify()
    return library.parse(text, parsing_timeout=_limit())


def _limit() -> int | None:
    """Seconds; its clock is a signal, which only the main thread gets."""
    return 5 if threading.current_thread() is threading.main_thread() else None
