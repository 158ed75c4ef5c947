"""What is wrong with this machine: each line ok, warning or error, with what mends it.

Looks at Python and its packages, the JPEG kernel, what compiles them, GPUs, cores, memory, disks
and limits; with --beton also at a beton, its storage and how fast that is read. Works where half of
it is missing. Exit status 1: there is an error.
"""

import argparse
import dataclasses
import json
import sys

from ffvit.doctor import ERROR, WARNING, Finding
from ffvit.doctor.examine import examine_all
from ffvit.errors import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--beton", nargs="+", default=[], metavar="BETON", help="betons to look at, too"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def run(options: argparse.Namespace) -> None:
    """Print the report.

    Raises:
        SystemExit: With status 1, if there is an error.
    """
    findings = []
    for finding in examine_all(options.beton):
        findings.append(finding)
        if not options.json:
            sys.stdout.write(_lines(finding))
            sys.stdout.flush()
    counts = {
        f"num_{level}s": sum(finding.level == level for finding in findings)
        for level in (ERROR, WARNING)
    }
    if options.json:
        record = counts | {"findings": [dataclasses.asdict(finding) for finding in findings]}
        sys.stdout.write(json.dumps(record, indent=1) + "\n")
    else:
        sys.stdout.write(f"{counts['num_errors']} errors, {counts['num_warnings']} warnings\n")
    if counts["num_errors"]:
        raise SystemExit(1)


def _lines(finding: Finding) -> str:
    text = f"{finding.level:8} {finding.name:12} {printable(finding.text)}\n"
    return text + (f"{'':22}-> {printable(finding.mend)}\n" if finding.mend else "")
