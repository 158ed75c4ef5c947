"""Runs the experiments that decide recipes, or what is left of them.

python -m benchmarks.proxy a a2         do those runs of these that are not done
python -m benchmarks.proxy --list       the experiments, and how many of their runs are done
python -m benchmarks.proxy costs        measure what an update costs at each resolution
python -m benchmarks.proxy page         keep new runs in benchmarks/results/, and write the tables

Each finished run is a line in runs/proxy/, until `page` keeps it. Started twice, the two share the
runs between them; stopped at any moment, a run is lost and no more. Each takes one core.
"""

import argparse
import sys

from benchmarks.proxy.experiments import EXPERIMENTS
from ffvit.errors import ConfigError, one_line_errors


def main(argv: list[str]) -> None:
    """Do what is asked."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.proxy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", nargs="*", help=f"costs, page, or {', '.join(EXPERIMENTS)}")
    parser.add_argument("--list", action="store_true", help="say how far the experiments are")
    parser.add_argument("--arms", help="only these of the experiments' arms: a,b")
    parser.add_argument("--seeds", type=int, help="runs of each arm; default: the experiment's")
    options = parser.parse_args(argv)
    if options.list or not options.what:
        from benchmarks.proxy import page  # noqa: PLC0415

        say(page.progress())
        return
    if options.seeds is not None and options.seeds < 1:
        raise ConfigError(f"--seeds={options.seeds}: expected 1 or more.")
    for what in options.what:
        if what not in (*EXPERIMENTS, "costs", "page"):
            raise ConfigError(f"{what}: expected costs, page or one of {', '.join(EXPERIMENTS)}.")
    for what in options.what:
        if what == "costs":
            measure_costs()
        elif what == "page":
            from benchmarks.proxy import page  # noqa: PLC0415

            say(page.write())
        else:
            do_runs(what, options.seeds, options.arms)


def measure_costs() -> None:
    """Measure all that comparisons at equal time need."""
    from benchmarks.proxy import costs, data  # noqa: PLC0415 - imports torch

    data.prepare()
    rows = [row for experiment in EXPERIMENTS.values() for row in experiment.rows]
    at_equal_time = [row for row in rows if row.against is not None and row.at_equal == "time"]
    arms = [arm for row in at_equal_time for arm in (row.arm, row.against) if arm is not None]
    measurement = costs.measure(arms)
    say(costs.write(measurement))
    for name in measurement["ms_per_update"]:
        say(f"{name}: {costs.relative_cost(measurement, name):.3f}")


def do_runs(name: str, num_seeds: int | None, arm_names: str | None) -> None:
    """Do the missing runs of an experiment, all arms of a seed before the next seed."""
    from benchmarks.proxy import data, training  # noqa: PLC0415 - imports torch
    from benchmarks.proxy.results import (  # noqa: PLC0415
        NEW_RESULTS,
        RESULTS,
        append_result,
        claimed,
        of_arm,
        read_results,
    )

    experiment = EXPERIMENTS[name]
    known = {arm.name: arm for arm in experiment.arms}
    chosen = arm_names.split(",") if arm_names else list(known)
    for arm_name in chosen:
        if arm_name not in known:
            raise ConfigError(f"--arms={arm_name}: expected some of {', '.join(known)}.")
    data.prepare()
    for seed in range(num_seeds or experiment.num_seeds):
        for arm in (known[arm_name] for arm_name in chosen):
            with claimed(arm, seed) as is_mine:
                # Read after the claim: another process may just have finished it.
                if not is_mine or seed in of_arm(read_results(RESULTS, NEW_RESULTS), arm):
                    continue
                measured = training.run(arm, seed)
                append_result(arm, seed, measured)
                say(f"{name}: {arm.name}, seed {seed}: top-1 {measured['top_1']:.2%}")


def say(line: str) -> None:
    """Print a line."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])
