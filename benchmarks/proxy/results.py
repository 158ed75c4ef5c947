"""Finished runs, one JSON object per line, and which runs are still to be done.

They are first collected in runs/, which git does not see, so that runs can go on while others are
committed. A run counts for an arm if its recipe is the arm's as it is now: who changes an arm does
its runs again, and old lines stay without being read.
"""

import fcntl
import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.machine import REPOSITORY, describe_machine, short_name
from benchmarks.proxy.arms import Arm

RESULTS = REPOSITORY / "benchmarks" / "results"
NEW_RESULTS = REPOSITORY / "runs" / "proxy"
SUBJECT = "proxy"
_KEPT_OF_MACHINE = ("cpu", "num_cpu_cores", "git_commit", "has_uncommitted_changes")


def read_results(*folders: Path) -> list[dict[str, Any]]:
    """Read all runs of all machines in these folders; default: those that are kept in git."""
    lines = [
        line
        for folder in folders or (RESULTS,)
        for path in sorted(folder.glob(f"{SUBJECT}_*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    return [json.loads(line) for line in lines]


def keep_new_results() -> int:
    """Move new runs and costs to those that are kept in git; returns how many runs there were."""
    for path in NEW_RESULTS.glob("*.json"):
        path.replace(RESULTS / path.name)
    count = 0
    for path in sorted(NEW_RESULTS.glob(f"{SUBJECT}_*.jsonl")):
        with path.open("r+") as new, (RESULTS / path.name).open("a") as kept:
            fcntl.flock(new, fcntl.LOCK_EX)
            text = new.read()
            kept.write(text)
            kept.flush()
            new.truncate(0)
        count += len(text.splitlines())
    return count


def of_arm(results: Iterable[dict[str, Any]], arm: Arm) -> dict[int, dict[str, Any]]:
    """Find the runs of an arm by seed; the latest, where one was done twice."""
    recipe = json.loads(json.dumps(arm.recipe))
    return {
        result["seed"]: result
        for result in results
        if result["arm"] == arm.name and result["recipe"] == recipe
    }


def append_result(arm: Arm, seed: int, measured: dict[str, Any]) -> None:
    """Add a finished run to the new ones: this machine's file of this month."""
    machine = describe_machine()
    record = {
        "arm": arm.name,
        "seed": seed,
        **measured,
        "recipe": arm.recipe,
        "date": time.strftime("%Y-%m-%d"),
        "machine": {key: machine[key] for key in _KEPT_OF_MACHINE},
    }
    NEW_RESULTS.mkdir(parents=True, exist_ok=True)
    path = NEW_RESULTS / f"{SUBJECT}_{short_name(machine)}_{time.strftime('%Y%m')}.jsonl"
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(record) + "\n")


@contextmanager
def claimed(arm: Arm, seed: int) -> Iterator[bool]:
    """Say whether a run is this process's to do; it is nobody else's meanwhile.

    The claim ends with the process, however that ends.
    """
    NEW_RESULTS.mkdir(parents=True, exist_ok=True)
    with (NEW_RESULTS / f"{arm.name}_{seed}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
