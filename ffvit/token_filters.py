"""What token mixing learned, as pictures: the first layer of each block's token MLP, unit by unit.

A hidden unit of the token MLP looks at one channel of all patches at once and weighs them; its
weights, laid out as the patches lie in the image, are its picture. Drawn as in MLP-Mixer
(arXiv:2105.01601, figure 5). Legend: M hidden units, G patches along a side, N = 1 + G*G tokens.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.fft import dctn

NUM_SHOWN = 12
CELL_IN = 0.62
LABEL_IN = 1.75
# A white middle and two ends that people with any colour vision tell apart.
COLORS = "PuOr"


@dataclasses.dataclass(frozen=True)
class TokenFilters:
    """The filters of one block, strongest first.

    Attributes:
        images: (M, G, G) weights of the patches, the scale of the LayerNorm before included.
        low_share: Share of their energy in the lower half of frequencies along both axes, without
            the mean, to which a LayerNorm over tokens is blind. Near a quarter for random weights.
        reach: Effective share of the patches that a filter looks at, the mean over filters: 1 where
            all weigh the same, 1 / (G*G) for a single patch, a third for random weights.
    """

    images: NDArray[np.float64]
    low_share: float
    reach: float


def token_filters(
    fc1: NDArray[np.floating], fc2: NDArray[np.floating], scale: NDArray[np.floating]
) -> TokenFilters:
    """Lay out the filters of a token MLP.

    Args:
        fc1: (M, N) weights of the first layer; the first token is the class token, left out.
        fc2: (N, M) weights of the second layer, which say how strongly a unit is listened to.
        scale: (N,) of the LayerNorm before.
    """
    weights = (fc1 * scale).astype(np.float64)
    strength = np.linalg.norm(weights, axis=1) * np.linalg.norm(fc2, axis=0)
    side = math.isqrt(weights.shape[1] - 1)
    images = weights[np.argsort(-strength), 1:].reshape(-1, side, side)
    energy = dctn(images, axes=(1, 2), norm="ortho") ** 2
    energy[:, 0, 0] = 0
    low = energy[:, : side // 2, : side // 2].sum() / max(energy.sum(), np.finfo(float).tiny)
    squares = images.reshape(len(images), -1) ** 2
    reach = squares.sum(1) ** 2 / (squares**2).sum(1) / squares.shape[1]
    return TokenFilters(images, float(low), float(reach.mean()))


def draw_token_filters(layers: Sequence[TokenFilters], title: str, path: Path) -> None:
    """Draw the strongest filters of each block as a row of pictures, each to its own scale."""
    num_shown = min(NUM_SHOWN, *(len(layer.images) for layer in layers))
    width = LABEL_IN + CELL_IN * num_shown + 0.15
    height = CELL_IN * len(layers) + 0.75
    figure = Figure(figsize=(width, height))
    figure.text(0.1 / width, 1 - 0.25 / height, title, fontsize=11, va="center", parse_math=False)
    side = layers[0].images.shape[1]
    quarter = ((side // 2) ** 2 - 1) / (side**2 - 1)
    note = (
        "weight of each patch, orange +, violet -; strongest units. Random weights: "
        f"{quarter:.0%} low, reach about 34%"
    )
    figure.text(0.1 / width, 1 - 0.48 / height, note, fontsize=7.5, va="center", color="#505050")
    for row, layer in enumerate(layers):
        bottom = height - 0.65 - CELL_IN * (row + 1)
        text = f"block {row + 1}\n{layer.low_share:.0%} low frequencies\nreach {layer.reach:.0%}"
        figure.text(0.1 / width, (bottom + CELL_IN / 2) / height, text, fontsize=7.5, va="center")
        for column, image in enumerate(layer.images[:num_shown]):
            left = LABEL_IN + CELL_IN * column
            size = CELL_IN * 0.92
            axes = figure.add_axes((left / width, bottom / height, size / width, size / height))
            limit = float(np.abs(image).max()) or 1.0
            axes.imshow(image, cmap=COLORS + "_r", vmin=-limit, vmax=limit, interpolation="nearest")
            axes.set_axis_off()
    figure.savefig(path, dpi=160, facecolor="white")
