"""What is wrong with this machine, found with nothing but the standard library.

`probes.py` lists the probes; `examine.py` runs each in a process of its own, as what they touch may
raise, crash or hang. Here lies what both sides of that process share.
"""

import dataclasses
from pathlib import Path

OK, WARNING, ERROR = "ok", "warning", "error"

# Where the repository is, if this is a checkout.
REPOSITORY = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        level: OK, WARNING (it works, but slowly or not for long) or ERROR (training cannot work).
        name: Of what was looked at, one or two words.
        text: What was found.
        mend: What to do: a command, or a sentence. Empty where all is well.
    """

    level: str
    name: str
    text: str
    mend: str = ""


def in_bytes(num_bytes: float) -> str:
    """Show a number of bytes with the unit that fits."""
    size, unit = num_bytes / (1 << 10), "KiB"
    for larger in ("MiB", "GiB", "TiB"):
        if size >= 1000:
            size, unit = size / 1024, larger
    return f"{size:,.0f} {unit}" if size >= 10 else f"{size:.1f} {unit}"
