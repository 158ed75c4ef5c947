"""What a trained model gets right and wrong, and what its token mixing learned.

Measures the best epoch of a run on its validation images as the run did, and leaves in
RUN/explanation the confusion matrix, the accuracy of each class, the images with the highest loss,
and for a feed-forward model the filters of each block's token MLP. RUN/report.md and RUN/index.html
are written anew and show them.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

NUM_WORST, NUM_COLUMNS, CELL_PX = 24, 6, 224


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")


class WrongImage(NamedTuple):
    """A misclassified image, as the model saw it; `share` is what it gave the predicted class."""

    loss: float
    number: int
    pixels: Any
    label: int
    predicted: int
    share: float


def run(options: argparse.Namespace) -> None:
    """Measure, draw, print what was found and where it is."""
    from ffvit.contact_sheet import contact_sheet  # noqa: PLC0415  loads matplotlib
    from ffvit.explanation import FOLDER, Explanation  # noqa: PLC0415
    from ffvit.label_names import short_name  # noqa: PLC0415
    from ffvit.reports import write_report  # noqa: PLC0415
    from ffvit.token_filters import draw_token_filters  # noqa: PLC0415

    trained = _load(options.run)
    confusion, worst = _measure(trained)
    explanation = Explanation(trained.label_names, confusion, trained.weights)
    folder = options.run / FOLDER
    folder.mkdir(exist_ok=True)
    explanation.save(folder)
    rows = [worst[begin : begin + NUM_COLUMNS] for begin in range(0, len(worst), NUM_COLUMNS)]
    if rows:
        names = [short_name(name) for name in trained.label_names]
        sheet = contact_sheet(
            [
                (f"loss {row[0].loss:.2f} to {row[-1].loss:.2f}", np.stack([w.pixels for w in row]))
                for row in rows
            ],
            [
                [f"{names[w.label]}\n{w.share:.0%} {names[w.predicted]}" for w in row]
                for row in rows
            ],
            CELL_PX,
        )
        sheet.save(folder / "most_wrong.png")
    layers = _token_filters(trained.model)
    if layers:
        title = f"{options.run.resolve().name}: what the token MLPs learned"
        draw_token_filters(layers, title, folder / "token_mixing.png")
    path = write_report([options.run], options.run)
    sys.stdout.write(
        f"{trained.weights}: top-1 {explanation.top_1:.2%} of {confusion.sum():,} images\n"
    )
    for true, predicted, count, total in explanation.most_confused(5):
        sys.stdout.write(f"{true}: {count} of {total} taken for {predicted}\n")
    sys.stdout.write(f"{folder}, {path}\n")


class Trained(NamedTuple):
    """A trained model and what it is measured on."""

    model: Any
    loader: Any
    label_names: list[str]
    flip_average: bool
    autocast: Any
    weights: str


def _load(folder: Path) -> Trained:
    """Load the model of a run's best epoch, and open the run's validation images."""
    import torch  # noqa: PLC0415  a list of commands must not wait for it

    from ffvit.config import load_train_config  # noqa: PLC0415
    from ffvit.cpus import available_cpus  # noqa: PLC0415
    from ffvit.data.loader import create_val_loader  # noqa: PLC0415
    from ffvit.models import set_resolution  # noqa: PLC0415
    from ffvit.models.loading import load_saved_model, with_words  # noqa: PLC0415
    from ffvit.runlog import load_run  # noqa: PLC0415

    load_run(folder)  # refuses a folder that is none
    config, _ = load_train_config(["--config", str(folder / "config.yaml")])
    model = load_saved_model(folder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loader = create_val_loader(
        config.data,
        config.validation,
        rank=0,
        world_size=1,
        num_threads=config.data.num_workers or available_cpus(),
        device=device,
    )
    network = model.network.to(device)
    set_resolution(network, config.validation.resolution)
    known = loader.info.label_names or ()
    names = with_words([known[k] if k < len(known) else str(k) for k in range(model.num_classes)])
    is_mixed = config.training.mixed_precision and device.type == "cuda"
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=is_mixed)
    assert model.run is not None
    weights = f"{folder.resolve().name} after step {model.run.step:,}"
    return Trained(network, loader, list(names), config.validation.flip_average, autocast, weights)


def _measure(trained: Trained) -> tuple[Any, list[WrongImage]]:
    """Count every image by true and predicted class; keep the worst of those that are wrong.

    Returns:
        (K, K) counts, and the images, highest loss first.
    """
    import torch  # noqa: PLC0415
    import torch.nn.functional as F  # noqa: PLC0415

    from ffvit.data.augment import normalize  # noqa: PLC0415
    from ffvit.models import logits_of  # noqa: PLC0415

    num_classes = len(trained.label_names)
    confusion = np.zeros((num_classes, num_classes), np.int64)
    worst: list[WrongImage] = []
    number = 0
    with torch.inference_mode():
        for batch in trained.loader:
            images, labels = batch[:2]
            with trained.autocast:
                inputs = normalize(images)
                logits = logits_of(trained.model, inputs, trained.flip_average)
            losses = F.cross_entropy(logits, labels, reduction="none")
            shares, predicted = logits.softmax(1).max(1)
            np.add.at(confusion, (labels.cpu().numpy(), predicted.cpu().numpy()), 1)
            worst += [
                WrongImage(
                    float(losses[index]),
                    number + index,
                    images[index].cpu().numpy().copy(),
                    int(labels[index]),
                    int(predicted[index]),
                    float(shares[index]),
                )
                for index in (predicted != labels).nonzero()[:, 0].tolist()
            ]
            worst = sorted(worst, key=lambda wrong: (-wrong.loss, wrong.number))[:NUM_WORST]
            number += len(labels)
    trained.loader.close()
    return confusion, worst


def _token_filters(model: Any) -> list[Any]:
    """Return the filters of each block of a feed-forward model; none for another network."""
    from ffvit.models import FeedForwardViT  # noqa: PLC0415
    from ffvit.token_filters import token_filters  # noqa: PLC0415

    if not isinstance(model, FeedForwardViT):
        return []
    state = {name: tensor.float().cpu().numpy() for name, tensor in model.state_dict().items()}
    names = ("mlp2.fc1.weight", "mlp2.fc2.weight", "norm2.weight")
    return [
        token_filters(*(state[f"blocks.{index}.{name}"] for name in names))
        for index in range(len(model.blocks))
    ]
