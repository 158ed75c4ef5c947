"""Names of classes: which of a model's a data set means, and a short form for pictures."""

import re
from collections.abc import Sequence

from ffvit.errors import ConfigError, printable

_WORDNET_ID = re.compile(r"n\d{8}(?=\s|$)")


def match_classes(names: Sequence[str], known: Sequence[str], origin: str) -> list[int]:
    """Find each name among those of a model; `n01440764` and `n01440764 tench` are one class.

    Args:
        names: Of the data set's classes, which may be some of the model's.
        known: Of the model's classes.
        origin: Of the data set, for messages.

    Returns:
        The model's label of each name.

    Raises:
        ConfigError: A name that the model does not have.
    """
    label_of = {_identity(name): label for label, name in enumerate(known)}
    missing = [name for name in names if _identity(name) not in label_of]
    if missing:
        raise ConfigError(
            f"{origin}: expected classes of the model, such as {printable(known[0])!r}, but "
            f"{len(missing)} of {len(names)} are not, such as {printable(missing[0])!r}; rename "
            "them, or take another model."
        )
    return [label_of[_identity(name)] for name in names]


def short_name(name: str) -> str:
    """Leave out a WordNet id that words follow, and all but the first of them: "tench"."""
    found = _WORDNET_ID.match(name)
    words = name[found.end() :].strip() if found else ""
    return words.partition(",")[0] or name


def _identity(name: str) -> str:
    found = _WORDNET_ID.match(name)
    return found[0] if found else name
