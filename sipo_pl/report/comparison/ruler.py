"""What all methods of a comparison are measured with, fixed before any of them runs."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sipo_pl.metrics.hypervolume import Frame


class Ruler(NamedTuple):
    """What all methods are measured with.

    Args:
        frame: reference point and unit of each objective
        mean: mean reward of the calibration texts, (objectives,)
        points: weights at which methods with a knob answer
    """

    frame: Frame
    mean: NDArray[np.float64]
    points: Sequence[tuple[float, ...]]


def ruler(stored: Mapping[str, Any], points: Sequence[tuple[float, ...]]) -> Ruler:
    """Return the ruler of what `calibrate` stored and of the weights at which methods answer."""
    values = list(stored["objectives"].values())
    reference, scale, mean = (np.array([one[key] for one in values]) for key in ("reference", "scale", "mean"))
    return Ruler(Frame(reference, scale), mean, points)
