"""Shapes of array annotations, checked at every call: ``pytest --jaxtyping-packages=rlvr_lib,shapes.checked``.

A call that returns must have had arguments and a result of the shapes its annotations say; a call that the library
refuses is left to the library's own error. A list or a number may stand for an array argument, and an array of whole
numbers for a NumPy one of floats, because ``rlvr_lib.arguments`` converts them; results have the type they say.
Annotations without an array are mypy's affair.
"""

import functools
import operator
from collections.abc import Callable
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import numpy as np
from beartype import beartype
from beartype.vale import Is
from jaxtyping import AbstractArray, Shaped


def is_array(hint: object) -> bool:
    return isinstance(hint, type) and issubclass(hint, AbstractArray)


def holds_array(hint: object) -> bool:
    return is_array(hint) or any(holds_array(part) for part in get_args(hint))


def of_argument(hint: Any) -> Any:
    """What an argument may be where the annotation is ``hint``."""
    if is_array(hint):
        kind = hint.array_type
        converted = Annotated[object, Is[lambda value: not isinstance(value, kind)]]
        return (Shaped[kind, hint.dim_str] if kind is np.ndarray else hint) | converted
    if get_origin(hint) in (Union, UnionType):
        return functools.reduce(operator.or_, map(of_argument, get_args(hint)))
    return hint


def checked(function: Callable) -> Callable:
    """The type checker that jaxtyping applies to stubs with the annotations of a function, evaluated.

    There are two stubs: one is called before the function, its result being ``Any``, and one after it, with the result.
    """
    hints = function.__annotations__
    if hints.get("return", Any) is Any or not any(map(holds_array, hints.values())):
        return function
    function.__annotations__ = {
        name: (hint if name == "return" else of_argument(hint)) if holds_array(hint) else Any
        for name, hint in hints.items()
    }
    return beartype(function)
