"""Runs a few lines of Python in a process of its own, which may hang, crash or be killed."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ffcv.fields import IntField, RGBImageField
from ffcv.types import ALLOC_TABLE_TYPE, HeaderType, get_metadata_type

RECORDS_AT = 24 + 2 * 1041
REPOSITORY = Path(__file__).resolve().parents[2]

# What the scripts on our loader begin with.
OURS = """
import gc, os, sys, threading, time
import numpy as np, torch
from ffvit.data.loader import create_train_loader, create_val_loader
from ffvit.options import DataSection, ValidationSection
CPU = torch.device("cpu")
def train_loader(path, batch_size=4, num_threads=2, copy=False, **options):
    return create_train_loader(DataSection(train_path=path, **options), 32, batch_size, batch_size,
        seed=0, rank=0, world_size=1, num_threads=num_threads, device=CPU, copy=copy)
def val_loader(path, batch_size=4):
    return create_val_loader(DataSection(val_path=path), ValidationSection(resolution=32,
        batch_size=batch_size), rank=0, world_size=1, num_threads=2, device=CPU)
def num_threads():
    return len(os.listdir("/proc/self/task"))
def rss_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6
def wait_until(is_true):
    for _ in range(600):
        if is_true():
            return
        time.sleep(0.05)
    raise SystemExit("waited 30 s for nothing")
"""

# What the scripts on stock ffcv begin with.
STOCK = """
import os, sys, threading, time
import numpy as np, torch
from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import Squeeze, ToTensor
def stock_loader(path, batch_size=4, num_workers=1, order=OrderOption.SEQUENTIAL, **options):
    pipelines = {"image": [RandomResizedCropRGBImageDecoder((32, 32)), ToTensor()],
                 "label": [IntDecoder(), ToTensor(), Squeeze(1)]}
    return Loader(path, batch_size=batch_size, num_workers=num_workers, order=order,
                  pipelines=pipelines, **options)
"""


class Outcome(NamedTuple):
    """How a process ended.

    Attributes:
        status: Exit status, minus the signal that killed it, or None: it was still running.
        stdout: What it printed.
        stderr: What it complained of.
    """

    status: int | None
    stdout: str
    stderr: str


def run_script(
    script: str, *arguments: object, timeout_s: float = 120, **environment: str
) -> Outcome:
    """Run a script; one that still runs after `timeout_s` is killed."""
    command = [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            cwd=REPOSITORY,
            env=os.environ | environment,
        )
    except subprocess.TimeoutExpired as error:
        texts = [(text or b"").decode() for text in (error.stdout, error.stderr)]
        return Outcome(None, *texts)
    return Outcome(done.returncode, done.stdout, done.stderr)


def run_soundly(script: str, *arguments: object, timeout_s: float = 120) -> str:
    """Run a script that must end with status 0; return what it printed."""
    outcome = run_script(script, *arguments, timeout_s=timeout_s)
    assert outcome.status == 0, outcome
    return outcome.stdout


def write_tables_of_imagenet(path: Path, sample: Path, num_samples: int) -> None:
    """Write a sparse beton with the tables of so many images, and nothing in their place.

    Args:
        path: The file, which looks 55 kB per image big.
        sample: A beton whose header is taken.
        num_samples: Images.
    """
    image_bytes, first = 55_000, 64 << 20
    header = np.fromfile(sample, dtype=HeaderType, count=1)
    header["num_samples"] = num_samples
    header["alloc_table_ptr"] = first + num_samples * image_bytes
    records = np.zeros(num_samples, dtype=get_metadata_type([RGBImageField(), IntField()]))
    table = np.zeros(num_samples, dtype=ALLOC_TABLE_TYPE)
    table["sample_id"] = np.arange(num_samples)
    table["ptr"] = first + np.arange(num_samples) * image_bytes
    table["size"] = image_bytes
    records["f0"]["data_ptr"] = table["ptr"]
    records["f0"]["height"], records["f0"]["width"] = 375, 500
    records["f1"] = np.arange(num_samples) % 1000
    with path.open("wb") as file:
        file.write(header.tobytes())
        file.write(sample.read_bytes()[HeaderType.itemsize : RECORDS_AT])
        file.write(records.tobytes())
        file.seek(int(header["alloc_table_ptr"][0]))
        file.write(table.tobytes())
