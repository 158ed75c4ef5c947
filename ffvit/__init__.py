"""Attention-free vision models and the FFCV pipeline that trains them on ImageNet."""

import os

# torch's CPU threads (GNU OpenMP) wait for each other by spinning, some milliseconds by default.
# Where anything else wants a core, be it our own decoding threads, that costs most of the speed:
# training on two cores beside one busy process ran at 54 images/s, and at 480 with this. It must be
# set before torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__version__ = "0.1.0"

from ffvit.timm_registration import register_with_timm

register_with_timm()
