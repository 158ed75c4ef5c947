"""What RandAugment costs on one core, and how near its pixels are to timm's.

python -m benchmarks.augment           2 minutes; writes benchmarks/results/ and the tables of
                                       docs/augmentation.md
python -m benchmarks.augment --quick   seconds: does it work? Prints the tables, writes nothing

Photographs of the project's shared data, 224-pixel centre crops. Contenders take turns in each
round; processor time of one thread, per image.
"""

import argparse
import io
import json
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import auto_augment as timm_augment

from benchmarks.loaders import quartiles
from benchmarks.machine import REPOSITORY, describe_machine, short_name
from benchmarks.tables import fill_page
from ffvit.data.augment import FILL
from ffvit.data.operations import device, host
from ffvit.data.operations.plans import Plan, make_plan
from ffvit.data.operations.policies import Draws, Operation, parse_policy
from ffvit.errors import ConfigError, one_line_errors

SAMPLE = REPOSITORY.parent / "shared" / "data" / "imagenet_sample.tar"
PAGE = REPOSITORY / "docs" / "augmentation.md"
RESULTS = REPOSITORY / "benchmarks" / "results"
SUBJECT = "augment"
POLICY = "rand-m9-mstd0.5-inc1"
RESOLUTION = 224
NUM_IMAGES = 64
BATCH_SIZE = 64
NUM_ROUNDS = 9
NUM_OPERATION_IMAGES = 32
SETTINGS = {"resample": Image.Resampling.BICUBIC, "fillcolor": FILL}
CONTENDERS = ("timm, Pillow", "ours, compiled (CPU)", "ours, torch's operations on the CPU")

Run = Callable[[int], None]


def photographs(num_images: int) -> np.ndarray:
    """Read (num_images, 224, 224, 3) uint8 centre crops."""
    if not SAMPLE.exists():
        raise ConfigError(f"{SAMPLE.name}: expected in ../shared/data, found none.")
    images = []
    with tarfile.open(SAMPLE) as archive:
        for member in archive:
            if not member.name.endswith(".JPEG"):
                continue
            image = Image.open(io.BytesIO(archive.extractfile(member).read())).convert("RGB")  # type: ignore[union-attr]
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            size = (RESOLUTION, RESOLUTION)
            images.append(np.asarray(image.resize(size, box=(left, top, left + side, top + side))))
            if len(images) == num_images:
                break
    return np.stack(images)


def posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """Do timm's, and with no bits what Pillow did: now it raises, and timm with it."""
    black = Image.new("RGB", image.size)
    return timm_augment.posterize(image, bits) if bits else black  # type: ignore[no-untyped-call]


def contenders(images: np.ndarray) -> dict[str, Run]:
    """Make what does RandAugment to all images once, for a number of the round."""
    pillow = [Image.fromarray(image) for image in images]
    timm = timm_augment.rand_augment_transform(
        POLICY,
        {"img_mean": FILL, "interpolation": Image.Resampling.BICUBIC, "translate_const": 100},
    )
    for operation in timm.ops:
        if operation.name == "PosterizeIncreasing":
            operation.aug_fn = posterize
    policy = parse_policy(POLICY)
    assert policy is not None

    def run_timm(_: int) -> None:
        for image in pillow:
            timm(image)

    def run_ours(backend: Any) -> Run:
        def run(number: int) -> None:
            for begin in range(0, len(images), BATCH_SIZE):
                pixels = torch.from_numpy(images[begin : begin + BATCH_SIZE]).clone()
                positions = np.arange(begin, begin + len(pixels))
                plan = make_plan(policy.draw(0, number, positions, 1.0), RESOLUTION, RESOLUTION)
                backend.change_pixels(pixels, plan, FILL)

        return run

    return dict(zip(CONTENDERS, (run_timm, run_ours(host), run_ours(device)), strict=True))


def measure(runs: dict[str, Run], num_rounds: int, num_images: int) -> dict[str, list[float]]:
    """Let each run in each round; return microseconds of processor time per image."""
    for run in runs.values():
        run(num_rounds)  # compiles, touches memory
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(num_rounds):
        names = list(runs) if number % 2 == 0 else list(runs)[::-1]
        for name in names:
            begin = time.process_time()
            runs[name](number)
            times[name].append(1e6 * (time.process_time() - begin) / num_images)
    return times


def timms_arguments(name: str, num: int) -> list[tuple[Any, ...]]:
    """Draw arguments of an operation as RandAugment does at magnitude 9."""
    to_arguments: Any = timm_augment.LEVEL_TO_ARG[name]
    levels = np.random.default_rng(0).normal(9, 0.5, num).clip(0, 10)
    return [() if to_arguments is None else to_arguments(float(level), {}) for level in levels]


