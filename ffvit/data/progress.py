"""What a write or a copy tells its user while it runs, on standard error."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

_LINE_INTERVAL_S = 10.0

_Item = TypeVar("_Item")


class Progress:
    """A bar with images/s on a terminal, a line every few seconds elsewhere.

    Args:
        total: Images of the whole, or bytes.
        name: Of the whole.
        num_done: Images that were there before, or bytes.
        is_bytes: Whether bytes are counted; they are shown in MB.
    """

    def __init__(self, total: int, name: str, num_done: int = 0, is_bytes: bool = False) -> None:
        self._total = total
        self._name = name
        self._num_done = num_done
        self._unit = "MB" if is_bytes else "images"
        self._scale = 1e6 if is_bytes else 1.0
        self._bar = tqdm(
            total=total,
            initial=num_done,
            desc=name,
            unit="B" if is_bytes else " images",
            unit_scale=is_bytes,
            disable=not sys.stderr.isatty(),
            file=sys.stderr,
        )

    def __enter__(self) -> "Progress":  # noqa: PYI034 - Self needs Python 3.11
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def count(
        self, items: Iterable[_Item], size: Callable[[_Item], int] = lambda _: 1
    ) -> Iterator[_Item]:
        """Pass the items on and count them: each is one image, or `size` of them, or bytes."""
        begin = last = time.monotonic()
        number = 0
        for item in items:
            yield item
            self._bar.update(size(item))
            number += size(item)
            now = time.monotonic()
            if self._bar.disable and now - last >= _LINE_INTERVAL_S:
                last = now
                done = (self._num_done + number) / self._scale
                rate = number / self._scale / (now - begin)
                say(
                    f"{self._name}: {done:,.0f} of {self._total / self._scale:,.0f} {self._unit}, "
                    f"{rate:,.0f} {self._unit}/s"
                )


def say(text: str) -> None:
    """Print a line to standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
