"""Argument checks shared by the library.

Every failure is a ``ValueError`` that names the argument, what it got and what is allowed,
raised before any computation starts.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

Reals = Float[np.ndarray, "..."] | np.float64
"""What elementwise formulas return: an array for arrays, a scalar for scalars."""


def require(condition: bool, name: str, got: object, allowed: str) -> None:
    """Raise ``ValueError`` naming the argument unless the condition holds."""
    if not condition:
        raise ValueError(f"{name} must be {allowed}, got {describe(got)}")


def describe(value: object) -> str:
    """A short account of a value for an error message: an array by its shape or its few entries."""
    if isinstance(value, np.ndarray):
        return str(value.tolist()) if value.size <= 6 else f"an array of shape {value.shape}"
    return repr(value)


def real_array(name: str, value: ArrayLike, ndim: int | None = None) -> np.ndarray:
    """The value as a finite float64 array, of the given number of dimensions when one is asked for.

    Raises:
        ValueError: not numeric, complex, not finite, or of another number of dimensions.
    """
    try:
        array = np.asarray(value)
        require(array.dtype.kind in "bifu", name, value, "an array of real numbers")
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{name} must be an array of real numbers: {error}") from None
    array = array.astype(np.float64, copy=False)
    if ndim is not None:
        require(array.ndim == ndim, name, f"shape {array.shape}", f"an array of {ndim} dimension(s)")
    bad = ~np.isfinite(array)
    require(not bad.any(), name, array[bad][:1], "finite")
    return array


def positive(name: str, value: ArrayLike) -> np.ndarray:
    """The value as a float64 array, every entry above 0."""
    array = real_array(name, value)
    require(bool((array > 0).all()), name, array[array <= 0][:1], "positive")
    return array


def non_negative(name: str, value: ArrayLike) -> np.ndarray:
    """The value as a float64 array, every entry at least 0."""
    array = real_array(name, value)
    require(bool((array >= 0).all()), name, array[array < 0][:1], "at least 0")
    return array


def open_unit(name: str, value: ArrayLike) -> np.ndarray:
    """The value as a float64 array, every entry strictly between 0 and 1."""
    array = real_array(name, value)
    outside = (array <= 0) | (array >= 1)
    require(not outside.any(), name, array[outside][:1], "strictly between 0 and 1")
    return array


def closed_interval(name: str, value: ArrayLike, low: float, high: float) -> np.ndarray:
    """The value as a float64 array, every entry in [low, high]."""
    array = real_array(name, value)
    outside = (array < low) | (array > high)
    require(not outside.any(), name, array[outside][:1], f"in [{low}, {high}]")
    return array


def integer(name: str, value: object, low: int) -> int:
    """The value as an ``int`` of at least ``low``; booleans and fractions are refused."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    require(whole and value >= low, name, value, f"an integer of at least {low}")
    return int(value)


def whole_numbers(name: str, value: ArrayLike, low: int) -> np.ndarray:
    """The value as a float64 array, every entry a whole number of at least ``low``."""
    array = real_array(name, value)
    bad = (array < low) | (array != np.floor(array))
    require(not bad.any(), name, array[bad][:1], f"a whole number of at least {low}")
    return array


def probability_law(name: str, value: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    """The value as a float64 array of that shape, non-negative and summing to 1 (within 1e-9, then exactly)."""
    law = non_negative(name, value)
    require(law.shape == shape, name, f"shape {law.shape}", f"a probability law of shape {list(shape)}")
    require(abs(law.sum() - 1) <= 1e-9, name, f"a sum of {law.sum():.12g}", "summing to 1")
    return law / law.sum()
