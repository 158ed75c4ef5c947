"""A trained model as other programs load it.

Writes a folder of the Hugging Face hub's layout: safetensors, timm's config, a model card; ONNX
and torch.export files on request.
"""

import argparse
import sys
from pathlib import Path

from ffvit.commands._model import add_model_arguments, load_model
from ffvit.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_model_arguments(parser)
    parser.add_argument("out", type=Path, metavar="OUT", help="new folder to write")
    parser.add_argument(
        "--onnx", action="store_true", help="also ONNX, compared with ONNX Runtime's logits"
    )
    parser.add_argument("--torch_export", action="store_true", help="also torch.export's .pt2")
    parser.add_argument(
        "--resolutions",
        default="",
        metavar="PX,PX",
        help="of the ONNX and torch.export files, one each; default: that of the validation",
    )


def run(options: argparse.Namespace) -> None:
    """Write the folder, and print what is in it.

    Raises:
        UserError: The model cannot be read, the folder exists or cannot be written, an option is
            out of its range, or a package is missing.
    """
    from ffvit.models.export import export_model  # noqa: PLC0415
    from ffvit.models.graphs import check_onnx_is_installed  # noqa: PLC0415

    resolutions = _parse_resolutions(options.resolutions)
    if resolutions and not (options.onnx or options.torch_export):
        raise ConfigError(
            f"--resolutions={options.resolutions}: the weights have none; give --onnx or "
            "--torch_export with it, or leave it out."
        )
    if options.onnx:
        check_onnx_is_installed()
    model = load_model(options)
    files = export_model(model, options.out, resolutions, options.onnx, options.torch_export)
    unnamed = "" if model.label_names else "; its classes have no names: its beton is not there"
    lines = [f"{options.out}: {model.name} from {model.origin}{unnamed}"]
    lines += [f"  {name:<24}{text}" for name, text in files]
    sys.stdout.write("\n".join(lines) + "\n")


def _parse_resolutions(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")] if text else []
    except ValueError:
        raise ConfigError(
            f"--resolutions={text}: expected pixels, separated by commas, such as 128,224."
        ) from None
