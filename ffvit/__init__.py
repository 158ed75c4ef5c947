"""Attention-free vision models and the FFCV pipeline that trains them on ImageNet.

The functions of `ffvit.api` are attributes of this package; it is imported when the first is used.
"""

import os
from typing import Any

from ffvit.timm_registration import register_with_timm

# torch's CPU threads (GNU OpenMP) wait for each other by spinning, some milliseconds by default.
# Where anything else wants a core, be it our own decoding threads, that costs most of the speed:
# training on two cores beside one busy process ran at 54 images/s, and at 480 with this. It must be
# set before torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__version__ = "0.1.0"

register_with_timm()

_API = (
    "create_model",
    "normalize",
    "report",
    "train",
    "train_loader",
    "val_loader",
    "write_betons",
)


def __getattr__(name: str) -> Any:
    """Import `ffvit.api` when one of its functions is asked for: it needs torch and ffcv."""
    if name not in _API:
        raise AttributeError(f"module 'ffvit' has no attribute {name!r}")
    from ffvit import api  # noqa: PLC0415

    return getattr(api, name)


def __dir__() -> list[str]:
    """List what can be asked for, too."""
    return sorted((*globals(), *_API))
