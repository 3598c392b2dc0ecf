"""What studies read off the curves of their runs."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from rlvr_lib.arguments import Reals, real_array, require


def first_time(times: ArrayLike, curves: ArrayLike, level: float) -> Reals:
    """When curves first reach a level, [...], on straight lines between records; infinite where they never do.

    ``curves`` is [..., n] at ``times`` [..., n], which broadcast; one that begins at the level has its first time.
    """
    curves = real_array("curves", curves)
    times = real_array("times", times)
    require(times.shape[-1:] == curves.shape[-1:] != (0,), "times", f"shape {times.shape}", f"{curves.shape[-1:]} last")
    times, curves = np.broadcast_arrays(times, curves)
    reached = curves >= level
    after = reached.argmax(-1)[..., None]
    places = (np.maximum(after - 1, 0), after)
    (t, here), (begun, there) = ([np.take_along_axis(x, k, -1)[..., 0] for k in places] for x in (times, curves))
    share = np.divide(level - begun, there - begun, out=np.ones_like(begun), where=there > begun)
    return np.where(reached.any(-1), t + share * (here - t), np.inf)[()]
