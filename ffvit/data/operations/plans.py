"""What is computed for each image of a batch, worked out on the host before any pixel is touched.

Geometric operations that follow each other become one resampling. Those that map each value to
another, whatever the image, become one table of 256 values.

Dimensions: B images, T turns.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ffvit.data.operations.policies import Draws, Floats, Ints, Operation

_VALUES = np.arange(256)
_BLUR_PASSES = 3
BLUR_TAPS = 13  # of a blur of up to 2 pixels, the most there is


class Kind(IntEnum):
    """Ways to compute."""

    NONE = 0
    TABLE = 1
    AUTO_CONTRAST = 2
    EQUALIZE = 3
    CONTRAST = 4
    COLOR = 5
    SHARPNESS = 6
    BLUR = 7
    WARP = 8


_KINDS = {
    Operation.AUTO_CONTRAST: Kind.AUTO_CONTRAST,
    Operation.EQUALIZE: Kind.EQUALIZE,
    Operation.CONTRAST: Kind.CONTRAST,
    Operation.COLOR: Kind.COLOR,
    Operation.SHARPNESS: Kind.SHARPNESS,
    Operation.BLUR: Kind.BLUR,
}


class Plan(NamedTuple):
    """What is computed, turn by turn. What another kind needs is of no meaning.

    Attributes:
        kinds: (B, T) int64 of `Kind`; nothing comes before NONE.
        factors: (B, T) float32: the argument of CONTRAST, COLOR and SHARPNESS.
        tables: (B, T, 256) uint8: TABLE's new value for each old one.
        blurs: (B, T, BLUR_TAPS) float32: BLUR's weights along rows, and along columns.
        matrices: (B, T, 6) float64: WARP's a, b, c, d, e, f. The pixel whose centre is (x, y) comes
            from (a x + b y + c, d x + e y + f); centres lie at halves.
    """

    kinds: Ints
    factors: npt.NDArray[np.float32]
    tables: npt.NDArray[np.uint8]
    blurs: npt.NDArray[np.float32]
    matrices: Floats


def make_plan(draws: Draws, height: int, width: int) -> Plan:
    """Work out what is computed for images of this size, pixels."""
    order = np.argsort(draws.operations == Operation.NONE, axis=1, kind="stable")
    operations = np.take_along_axis(draws.operations, order, axis=1)
    arguments = np.take_along_axis(draws.arguments, order, axis=1)
    plan = Plan(
        np.zeros(operations.shape, np.int64),
        arguments.astype(np.float32),
        np.zeros((*operations.shape, 256), np.uint8),
        np.zeros((*operations.shape, BLUR_TAPS), np.float32),
        np.zeros((*operations.shape, 6)),
    )
    for operation in Operation:
        chosen = operations == operation
        if operation == Operation.NONE or not chosen.any():
            continue
        values = arguments[chosen][:, None]
        if operation in _KINDS:
            plan.kinds[chosen] = _KINDS[operation]
            if operation == Operation.BLUR:
                plan.blurs[chosen] = [_blur_weights(value) for value in values[:, 0]]
        elif operation in _MATRICES:
            plan.kinds[chosen] = Kind.WARP
            plan.matrices[chosen] = _MATRICES[operation](values, height, width)
        else:
            plan.kinds[chosen] = Kind.TABLE
            plan.tables[chosen] = _TABLES[operation](values)
    return _merge(plan)


def groups(plan: Plan) -> list[tuple[int, Kind, Ints]]:
    """List what is computed, turn after turn: turn, kind, and the images that need it."""
    found: list[tuple[int, Kind, Ints]] = []
    for turn in range(plan.kinds.shape[1]):
        for kind in Kind:
            rows = np.flatnonzero(plan.kinds[:, turn] == kind)
            if kind != Kind.NONE and len(rows):
                found.append((turn, kind, rows))
    return found


def _merge(plan: Plan) -> Plan:
    """Join what can be computed at once, and drop the turns in which nothing is."""
    for turn in range(1, plan.kinds.shape[1]):
        before, now = plan.kinds[:, turn - 1], plan.kinds[:, turn]
        for kind in (Kind.TABLE, Kind.WARP):
            rows = (before == kind) & (now == kind)
            before[rows] = Kind.NONE
            if kind == Kind.TABLE:
                first, second = plan.tables[rows, turn - 1], plan.tables[rows, turn]
                plan.tables[rows, turn] = np.take_along_axis(second, first.astype(np.int64), axis=1)
            else:
                first, second = plan.matrices[rows, turn - 1], plan.matrices[rows, turn]
                plan.matrices[rows, turn] = _compose(first, second)
    order = np.argsort(plan.kinds == Kind.NONE, axis=1, kind="stable")
    num_turns = int((plan.kinds != Kind.NONE).sum(axis=1).max(initial=0))
    order = order[:, :num_turns]
    rows = np.arange(len(order))[:, None]
    return Plan._make(array[rows, order] for array in plan)


def _compose(first: Floats, second: Floats) -> Floats:
    """Return the (R, 6) matrices that do `first`, then `second`."""

    def square(matrices: Floats) -> Floats:
        bottom = np.broadcast_to([[[0.0, 0.0, 1.0]]], (len(matrices), 1, 3))
        return np.concatenate([matrices.reshape(-1, 2, 3), bottom], axis=1)

    return (square(first) @ square(second))[:, :2].reshape(-1, 6)


# Values of Pillow's ImageOps and ImageEnhance: (R, 1) arguments -> (R, 256) new values.
_TABLES: dict[Operation, Callable[[Floats], npt.NDArray[Any]]] = {
    Operation.INVERT: lambda _: 255 - _VALUES,
    Operation.POSTERIZE: lambda bits: _VALUES & (256 - 2 ** (8 - bits.astype(np.int64).clip(0, 8))),
    Operation.SOLARIZE: lambda start: np.where(start > _VALUES, _VALUES, 255 - _VALUES),
    Operation.SOLARIZE_ADD: lambda added: np.where(
        _VALUES < 128, (_VALUES + added).clip(max=255), _VALUES
    ),
    Operation.BRIGHTNESS: lambda factor: (
        factor.astype(np.float32) * _VALUES.astype(np.float32)
    ).clip(0, 255),
}


def _rotation(degrees: Floats, height: int, width: int) -> Floats:
    """Turn counter-clockwise around the centre, as Pillow's Image.rotate."""
    angle = -np.radians(degrees)
    a, b = np.cos(angle), np.sin(angle)
    x, y = width / 2, height / 2
    return np.concatenate([a, b, x - a * x - b * y, -b, a, y + b * x - a * y], axis=1)


