"""A picture of a config's data: as stored, as the model will see them at each resolution.

Takes the options of train_imagenet.py: --config FILE, --section.option=value.
"""

import argparse
import sys
from pathlib import Path

from ffvit.errors import ConfigError

# The rest of the command line is for ffvit.config.
TAKES_TRAIN_OPTIONS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument(
        "--out", type=Path, default=Path("preview.png"), help="file for it [preview.png]"
    )


def run(options: argparse.Namespace) -> None:
    """Draw the picture.

    Raises:
        UserError: An option or a beton is wrong, or the file cannot be written.
    """
    from ffvit.config import load_train_config  # noqa: PLC0415
    from ffvit.preview import preview  # noqa: PLC0415

    config, _ = load_train_config(options.train_options)
    known = (".png", ".jpg", ".jpeg", ".webp")
    if options.out.suffix.lower() not in known or not options.out.parent.is_dir():
        raise ConfigError(
            f"--out={options.out}: expected a name with {', '.join(known)} in a folder that exists."
        )
    sheet = preview(config)
    try:
        sheet.save(options.out)
    except OSError as error:
        raise ConfigError(f"--out={options.out}: cannot write it ({error}).") from None
    sys.stdout.write(f"{options.out}: {sheet.width} x {sheet.height} pixels\n")
