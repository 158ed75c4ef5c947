"""From sample numbers to a batch on the device: ffcv's compiled pipeline over `Storage`.

ffcv's graph compiles the decoders and calls the operations behind them; its Loader is left out
(docs/adr/0011).
"""

import contextlib
import sys
import threading  # noqa: TC003 - as the annotation of an attribute
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.basics import IntDecoder
from ffcv.loader.epoch_iterator import select_buffer
from ffcv.pipeline import PipelineSpec
from ffcv.pipeline.graph import Graph
from ffcv.transforms import Squeeze, ToDevice, ToTensor

from ffvit.data.order import replacement
from ffvit.data.storage import Storage
from ffvit.errors import BetonError, check_option
from ffvit.jpeg.decoders import EPOCH, POSITION, SEED, CropDecoder, JpegError
from ffvit.jpeg.kernel import OUT_OF_MEMORY, STATUS_TEXT

ON_ERROR = ("stop", "skip")
_MAX_ATTEMPTS = 100

Samples = npt.NDArray[np.int32]
Result = tuple[torch.Tensor, torch.Tensor]


class Pipeline:
    """Decodes batches of one data set, one at a time.

    Args:
        storage: The data set.
        decoder: Cuts the images; its threads do the decoding.
        batch_size: Most images of a batch.
        device: Where batches are put.
        on_error: stop at a sample that cannot be decoded, or skip it: show another in its place.

    Attributes:
        damaged: Samples that were met and cannot be decoded, and why.
        user: The thread that was the last to use this; the next one waits for its end.
    """

    def __init__(
        self,
        storage: Storage,
        decoder: CropDecoder,
        batch_size: int,
        device: torch.device,
        on_error: str,
    ) -> None:
        check_option("data.on_error", on_error, " or ".join(ON_ERROR), on_error in ON_ERROR)
        self.storage = storage
        self.decoder = decoder
        self.batch_size = batch_size
        self.device = device
        self.damaged: dict[int, str] = {}
        self.user: threading.Thread | None = None
        self._on_error = on_error
        self._buffers: tuple[tuple[int, int], Any] | None = None
        image_operations, label_operations = [ToTensor()], [ToTensor(), Squeeze(1)]
        if device.type == "cuda":
            # Blocking for the loader's thread alone: the pinned source is not refilled under the
            # copy.
            image_operations.append(ToDevice(device, non_blocking=False))
            label_operations.append(ToDevice(device, non_blocking=False))
        self._metadata = {"f0": storage.images, "f1": storage.labels}
        self._graph = Graph(
            {
                "image": PipelineSpec("image", decoder, image_operations),
                "label": PipelineSpec("label", IntDecoder(), label_operations),
            },
            {"image": RGBImageField(), "label": IntField()},
            {"image": 0, "label": 1},
            self._metadata,
            memory_read=None,  # the decoder reads addresses from the metadata
        )
        self.stages, self._outputs = self._graph.codegen_all(self._graph.collect_requirements()[1])
        # Here and not in the first batch: compiling holds a lock that a forked child would inherit.
        self._decode(np.empty(0, dtype=np.int32), self._graph.allocate_memory(1, 1), 0)

    def allocate(self, num_slots: int) -> Any:
        """Give buffers for so many batches at the decoder's resolution, pinned for a GPU.

        They are those of the epoch before, if its resolution was the same: fresh memory costs more
        than a batch takes to decode.
        """
        wanted = num_slots, self.decoder.resolution
        if self._buffers is None or self._buffers[0] != wanted:
            self._buffers = None  # the old ones are given back first
            self._buffers = wanted, self._graph.allocate_memory(self.batch_size, num_slots)
        return self._buffers[1]

    def run(
        self, samples: Samples, position: int, buffers: Any, slot: int
    ) -> tuple[Result, Samples]:
        """Decode a batch.

        Args:
            samples: (B,) indices into the data set.
            position: Of the first of them in the epoch's global order.
            buffers: Of `allocate`.
            slot: Which of them to fill.

        Returns:
            Images and labels, views of the buffer, and the samples that they are: others than
            `samples` where those cannot be decoded, on_error is skip.

        Raises:
            BetonError: A sample cannot be decoded, or a file has changed.
            MemoryError: There is none for decoding.
        """
        self.storage.check_unchanged()
        for _ in range(_MAX_ATTEMPTS):  # each finds samples that were not known to be damaged
            shown = self._without_damaged(samples, position)
            self.decoder.progress[POSITION] = position
            try:
                return self._decode(shown, buffers, slot), shown
            except JpegError:
                self._note_failures()
        raise self._ruin()

    def _decode(self, samples: Samples, buffers: Any, slot: int) -> Result:
        memory = {
            f"{prefix}_{node}": select_buffer(buffer, slot, len(samples))
            for kind, prefix in (("operation", "memory"), ("shared", "shared_memory"))
            for node, buffer in buffers[kind].items()
        }
        values = {
            "batch_indices": samples,
            "metadata": self._metadata,
            "storage_state": 0,
            **memory,
        }
        for stage, nodes in self.stages:
            for node, result in zip(nodes, stage(**values), strict=True):
                values[f"result_{node}"] = result
        images, labels = (values[f"result_{node}"] for node in self._outputs)
        return images, labels

    def _note_failures(self) -> None:
        """Remember what failed; raise if that is to stop the run."""
        for sample, status in self.decoder.failures().items():
            if status == OUT_OF_MEMORY:
                raise MemoryError(f"no memory to decode {self.storage.describe(sample)}")
            reason = STATUS_TEXT[status]
            if self._on_error == "stop":
                raise BetonError(
                    f"{self.storage.describe(sample)}: expected an image, but {reason}; write the "
                    "beton again from sound images, or set data.on_error=skip to train without it.",
                    is_local=True,
                ) from None
            self.damaged[sample] = reason
            with contextlib.suppress(OSError):  # no terminal any more
                sys.stderr.write(f"warning: {self.storage.describe(sample)} is skipped: {reason}\n")

    def _without_damaged(self, samples: Samples, position: int) -> Samples:
        """Put other samples in the place of damaged ones, by position: alike on any ranks."""
        if not self.damaged:
            return samples
        shown = samples.copy()
        for k in np.flatnonzero(np.isin(samples, list(self.damaged))):
            shown[k] = self._replacement(position + int(k))
        return shown

    def _replacement(self, position: int) -> int:
        seed, epoch = int(self.decoder.progress[SEED]), int(self.decoder.progress[EPOCH])
        for attempt in range(_MAX_ATTEMPTS):
            sample = replacement(self.storage.num_samples, seed, epoch, position, attempt)
            if sample not in self.damaged:
                return sample
        raise self._ruin()

    def _ruin(self) -> BetonError:
        return BetonError(
            f"{self.storage.info.path}: too many samples cannot be decoded, {len(self.damaged)} so "
            f"far; {_MAX_ATTEMPTS} attempts found none for one place; write the beton again.",
            is_local=True,
        )
