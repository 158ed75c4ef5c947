"""What a user can get wrong: errors that are printed as one line and end a command with status 2.

Everything else that goes wrong is a bug and keeps its traceback.
"""

import contextlib
import os
import sys
from collections.abc import Iterator


class UserError(Exception):
    """A wrong input: one line on what was expected, what came, from where, and what to do.

    Args:
        message: That line.
        is_local: Only this process met it; other errors are the same in all of a machine.
    """

    def __init__(self, message: str, *, is_local: bool = False) -> None:
        super().__init__(message)
        self.is_local = is_local


class ConfigError(UserError):
    """An option that does not exist, has the wrong type, or contradicts another."""


class SourceError(UserError):
    """Source images that are missing, unreadable, or not laid out as expected."""


class BetonError(UserError):
    """A file that is not a whole, readable beton, or one that does not fit the run."""


class CheckpointError(UserError):
    """A checkpoint that is damaged or belongs to another model."""


class StallError(UserError):
    """A loader that gives no batch any more, such as one that waits for a dead disk."""


class RankError(UserError):
    """Another process of the run that is gone, or does not answer."""


class DivergenceError(UserError):
    """A loss that is no longer a finite number."""


class TrackerError(UserError):
    """A tracker such as Weights & Biases that cannot start."""


def check_option(name: str, value: object, expected: str, is_valid: bool) -> None:
    """Raise a `ConfigError` that says what was expected of an option, unless it is valid."""
    if not is_valid:
        raise ConfigError(f"{name}={value}: expected {expected}; change it.")


def printable(text: str) -> str:
    """Escape what is invisible in a text from a file: control characters would steer a terminal."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, at most 200 characters; its type if it has none."""
    return (str(error).strip().partition("\n")[0] or type(error).__name__)[:200]


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Print a `UserError` as one line on stderr and exit with status 2.

    Under torchrun the first process of each machine prints what all its processes meet, and any
    process what it alone met.
    """
    try:
        yield
    except UserError as error:
        if error.is_local or os.environ.get("LOCAL_RANK", "0") == "0":
            message = printable(" ".join(str(error).split()))
            with contextlib.suppress(OSError):  # a file on a full disk: the status still tells
                sys.stderr.write(f"error: {message}\n")
        raise SystemExit(2) from None
