"""Everything between source images and batches on the device; the room that talks to ffcv.

Importing ffcv has two side effects on the whole process, so it happens here, once, before any
module of this package: it starts numba's threading layer (TBB can hang at interpreter exit, OpenMP
kills forked children; we compile no parallel function, so the plain work queue does) and it sets
torch to a single thread, which is undone.
"""

import os

import torch

os.environ.setdefault("NUMBA_THREADING_LAYER", "workqueue")
_num_threads = torch.get_num_threads()

import ffcv  # noqa: E402, F401 - the variable above must be set first

torch.set_num_threads(_num_threads)
