"""Argument checks shared by the library.

Every failure is a ``ValueError`` that names the argument, what it got and what is allowed,
raised before any computation starts. Functions that take arrays return them as float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

# What elementwise formulas take and return: arrays or scalars. Type checkers cannot tell which and are told nothing.
if TYPE_CHECKING:
    Reals = Any
else:
    Reals = Float[np.ndarray, "..."] | np.float64


def require(condition: bool, name: str, got: object, allowed: str) -> None:
    """Raise ``ValueError`` naming the argument unless the condition holds."""
    if not condition:
        raise ValueError(f"{name} must be {allowed}, got {describe(got)}")


def require_shape(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raise ``ValueError`` unless the array has that shape."""
    require(array.shape == shape, name, f"shape {array.shape}", f"of shape {shape}")


def describe(value: object) -> str:
    """A short account of a value for an error message: an array by its shape or its few entries."""
    if isinstance(value, np.ndarray):
        return str(value.tolist()) if value.size <= 6 else f"an array of shape {value.shape}"
    return repr(value)


def numbers(name: str, value: object, kinds: str = "biufc", noun: str = "real or complex numbers") -> np.ndarray:
    """The value as an array of finite float64 or complex128 numbers."""
    try:
        array = np.asarray(value)
        require(array.dtype.kind in kinds, name, value, f"an array of {noun}")
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{name} must be an array of {noun}: {error}") from None
    array = array.astype(np.complex128 if array.dtype.kind == "c" else np.float64, copy=False)
    bad = ~np.isfinite(array)
    require(not bad.any(), name, array[bad][:1], "finite")
    return array


def real_array(name: str, value: object, ndim: int | None = None) -> np.ndarray:
    """The value as an array of finite real numbers, of the given number of dimensions when one is asked for."""
    array = numbers(name, value, "biuf", "real numbers")
    if ndim is not None:
        require(array.ndim == ndim, name, f"shape {array.shape}", f"an array of {ndim} dimension(s)")
    return array


def _every(name: str, value: object, holds: Callable[[np.ndarray], np.ndarray], allowed: str) -> np.ndarray:
    array = real_array(name, value)
    bad = ~holds(array)
    require(not bad.any(), name, array[bad][:1], allowed)
    return array


def positive(name: str, value: object) -> np.ndarray:
    """The value as an array, every entry above 0."""
    return _every(name, value, lambda x: x > 0, "positive")


def non_negative(name: str, value: object) -> np.ndarray:
    """The value as an array, every entry at least 0."""
    return _every(name, value, lambda x: x >= 0, "at least 0")


def open_unit(name: str, value: object) -> np.ndarray:
    """The value as an array, every entry strictly between 0 and 1."""
    return _every(name, value, lambda x: (x > 0) & (x < 1), "strictly between 0 and 1")


def closed_interval(name: str, value: object, low: float, high: float) -> np.ndarray:
    """The value as an array, every entry in [low, high]."""
    return _every(name, value, lambda x: (x >= low) & (x <= high), f"in [{low}, {high}]")


def zero_or_one(name: str, value: object) -> np.ndarray:
    """The value as an array, every entry 0 or 1."""
    return _every(name, value, lambda x: (x == 0) | (x == 1), "0 or 1")


def whole_numbers(name: str, value: object, low: int) -> np.ndarray:
    """The value as an array, every entry a whole number of at least ``low``."""
    return _every(name, value, lambda x: (x >= low) & (x == np.floor(x)), f"a whole number of at least {low}")


def integer(name: str, value: object, low: int) -> int:
    """The value as an ``int`` of at least ``low``; booleans and fractions are refused."""
    whole = int(value) if isinstance(value, int | np.integer) and not isinstance(value, bool) else low - 1
    require(whole >= low, name, value, f"an integer of at least {low}")
    return whole


def probability_law(name: str, value: object, shape: tuple[int, ...]) -> np.ndarray:
    """The value as an array of that shape, non-negative and summing to 1 (within 1e-9, then exactly)."""
    law = non_negative(name, value)
    require(law.shape == shape, name, f"shape {law.shape}", f"a probability law of shape {list(shape)}")
    require(abs(law.sum() - 1) <= 1e-9, name, f"a sum of {law.sum():.12g}", "summing to 1")
    return law / law.sum()
