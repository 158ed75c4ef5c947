"""What a person sees of a run in a terminal: a bar, or plain lines where there is no terminal."""

from collections.abc import Callable, Mapping
from typing import Any

from tqdm import tqdm

# tqdm's own without its updates per second: images per second stand beside it.
BAR_FORMAT = (
    "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
)


class Progress:
    """Counts the steps of one pass and shows how they go."""

    def __init__(
        self,
        say: Callable[[str], None],
        bar: tqdm | None,
        title: str,
        total: int,
        num_done: int = 0,
    ) -> None:
        """Start; use `RunLog.progress`.

        Args:
            say: Prints a line where there is no bar.
            bar: On a terminal.
            title: What is going on, such as "epoch 3/16".
            total: Number of steps.
            num_done: Steps that were done before.
        """
        self._say = say
        self._bar = bar
        self._title = title
        self._total = total
        self._step = num_done

    def advance(self) -> None:
        """Count one step. Prints nothing, except on a bar."""
        self._step += 1
        if self._bar is not None:
            self._bar.update()

    def show(self, record: Mapping[str, Any]) -> None:
        """Show the figures of a step record: beside the bar, or as a line."""
        text = describe_step(record)
        if self._bar is not None:
            self._bar.set_postfix_str(text)
        else:
            self._say(f"{self._title}  step {self._step}/{self._total}  {text}")


def describe_step(record: Mapping[str, Any]) -> str:
    """Say in one line how the last steps went; figures that a record does not have are left out.

    The most important come first, as a narrow terminal cuts the rest off.
    """
    parts = [
        f"{record['images_per_s']:,.0f} images/s",
        f"loss {record['loss']:.3f}",
        f"lr {record['learning_rate']:.3g}",
        f"{record['resolution']} px",
        f"data wait {record['data_wait_fraction']:.0%}",
    ]
    if record.get("time_left_s") is not None:
        parts.append(f"{duration(record['time_left_s'])} left")
    if record.get("mfu") is not None:
        parts.append(f"MFU {record['mfu']:.0%}")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """Write a duration for people: "42 s", "3.4 min", "2.25 h"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.2f} h"
