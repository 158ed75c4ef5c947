"""A model as one graph that needs none of our code: torch.export's and ONNX's.

A graph has one resolution, as token mixing is another matrix at each, and any batch size.
"""

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ffvit.errors import ConfigError
from ffvit.models import set_resolution

INPUT, OUTPUT = "images", "logits"
# ONNX Runtime sums up in another order than torch; differences of float32, as a share of the
# largest logit.
TOLERANCE = 1e-5
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def check_onnx_is_installed() -> None:
    """Check that the optional packages are there.

    Raises:
        ConfigError: One is not.
    """
    missing = [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"--onnx: expected the packages {', '.join(_ONNX_PACKAGES)}, but {', '.join(missing)} "
            "cannot be found; python -m pip install 'ffvit[onnx]'."
        )


def export_graph(network: nn.Module, resolution: int) -> torch.export.ExportedProgram:
    """Trace a network.

    Args:
        network: In evaluation mode, on the CPU.
        resolution: Side of the images, pixels.

    Returns:
        A graph from (B, 3, H, H) float32, H = resolution, to (B, K) logits, for any B.
    """
    set_resolution(network, resolution)
    example = torch.zeros(2, 3, resolution, resolution)
    with _quiet():
        return torch.export.export(
            network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
        )


def save_torch_export(graph: torch.export.ExportedProgram, path: Path) -> None:
    """Write a graph for `torch.export.load`, usually named `.pt2`."""
    with _quiet():
        torch.export.save(graph, path)


def save_onnx(graph: torch.export.ExportedProgram, path: Path) -> None:
    """Write a graph as ONNX, weights included, with `images` and `logits` of any batch size."""
    with _quiet():
        torch.onnx.export(
            graph,
            (),
            path,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def open_onnx(path: Path) -> Any:
    """Open an ONNX file on the CPU.

    The session has no threads of its own: a process forked from this one that frees it, as garbage
    collection may, would wait for them without end.
    """
    import onnxruntime  # noqa: PLC0415 - an optional package

    onnxruntime.disable_telemetry_events()  # on by default from 1.32 on
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def onnx_difference(network: nn.Module, path: Path, resolution: int) -> float:
    """Compare ONNX Runtime with torch on random images, one of them and several at once.

    Args:
        network: What was exported, in evaluation mode on the CPU.
        path: The ONNX file.
        resolution: Of the file, pixels.

    Returns:
        The largest difference between two logits.

    Raises:
        RuntimeError: It is larger than rounding explains.
    """
    session = open_onnx(path)
    generator, largest = torch.Generator().manual_seed(0), 0.0
    for batch_size in (1, 3):
        images = torch.randn(batch_size, 3, resolution, resolution, generator=generator)
        with torch.inference_mode():
            expected = network(images)
        (logits,) = session.run([OUTPUT], {INPUT: images.numpy()})
        difference = float((torch.from_numpy(logits) - expected).abs().max())
        if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
            raise RuntimeError(
                f"{path}: logits of {batch_size} images differ from torch's by {difference:.2g}"
            )
        largest = max(largest, difference)
    return largest


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' remarks on their own inner life from the user's terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
