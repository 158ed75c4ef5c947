"""kernel.h and kernel.py say the same thing twice; nothing but this compares them."""

import re
from pathlib import Path

from ffvit.jpeg.kernel import FILTERS, JOB_FIELDS, STATUS_TEXT

HEADER = (Path(__file__).resolve().parents[2] / "ffvit" / "jpeg" / "kernel.h").read_text()


def enum(name: str) -> dict[str, int]:
    """Read an enumeration of kernel.h: name and value of each constant."""
    (body,) = re.findall(rf"enum {name} : \w+ {{(.*?)}};", HEADER, re.DOTALL)
    return {key: int(value) for key, value in re.findall(r"k(\w+) = (-?\d+)", body)}


def test_every_status_has_a_text() -> None:
    assert sorted(enum("Status").values()) == sorted(STATUS_TEXT)


def test_filters_have_the_same_numbers() -> None:
    assert {name.lower(): value for name, value in enum("Filter").items()} == FILTERS


def test_jobs_have_the_same_fields_in_the_same_order() -> None:
    (body,) = re.findall(r"struct Job {(.*?)};", HEADER, re.DOTALL)
    assert tuple(re.findall(r"int64_t (\w+);", body)) == JOB_FIELDS
