"""What a trained model gets right and wrong by class: kept in a run folder, drawn, read back.

`python -m ffvit explain` measures it; `report` and the run's page show it, without torch.
Legend: K classes.
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from ffvit.charts import PALETTE, STYLE
from ffvit.errors import UserError, printable
from ffvit.label_names import short_name

FOLDER = "explanation"
DATA_NAME = "classes.json"
# So many classes still have their names at a confusion matrix, so many their counts in its cells.
MAX_NAMED, MAX_COUNTED = 40, 20
MAX_BARS = 40
NAME_LENGTH = 24
# File name, heading and description of each picture, in the order in which they are shown.
PICTURES = {
    "confusion.png": (
        "Which classes are taken for which",
        "confusion matrix, a row for each true class, a column for each predicted one",
    ),
    "classes.png": ("Accuracy by class", "top-1 accuracy of each class, lowest first"),
    "most_wrong.png": (
        "Most wrong",
        "the validation images with the highest loss: their class, and what they are taken for",
    ),
    "token_mixing.png": (
        "What token mixing learned",
        "for each block, how the strongest filters of its token MLP weigh the patches",
    ),
}


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What one model did with every validation image.

    Attributes:
        label_names: Of the K classes.
        confusion: (K, K) images by true class and predicted class.
        weights: Which checkpoint the model is from, for the reader.
    """

    label_names: list[str]
    confusion: NDArray[np.int64]
    weights: str

    @property
    def top_1(self) -> float:
        """Share of the images that are right."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    def class_accuracy(self) -> list[tuple[str, int, float]]:
        """Return name, number of images and top-1 of each class that has images, lowest first."""
        counts = self.confusion.sum(1)
        found = [
            (self.label_names[k], int(counts[k]), float(self.confusion[k, k] / counts[k]))
            for k in np.flatnonzero(counts)
        ]
        return sorted(found, key=lambda row: row[2])

    def most_confused(self, count: int) -> list[tuple[str, str, int, int]]:
        """Return true class, predicted class, how often, and of how many; most frequent first."""
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:count]
        pairs = np.stack(np.unravel_index(order, wrong.shape), axis=1)
        return [
            (
                self.label_names[true],
                self.label_names[predicted],
                int(wrong[true, predicted]),
                int(self.confusion[true].sum()),
            )
            for true, predicted in pairs
            if wrong[true, predicted] > 0
        ]

    def save(self, folder: Path) -> None:
        """Write `classes.json`, and draw `confusion.png` and `classes.png`."""
        cells = np.argwhere(self.confusion)
        data = {
            "weights": self.weights,
            "label_names": self.label_names,
            "confusion": [[int(a), int(b), int(self.confusion[a, b])] for a, b in cells],
        }
        (folder / DATA_NAME).write_text(json.dumps(data), encoding="utf-8")
        self._draw_confusion(folder / "confusion.png")
        self._draw_classes(folder / "classes.png")

    def _draw_confusion(self, path: Path) -> None:
        num_classes = len(self.label_names)
        is_named = num_classes <= MAX_NAMED
        rows = self.confusion.sum(1, keepdims=True)
        shares = self.confusion / np.maximum(rows, 1)
        side = max(4.0, 0.26 * num_classes + 2.4) if is_named else 7.5
        with mpl.rc_context(STYLE | {"axes.grid": False}):
            figure = Figure(figsize=(side, side * 0.92), layout=ConstrainedLayoutEngine())
            axes = figure.subplots()
            # The square root makes rare confusions visible.
            image = axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)
            bar = figure.colorbar(image, ax=axes, shrink=0.7)
            ticks = [0, 0.01, 0.05, 0.25, 0.5, 1]
            bar.set_ticks(
                [math.sqrt(tick) for tick in ticks], labels=[f"{100 * tick:g} %" for tick in ticks]
            )
            axes.set_title(f"{self.top_1:.1%} of {self.confusion.sum():,} images are right")
            axes.set_xlabel("predicted class")
            axes.set_ylabel("true class")
            if is_named:
                names = [_short(name) for name in self.label_names]
                axes.set_xticks(range(num_classes), names, rotation=90)
                axes.set_yticks(range(num_classes), names)
            if num_classes <= MAX_COUNTED:
                for true, predicted in np.argwhere(self.confusion):
                    axes.text(
                        predicted,
                        true,
                        str(self.confusion[true, predicted]),
                        ha="center",
                        va="center",
                        fontsize=7,
                        color="white" if shares[true, predicted] > 0.3 else "#202020",
                    )
            figure.savefig(path, dpi=160, facecolor="white")

    def _draw_classes(self, path: Path) -> None:
        found = self.class_accuracy()
        shown = found
        if len(found) > MAX_BARS:
            shown = found[: MAX_BARS * 3 // 4] + found[-MAX_BARS // 4 :]
        title = "Top-1 by class, %"
        if len(found) > len(shown):
            title += f" (the lowest {MAX_BARS * 3 // 4} and the highest {MAX_BARS // 4})"
        with mpl.rc_context(STYLE | {"axes.grid.axis": "x"}):
            figure = Figure(figsize=(6.4, 0.2 * len(shown) + 1.0), layout=ConstrainedLayoutEngine())
            axes = figure.subplots()
            values = [100 * accuracy for _, _, accuracy in shown]
            axes.barh(range(len(shown)), values, color=PALETTE[0], height=0.7)
            for row, ((_, count, _), value) in enumerate(zip(shown, values, strict=True)):
                axes.text(102, row, f"{value:.0f} of {count}", va="center", fontsize=7.5)
            axes.set_yticks(range(len(shown)), [_short(name) for name, _, _ in shown])
            axes.set_xlim(0, 118)
            axes.set_xticks(range(0, 101, 20))
            axes.set_ylim(len(shown) - 0.5, -0.5)
            axes.axvline(100 * self.top_1, color=PALETTE[1], linewidth=1, linestyle="--")
            axes.set_title(f"{title}; dashed: all images")
            figure.savefig(path, dpi=160, facecolor="white")


def load_explanation(run_folder: Path) -> Explanation | None:
    """Read what `explain` left in a run folder; None if nothing.

    Raises:
        UserError: It is damaged.
    """
    path = run_folder / FOLDER / DATA_NAME
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
        names = [str(name) for name in data["label_names"]]
        confusion = np.zeros((len(names), len(names)), np.int64)
        for true, predicted, count in data["confusion"]:
            confusion[true, predicted] = count
        return Explanation(names, confusion, str(data["weights"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{path}: expected what `python -m ffvit explain` wrote ({error}); give that command "
            "again, or remove the file."
        ) from None


def _short(name: str) -> str:
    name = printable(short_name(name))
    return name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"
