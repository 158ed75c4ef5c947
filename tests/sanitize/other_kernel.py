"""A pytest plugin: runs the tests on the build of the kernel that FFVIT_KERNEL names."""

import os
import sys
import types
from pathlib import Path

stand_in = types.ModuleType("ffvit.jpeg._kernel")
stand_in.__file__ = str(Path(os.environ["FFVIT_KERNEL"]).resolve(strict=True))
sys.modules[stand_in.__name__] = stand_in
