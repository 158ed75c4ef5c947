"""Measure where the time of a training run goes, without training it.

Takes the options of train_imagenet.py (`--config FILE`, `--section.option=value`) and runs under
torchrun, too. At the run's lowest and highest resolution it times the loader alone, each stage of
the model alone, and both at once; then it says which one bounds the run and what to change. It
writes OUT/profile.md, and OUT/trace.json.gz for Perfetto or chrome://tracing. Takes about a minute
per resolution on a GPU.
"""

import argparse
import os
import sys
from pathlib import Path

# The rest of the command line is for ffvit.config.
TAKES_TRAIN_OPTIONS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument(
        "--out", type=Path, help="folder for table and trace; default: profiles/<name of config>"
    )


def run(options: argparse.Namespace) -> None:
    """Profile a run.

    Raises:
        UserError: As for training; or the folder cannot be written.
    """
    # Kineto reports on stderr when it starts and ends, and that there is no GPU.
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")
    from ffvit.assembly import assemble  # noqa: PLC0415
    from ffvit.config import load_train_config  # noqa: PLC0415
    from ffvit.distributed import join_ranks  # noqa: PLC0415
    from ffvit.environment import describe_environment  # noqa: PLC0415
    from ffvit.errors import UserError  # noqa: PLC0415
    from ffvit.profiling import break_down, to_markdown, verdict, write_trace  # noqa: PLC0415

    config, name = load_train_config(options.train_options)
    folder = options.out or Path("profiles") / name
    with join_ranks(config.run.timeout_s) as ranks:
        parts = assemble(config, ranks)
        if ranks.is_primary:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(
                    f"{folder}: cannot write there ({error.strerror}); choose another with --out.",
                    is_local=True,
                ) from None
        resolutions = sorted({parts.resolutions[0], parts.resolutions[-1]})
        breakdowns = [break_down(parts, resolution) for resolution in resolutions]
        write_trace(parts, resolutions[-1], folder / "trace.json.gz")
        if ranks.is_primary:
            environment = describe_environment()
            device = environment["gpus"][0] if ranks.num_gpus else environment["cpu"]
            lines = [
                f"# {name}: {config.model.name}, {ranks.world_size} x {device}",
                "",
                *to_markdown(breakdowns),
                "",
            ]
            for breakdown in breakdowns:
                sentence, *advice = verdict(parts, breakdown)
                lines += [sentence, "", *(f"- {line}" for line in advice), ""]
            text = "\n".join(lines)
            (folder / "profile.md").write_text(text)
            sys.stdout.write(f"{text}\n{folder}: profile.md, trace.json.gz\n")
        parts.close()