def operations(images: np.ndarray, num_rounds: int) -> list[dict[str, Any]]:
    """Compare each operation with timm's, on the same arguments: pixels and time."""
    rows = []
    names = timm_augment._RAND_INCREASING_TRANSFORMS
    for operation, name in zip(list(Operation)[1:16], names, strict=True):
        arguments = timms_arguments(name, len(images))
        numbers = np.array([[a[0] if a else 0.0] for a in arguments])
        draws = Draws(np.full((len(images), 1), operation), numbers)
        plan = make_plan(draws, RESOLUTION, RESOLUTION)
        rows.append({"name": name} | compare(name, images, arguments, plan, num_rounds))
    radii = np.random.default_rng(0).uniform(0.1, 2.0, len(images))
    plan = make_plan(
        Draws(np.full((len(images), 1), Operation.BLUR), radii[:, None]), RESOLUTION, RESOLUTION
    )
    given = [(radius,) for radius in radii.tolist()]
    row = compare("GaussianBlur", images, given, plan, num_rounds)
    return [*rows, {"name": "GaussianBlur"} | row]


def compare(
    name: str, images: np.ndarray, arguments: Sequence[tuple[Any, ...]], plan: Plan, num_rounds: int
) -> dict[str, Any]:
    """Compare one operation."""
    pillow = [Image.fromarray(image) for image in images]
    function: Any = posterize if name == "PosterizeIncreasing" else timm_augment.NAME_TO_OP[name]

    def theirs() -> list[Image.Image]:
        pairs = zip(pillow, arguments, strict=True)
        return [function(image, *given, **SETTINGS) for image, given in pairs]

    def ours(backend: Any) -> np.ndarray:
        pixels = torch.from_numpy(images.copy())
        backend.change_pixels(pixels, plan, FILL)
        return pixels.numpy()

    expected = np.stack([np.asarray(image) for image in theirs()]).astype(np.int16)
    result: dict[str, Any] = {}
    for backend, key in ((host, "cpu"), (device, "torch")):
        difference = np.abs(ours(backend) - expected)
        result[f"max_difference_{key}"] = int(difference.max())
        result[f"changed_share_{key}"] = float((difference > 0).mean())
    runs: dict[str, Run] = {
        "timm": lambda _: (theirs(), None)[1],
        "cpu": lambda _: (ours(host), None)[1],
        "torch": lambda _: (ours(device), None)[1],
    }
    times = measure(runs, num_rounds, len(images))
    return result | {f"us_{key}": quartiles(values) for key, values in times.items()}


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Make the page's tables."""
    times = result["us_per_image"]
    cost = ["| RandAugment at 224 px | us per image | timm / this |", "| --- | --- | --- |"]
    for name in CONTENDERS:
        ratios = [a / b for a, b in zip(times[CONTENDERS[0]], times[name], strict=True)]
        cost.append(
            f"| {name} | {spread(quartiles(times[name]), 0)} | {spread(quartiles(ratios), 2)} |"
        )
    head = (
        "operation",
        "largest difference, levels",
        "values that differ",
        "us: timm",
        "CPU",
        "torch",
    )
    rows = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for row in result["operations"]:
        largest = max(row["max_difference_cpu"], row["max_difference_torch"])
        changed = max(row["changed_share_cpu"], row["changed_share_torch"])
        share = "none" if changed == 0 else f"{100 * changed:.2g} %"
        us = " | ".join(f"{row[f'us_{key}']['median']:.0f}" for key in ("timm", "cpu", "torch"))
        rows.append(f"| {row['name']} | {largest} | {share} | {us} |")
    machine = result["machine"]
    line = (
        f"{result['date']}, {machine['cpu']}, one thread, commit {machine['git_commit'][:7]}; "
        f"{result['num_rounds']} interleaved rounds of {result['num_images']} photographs, "
        "processor time, medians with quartiles."
    )
    return {"run": line, "cost": "\n".join(cost), "operations": "\n".join(rows)}


def spread(values: dict[str, float], digits: int) -> str:
    """Write a median with quartiles."""
    low, median, high = (f"{values[key]:.{digits}f}" for key in ("q1", "median", "q3"))
    return f"{median} [{low} .. {high}]"


def main(argv: list[str]) -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.augment", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke test")
    options = parser.parse_args(argv)
    machine = describe_machine()
    torch.set_num_threads(1)
    num_images = 8 if options.quick else NUM_IMAGES
    num_rounds = 2 if options.quick else NUM_ROUNDS
    images = photographs(num_images)
    result = {
        "subject": "RandAugment on one CPU core, against timm",
        "command": "python -m benchmarks.augment",
        "date": time.strftime("%Y-%m-%d"),
        "policy": POLICY,
        "resolution": RESOLUTION,
        "batch_size": BATCH_SIZE,
        "num_images": num_images,
        "num_rounds": num_rounds,
        "machine": machine,
        "us_per_image": measure(contenders(images), num_rounds, num_images),
        "operations": operations(images[:NUM_OPERATION_IMAGES], min(num_rounds, 3)),
    }
    if not options.quick:
        month = str(result["date"])[:7].replace("-", "")
        path = RESULTS / f"{SUBJECT}_{short_name(machine)}_{month}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
        PAGE.write_text(fill_page(PAGE.read_text(), tables(result)))
    for table in tables(result).values():
        sys.stdout.write(f"\n{table}\n")


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])
