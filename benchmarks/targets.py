"""What the decode path is meant to reach, and whether a run did: one row per aim."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.loaders import quartiles, ratio

Result = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Row:
    """An aim and what was measured.

    Attributes:
        name: What is compared with what.
        bound: The aim, in the unit of `values`.
        is_most: Whether the bound is the most, not the least, that is allowed.
        unit: After figures: "x", " s", " GB".
        values: One per round or run; empty where nothing was measured.
        same_beton: Ratio to stock reading the same beton, one per round; empty where `values` is
            that or it makes no sense.
    """

    name: str
    bound: float
    is_most: bool
    unit: str
    values: list[float]
    same_beton: list[float] = dataclasses.field(default_factory=list)

    def verdict(self) -> str:
        """Say whether the median meets the bound."""
        if not self.values:
            return "not measured"
        median = quartiles(self.values)["median"]
        return "ok" if (median <= self.bound if self.is_most else median >= self.bound) else "short"


def rows(result: Result) -> list[Row]:
    """Compare a whole run with all aims."""
    return [*_against_stock(result), *_against_peers(result), *_costs(result), *_writer(result)]


def as_dicts(result: Result) -> list[dict[str, Any]]:
    """Give the rows as they are kept in the JSON."""
    return [
        {
            "row": row.name,
            "target": f"{'<=' if row.is_most else '>='} {row.bound:g}{row.unit}",
            "measured": _spread(row.values),
            "same_beton": _spread(row.same_beton),
            "verdict": row.verdict(),
        }
        for row in rows(result)
    ]


def _spread(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {key: round(value, 3) for key, value in quartiles(values).items()}


def _against_stock(result: Result) -> Iterator[Row]:
    loaders = result["loaders"]
    for crop, resolution, least in (
        ("", 224, {"ours": 4.5, "old": 3.7}),
        ("", 192, {"ours": 4.5}),
        ("", 160, {"ours": 4.5}),
        ("", 128, {"ours": 4.5}),
        (", centre", 224, {"ours": 4.2, "old": 3.4}),
    ):
        title = "centre crop, ratio 224/256" if crop else "random crop"
        for beton, bound in least.items():
            name = f"ffvit in FFCV, {beton}{crop}"
            same = ratio(loaders, name, f"stock, ours{crop}", resolution) if beton == "ours" else []
            yield Row(
                f"{title}, {resolution} px: ffvit in FFCV's Loader, {beton} / stock, old beton",
                bound,
                is_most=False,
                unit="x",
                values=ratio(loaders, name, f"stock, old{crop}", resolution),
                same_beton=same,
            )


def _against_peers(result: Result) -> Iterator[Row]:
    loaders = result["loaders"]
    for peer in ("DALI CPU", "torchvision decode_jpeg"):
        values = ratio(loaders, "ffvit in FFCV, ours", f"{peer}, JPEGs", 224)
        yield Row(f"random crop, 224 px: ffvit / {peer}, same JPEGs", 4.4, False, "x", values)
    one, two = "ffvit Loader, ours", "ffvit Loader, ours, 2 threads"
    values = ratio(loaders, two, one, 224)
    yield Row("two threads on two cores / one on one, our Loader", 1.9, False, "x", values)


def _costs(result: Result) -> Iterator[Row]:
    ours, stock = result["startup"]["ffvit"], result["startup"]["stock"]
    memory = [ours["anonymous_gb"]] if "anonymous_gb" in ours else []
    batch = result["startup"]["memory_batch_size"]
    name = f"anonymous memory above idle, batch {batch}, 224 px"
    yield Row(name, 0.45, True, " GB", memory)
    yield Row("first batch, compilation included", 2.5, True, " s", ours["first_batch_s"])
    pairs = zip(ours["new_resolution_s"], stock["new_resolution_s"], strict=False)
    values = [a / b for a, b in pairs]
    yield Row("first batch at a new resolution: ffvit / stock", 1.0, True, "x", values)


def _writer(result: Result) -> Iterator[Row]:
    """Read what writer.py measures: ratios to stock's writer by round, of the whole write."""
    ratios = (result.get("writer") or {}).get("ratios", {})
    for name, subject, bound in (
        ("re-encode at up to 500 px", "jpg", 1.5),
        ("passthrough, those over 500 px encoded anew", "passthrough", 8.0),
        ("passthrough of all", "passthrough, all", 8.0),
    ):
        title = f"writer, 2 workers, {name}: ffvit / stock"
        yield Row(title, bound, False, "x", list(ratios.get(subject, {}).get("images_per_s", [])))
