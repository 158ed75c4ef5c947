"""What the two scripts and `python -m ffvit` do, as functions: for notebooks and other programs.

    import ffvit

    betons = ffvit.write_betons(data_dir="photos", out_dir="betons/photos")
    loader = ffvit.train_loader(betons["train"], batch_size=64, resolution=128)
    model = ffvit.create_model("ff_tiny_patch16_224", num_classes=loader.info.num_classes)
    run = ffvit.train("ff_configs/tiny.yaml", {"data.train_path": betons["train"]})
    ffvit.report(run)

All of it is reachable as an attribute of `ffvit`. What a user can get wrong raises
`ffvit.errors.UserError`, whose text is the line that a command would print.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from ffvit import config, models, options
from ffvit.cpus import available_cpus
from ffvit.data import loader as loaders
from ffvit.data.augment import normalize
from ffvit.distributed import join_ranks
from ffvit.reports import write_report

__all__ = [
    "create_model",
    "normalize",
    "report",
    "train",
    "train_loader",
    "val_loader",
    "write_betons",
]


def write_betons(**write_options: Any) -> dict[str, Path]:
    """Write labelled images into betons, as write_imagenet.py does.

    Args:
        **write_options: Its options, such as `data_dir`, `out_dir`, `max_side`: the fields of
            `ffvit.options.WriteSection`.

    Returns:
        Name of each split ("train", "val") and its beton.

    Raises:
        UserError: An option is wrong, or the images cannot be read.
    """
    from write_imagenet import write_splits  # noqa: PLC0415

    return write_splits(config.make_section(options.WriteSection, "write", write_options))


def train_loader(
    betons: str | Path,
    batch_size: int,
    resolution: int = 224,
    *,
    seed: int = 0,
    num_threads: int = 0,
    device: torch.device | str = "cpu",
    **data_options: Any,
) -> loaders.Loader:
    """Make an iterable of random crops: shuffled, the last partial batch left out.

    It has `len`, `set_epoch(epoch, resolution)`, and a `state_dict` from which it goes on in the
    middle of an epoch. Within an initialised torch.distributed each process gets its share.

    Args:
        betons: One, or several as "a,b*.beton".
        batch_size: Images of this process.
        resolution: Side of the images, pixels.
        seed: Of order, crops and flips.
        num_threads: For decoding; 0: one per CPU core that this process may use.
        device: Where batches are put.
        **data_options: Other fields of `ffvit.options.DataSection`, such as `min_scale`, `flip`.

    Returns:
        A loader of batches with `images`, (B, H, W, 3) uint8, and `labels`, (B,) int64, the
        caller's to keep; `normalize` makes of the images what a model takes.

    Raises:
        UserError: A file is not a whole beton, or an option is out of its range.
    """
    section = config.make_section(
        options.DataSection, "data", {"train_path": str(betons), **data_options}
    )
    rank, world_size = _place()
    return loaders.create_train_loader(
        section,
        resolution=resolution,
        global_batch_size=batch_size * world_size,
        batch_size=batch_size,
        seed=seed,
        rank=rank,
        world_size=world_size,
        num_threads=num_threads or available_cpus(),
        device=torch.device(device),
        copy=True,
    )


def val_loader(
    betons: str | Path,
    batch_size: int = 256,
    resolution: int = 224,
    *,
    num_threads: int = 0,
    device: torch.device | str = "cpu",
    **validation_options: Any,
) -> loaders.Loader:
    """Make an iterable of centre crops: each image once, in the beton's order.

    Args:
        betons: One, or several as "a,b*.beton".
        batch_size: Images of this process; the last batch may have fewer.
        resolution: Side of the images, pixels.
        num_threads: For decoding; 0: one per CPU core that this process may use.
        device: Where batches are put.
        **validation_options: Other fields of `ffvit.options.ValidationSection`: `ratio`, `filter`.

    Returns:
        A loader as `train_loader` returns it.

    Raises:
        UserError: A file is not a whole beton, or an option is out of its range.
    """
    given = {"batch_size": batch_size, "resolution": resolution, **validation_options}
    rank, world_size = _place()
    return loaders.create_val_loader(
        options.DataSection(val_path=str(betons)),
        config.make_section(options.ValidationSection, "validation", given),
        rank=rank,
        world_size=world_size,
        num_threads=num_threads or available_cpus(),
        device=torch.device(device),
        copy=True,
    )


def create_model(name: str, num_classes: int = 1000, **model_options: Any) -> nn.Module:
    """Create one of our models, or any of timm's, with fresh weights.

    Args:
        name: Such as ff_tiny_patch16_224, ff_base_patch16_224, resnet18_blurpool.
        num_classes: Of the head.
        **model_options: Other fields of `ffvit.options.ModelSection`, such as `drop_rate`.

    Returns:
        A network for (B, 3, H, W) images. A feed-forward model runs at any multiple of its patch
        size; `ffvit.models.set_resolution` prepares one that is compiled.

    Raises:
        UserError: No such model, or an option that it does not have.
    """
    section = config.make_section(options.ModelSection, "model", {"name": name, **model_options})
    return models.create_model(section, num_classes)


def train(
    config_file: str | Path,
    overrides: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
) -> Path:
    """Train in this process, as train_imagenet.py does; goes on with a run that was interrupted.

    For several GPUs start train_imagenet.py with torchrun instead.

    Args:
        config_file: Such as ff_configs/base.yaml.
        overrides: Options by dotted name, such as {"training.epochs": 16}.
        folder: The run folder; None: the config's `run.folder`, or runs/<name of the file>.

    Returns:
        The run folder: `ffvit.runlog.load_run` reads its records, `report` draws them.

    Raises:
        UserError: An option is wrong, a beton cannot be read, or training diverged.
    """
    from train_imagenet import main  # noqa: PLC0415

    texts = {k: str(v) if isinstance(v, Path) else v for k, v in (overrides or {}).items()}
    settings = config.make_train_config([str(config_file)], texts)
    run = Path(folder or settings.run.folder or f"runs/{Path(config_file).stem}")
    with join_ranks(settings.run.timeout_s) as ranks:
        main(settings, run, ranks)
    return run


def report(*runs: str | Path, out: str | Path | None = None) -> Path:
    """Write table and charts of one or several runs.

    Args:
        *runs: Run folders.
        out: Folder to write to; None: the run's own, or report/ for several.

    Returns:
        The report, in Markdown.

    Raises:
        UserError: A folder is no run's.
    """
    folders = [Path(run) for run in runs]
    default = folders[0] if len(folders) == 1 else Path("report")
    return write_report(folders, Path(out) if out is not None else default)


def _place() -> tuple[int, int]:
    """Return rank and number of processes."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1
