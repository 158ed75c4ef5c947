"""How much a run has to compute: what makes its images per second comparable, and the time left."""

import dataclasses
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Workload:
    """The operations of a run, over all ranks.

    Attributes:
        image_flops: Nominal floating-point operations of training on one image, by resolution.
        epoch_flops: Of each epoch, with its validation.
        peak_flops: What all devices could compute at most, FLOP/s; None where it is not known.
    """

    image_flops: Mapping[int, float]
    epoch_flops: Sequence[float]
    peak_flops: float | None

    def mfu(self, images_per_s: float, resolution: int) -> float | None:
        """Return the share of the peak that the model's own operations take (MFU), 0 to 1.

        Source: Chowdhery et al., PaLM, arXiv:2204.02311, appendix B.
        """
        if self.peak_flops is None:
            return None
        return images_per_s * self.image_flops[resolution] / self.peak_flops

    def time_left_s(
        self, epoch: int, num_images: int, images_per_s: float, resolution: int
    ) -> float:
        """Estimate how long a run still takes, as if each operation took as long as now.

        Where low resolutions use the device less well, or the loader bounds the run, an early
        estimate is too long.

        Args:
            epoch: From 0.
            num_images: Of this epoch that are done.
            images_per_s: Of late.
            resolution: At which that was, pixels.
        """
        flops = self.image_flops[resolution]
        left = sum(self.epoch_flops[epoch:]) - num_images * flops
        return left / (images_per_s * flops)
