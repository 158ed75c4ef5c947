"""What a write tells its user while it runs, on standard error."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

_LINE_INTERVAL_S = 10.0

_Item = TypeVar("_Item")


class Progress:
    """A bar with images/s on a terminal, a line every few seconds elsewhere.

    Args:
        total: Images of the whole.
        name: Of the whole.
        num_done: Images that were there before.
    """

    def __init__(self, total: int, name: str, num_done: int = 0) -> None:
        self._total = total
        self._name = name
        self._num_done = num_done
        self._bar = tqdm(
            total=total,
            initial=num_done,
            desc=name,
            unit=" images",
            disable=not sys.stderr.isatty(),
            file=sys.stderr,
        )

    def __enter__(self) -> "Progress":  # noqa: PYI034 - Self needs Python 3.11
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def count(self, images: Iterable[_Item]) -> Iterator[_Item]:
        """Pass the images on and count them."""
        begin = last = time.monotonic()
        for number, image in enumerate(images, start=1):
            yield image
            self._bar.update()
            now = time.monotonic()
            if self._bar.disable and now - last >= _LINE_INTERVAL_S:
                last = now
                rate = number / (now - begin)
                say(
                    f"{self._name}: {self._num_done + number:,} of {self._total:,} images, "
                    f"{rate:,.0f} images/s"
                )


def say(text: str) -> None:
    """Print a line to standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