def _matrix(*entries: Floats | float) -> Floats:
    return np.concatenate(np.broadcast_arrays(*entries), axis=1)


# (R, 1) arguments -> (R, 6) matrices.
_MATRICES: dict[Operation, Callable[[Floats, int, int], Floats]] = {
    Operation.ROTATE: _rotation,
    Operation.SHEAR_X: lambda factor, *_: _matrix(1, factor, 0, 0, 1, 0),
    Operation.SHEAR_Y: lambda factor, *_: _matrix(1, 0, 0, factor, 1, 0),
    Operation.TRANSLATE_X: lambda share, _, width: _matrix(1, 0, share * width, 0, 1, 0),
    Operation.TRANSLATE_Y: lambda share, height, _: _matrix(1, 0, 0, 0, 1, share * height),
}


def _blur_weights(std: float) -> Floats:
    """Return the weights of three box blurs, which Pillow's GaussianBlur does one after another.

    Source: Pillow's BoxBlur.c, after Gwosdek et al., "Theoretical Foundations of Gaussian
    Convolution by Extended Box Filtering", 2011.
    """
    variance = std * std / _BLUR_PASSES
    whole = int((np.sqrt(12 * variance + 1) - 1) / 2)
    edge = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance)
    edge /= 6 * (variance - (whole + 1) ** 2)
    box = np.concatenate([[edge], np.ones(2 * whole + 1), [edge]]) / (2 * (whole + edge) + 1)
    weights = np.convolve(np.convolve(box, box), box)
    return np.pad(weights, (BLUR_TAPS - len(weights)) // 2)
