"""Top-1, top-5 and cross-entropy over a validation set, on torchmetrics.

Dimensions: B batch, K classes.
"""

import warnings

import torch
import torch.nn.functional as F
from torchmetrics import SumMetric
from torchmetrics.classification import MulticlassAccuracy


class Evaluation:
    """Accumulates one pass over a validation set on the device, and sums it over all ranks.

    Updates never wait for the device; `compute` does, once, through torchmetrics' own
    synchronization. Ranks may hold different numbers of images, or none.
    """

    def __init__(self, num_classes: int, device: torch.device) -> None:
        """Start empty.

        Args:
            num_classes: K; with fewer than 5, `top_5` counts the best K and is 1.
            device: Where logits and labels will come from.
        """
        self._top_1, self._top_5 = (
            MulticlassAccuracy(
                num_classes, top_k=min(k, num_classes), average="micro", validate_args=False
            ).to(device)
            for k in (1, 5)
        )
        # The default strategy looks for NaN on the host; a float32 count stops growing at 2**24.
        self._loss, self._num_samples = (
            SumMetric(nan_strategy="disable").to(device).set_dtype(torch.float64) for _ in range(2)
        )

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Count one batch.

        Args:
            logits: [B, K], any floating type.
            labels: [B] int64 in [0, K).
        """
        if len(labels) == 0:
            return
        logits = logits.detach().float()
        self._top_1.update(logits, labels)
        self._top_5.update(logits, labels)
        self._loss.update(F.cross_entropy(logits, labels, reduction="sum"))
        self._num_samples.update(torch.ones_like(labels))

    def compute(self) -> dict[str, float | int]:
        """Return `top_1`, `top_5` (0..1), `loss` (mean per image) and `num_samples` of all ranks.

        Every rank must call it, and gets the same values. Call it once: it ends the pass.

        Raises:
            ValueError: No rank saw an image.
        """
        with warnings.catch_warnings():
            # A rank without images is legitimate here, and still takes part in the sums.
            warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
            num_samples = int(self._num_samples.compute())
            top_1, top_5 = float(self._top_1.compute()), float(self._top_5.compute())
            loss = float(self._loss.compute())
        if num_samples == 0:
            raise ValueError("an evaluation without images has no accuracy")
        return {
            "top_1": top_1,
            "top_5": top_5,
            "loss": loss / num_samples,
            "num_samples": num_samples,
        }
