"""The process of one probe: `python -m ffvit.doctor NAME [BETON]`, a JSON object per finding."""

import dataclasses
import json
import os
import sys

from ffvit.doctor.probes import PROBES


def main(name: str, *arguments: str) -> None:
    """Run one probe; each finding is written as soon as it is there."""
    # What libraries print goes to standard error, which is shown only if the probe fails.
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for finding in PROBES[name].run(*arguments):
        report.write(json.dumps(dataclasses.asdict(finding)) + "\n")
        report.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
