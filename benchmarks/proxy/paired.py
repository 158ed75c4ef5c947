"""Paired comparisons: means, spreads and intervals over seeds, in points of top-1."""

import dataclasses
import math
import statistics
from collections.abc import Mapping

from scipy.stats import t

CONFIDENCE = 0.95
# How much worse, in points, still counts as no worse.
MARGIN = 1.0


@dataclasses.dataclass(frozen=True)
class Difference:
    """Mean of the differences seed by seed, and its interval, in points.

    Attributes:
        mean: Over the seeds that both arms have.
        low: Lower end of the 95 % interval of Student's t; minus infinity for a single pair.
        high: Its upper end.
        num_pairs: How many pairs.
    """

    mean: float
    low: float
    high: float
    num_pairs: int

    @property
    def verdict(self) -> str:
        """What the interval supports."""
        if self.low > 0:
            return "better"
        if self.low > -MARGIN:
            return "non-inferior"
        return "worse" if self.high < 0 else "not resolved"


def paired_difference(
    values: Mapping[int, float], others: Mapping[int, float]
) -> Difference | None:
    """Compare two arms by the seeds that both have; None if there are none.

    Args:
        values: Top-1 by seed, 0..1.
        others: Likewise, of what it is compared with.
    """
    seeds = sorted(values.keys() & others.keys())
    if not seeds:
        return None
    points = [100 * (values[seed] - others[seed]) for seed in seeds]
    mean = statistics.mean(points)
    if len(points) < 2:
        return Difference(mean, -math.inf, math.inf, len(points))
    quantile = float(t.ppf((1 + CONFIDENCE) / 2, len(points) - 1))
    half = quantile * statistics.stdev(points) / math.sqrt(len(points))
    return Difference(mean, mean - half, mean + half, len(points))
