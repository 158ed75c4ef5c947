"""A model as other programs load it: a new folder of the Hugging Face hub's layout.

Weights, timm's config and a model card; graphs for ONNX Runtime and torch.export on request. The
folder appears when all of it is written and has been checked.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from ffvit.errors import ConfigError, UserError
from ffvit.models import check_resolutions, set_resolution
from ffvit.models.graphs import export_graph, onnx_difference, save_onnx, save_torch_export
from ffvit.models.hub_folder import read_hub_folder, write_hub_folder
from ffvit.models.model_card import model_card
from ffvit.models.saved import SavedModel


def export_model(
    model: SavedModel,
    out: Path,
    resolutions: Sequence[int] = (),
    onnx: bool = False,
    torch_export: bool = False,
) -> list[tuple[str, str]]:
    """Write a model into a new folder.

    Args:
        model: On the CPU.
        out: Must not exist yet.
        resolutions: Of the graphs, one each, pixels; none: that of the model's protocol.
        onnx: Write ONNX files, and compare ONNX Runtime's logits with ours.
        torch_export: Write torch.export's files.

    Returns:
        Name of each file in the folder, and what it holds.

    Raises:
        ConfigError: `out` exists, or a resolution does not suit the model.
        UserError: The folder cannot be written, or the record of the model's run not be read.
    """
    if out.exists():
        raise ConfigError(f"{out}: expected a new folder to export to; remove it or name another.")
    sizes = list(resolutions) or [model.protocol.resolution]
    check_resolutions(model.name, model.network, sizes)
    with _new_folder(out) as folder:
        files = write_hub_folder(model, folder)
        _check_reload(model, folder)
        for resolution in sizes if onnx or torch_export else ():
            files += _write_graphs(model, folder, resolution, onnx, torch_export)
        card = model_card(model, files)
        (folder / "README.md").write_text(card, encoding="utf-8")
    return [*files, ("README.md", "model card")]


def _write_graphs(
    model: SavedModel, folder: Path, resolution: int, onnx: bool, torch_export: bool
) -> list[tuple[str, str]]:
    """Write the graphs of one resolution; return name and description of each file."""
    files = []
    graph = export_graph(model.network, resolution)
    if onnx:
        name = f"onnx/model_{resolution}.onnx"
        (folder / "onnx").mkdir(exist_ok=True)
        save_onnx(graph, folder / name)
        difference = onnx_difference(model.network, folder / name, resolution)
        text = f"{resolution} px, any batch; ONNX Runtime's logits within {difference:.0e} of torch"
        files.append((name, text))
    if torch_export:
        name = f"model_{resolution}.pt2"
        save_torch_export(graph, folder / name)
        files.append((name, f"for torch.export.load: {resolution} px, any batch"))
    return files


def _check_reload(model: SavedModel, folder: Path) -> None:
    """Load what was written and compare: the same weights give the same bits."""
    reloaded = read_hub_folder(folder).network
    size = model.protocol.resolution
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    for network in (model.network, reloaded):
        set_resolution(network, size)
    with torch.inference_mode():
        if not torch.equal(model.network(images), reloaded(images)):
            raise RuntimeError(f"{folder}: the exported model gives other logits than the run's")


@contextlib.contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """Fill a folder beside its final place; it gets its name when it is whole."""
    temporary = path.with_name(f"{path.name}.tmp.{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.rename(path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot write this folder ({error.strerror or error}); make room or name "
            "another."
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
