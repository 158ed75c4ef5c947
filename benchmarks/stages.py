"""Where the kernel's time goes: it runs with one stage after the other left out (stages.cpp).

python -m benchmarks.stages [ROUNDS]    random crops at 224 px of our beton; the fastest target
"""

import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import betons
from benchmarks.machine import REPOSITORY
from benchmarks.quality import random_boxes
from ffvit.errors import ConfigError, one_line_errors
from ffvit.jpeg.crops import random_flip
from ffvit.jpeg.header import read_header

RESOLUTION = 224
# A stage is what one variant of stages.cpp does and the next one does not.
STAGES = (
    "along the columns, colour",
    "along the rows",
    "samples: inverse DCT, clipping of colours",
    "entropy decoding, unstuffing, filter weights",
    "restart markers",
    "headers",
)
_SOURCES = ("baseline", "filters", "frame", "huffman", "resizer", "segments", "target")
_FLAGS = ("-std=c++17", "-O3", "-ffp-contract=off", "-Iffvit/jpeg")
# As in ffvit/jpeg/CMakeLists.txt.
_TARGETS = {
    "x86_64": {"target_plain": "", "target_avx2": "-mavx2 -mbmi -mbmi2 -mmovbe"},
    "aarch64": {"target_plain": "", "target_neon": ""},
}
_JPEG = 0


def measure(num_rounds: int) -> dict[str, float]:
    """Run all variants in turn.

    Args:
        num_rounds: Of all variants; one more warms up.

    Returns:
        Microseconds of processor time per image, by stage: the median of the rounds.

    Raises:
        ConfigError: The beton is not there yet, or the program does not compile.
    """
    with tempfile.TemporaryDirectory() as folder:
        jobs, program = Path(folder) / "jobs", Path(folder) / "stages"
        jobs.write_bytes(_jobs())
        _compile(program)
        command = [str(program), str(jobs), str(num_rounds)]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rounds = [[float(value) for value in line.split()] for line in output.splitlines()]
    stages = [
        [left - right for left, right in zip(row, [*row[1:], 0.0], strict=True)] for row in rounds
    ]
    medians = [round(statistics.median(column), 1) for column in zip(*stages, strict=True)]
    return dict(zip(STAGES, medians, strict=True))


def _jobs() -> bytes:
    """Write down the crops as stages.cpp reads them."""
    images = betons.stored_images(betons.OURS)
    rows, begin = [], 0
    for index, data, box in random_boxes(images, RESOLUTION):
        header = read_header(data)
        flip = random_flip(0, 0, index)
        rows.append((begin, len(data), _JPEG, header.height, header.width, *box, flip))
        begin += len(data)
    numbers = np.array([len(rows), begin, RESOLUTION], dtype=np.int64)
    table = np.array(rows, dtype=np.int64)
    return numbers.tobytes() + table.tobytes() + b"".join(images)


def _compile(program: Path) -> None:
    """Compile stages.cpp with the kernel's decoder; the fast targets need flags of their own."""
    targets = _TARGETS.get(platform.machine(), {"target_plain": ""})
    objects = []
    for name, flags in targets.items():
        objects.append(str(program.with_name(f"{name}.o")))
        _run(f"g++ {' '.join(_FLAGS)} {flags} -c ffvit/jpeg/{name}.cpp -o {objects[-1]}")
    sources = [f"ffvit/jpeg/{name}.cpp" for name in _SOURCES]
    inputs = " ".join(["benchmarks/stages.cpp", *sources, *objects])
    _run(f"g++ {' '.join(_FLAGS)} {inputs} -o {program}")


def _run(command: str) -> None:
    finished = subprocess.run(
        shlex.split(command), cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if finished.returncode != 0:
        reason = finished.stderr.strip().partition("\n")[0]
        raise ConfigError(f"stages.cpp: expected it to compile, but {reason}; run `make setup`.")


def main(argv: list[str]) -> None:
    """Measure and print."""
    stages = measure(int(argv[0]) if argv else 7)
    total = sum(stages.values())
    for name, microseconds in stages.items():
        sys.stdout.write(f"{microseconds:8.1f} us {microseconds / total:6.1%}  {name}\n")
    sys.stdout.write(f"{total:8.1f} us per image\n")


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])
