"""Write the recipes of the budget ladder, ff_configs/{tiny,base,large}_{16..88}_epochs.yaml.

    python scripts/write_budget_configs.py

The tables below are their only source: change a table, run this, look at the difference. Figures in
the headers come from ffvit/budget.py, and so do the tables of docs/reproduce.md, which are written,
too. A test compares all of it with what this would write.
"""

import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from benchmarks.tables import fill_page  # noqa: E402
from ffvit.budget import (  # noqa: E402
    SIZES,
    TOP_1,
    Budget,
    exponential,
    load_budget,
    load_budgets,
    recommend,
    resolution_ramp,
    rounded,
    shares,
)

FOLDER = REPOSITORY / "ff_configs"
PAGE = REPOSITORY / "docs" / "reproduce.md"
# H100 and H200 have the same peak.
GPUS = {"A100": "A100", "H100 and H200": "H200"}
WIDTH = 100


class Model(NamedTuple):
    """What all budgets of a model share."""

    name: str
    parameters: str
    paper_top_1: str
    multiple: int


class Length(NamedTuple):
    """What the number of epochs decides for every model.

    Attributes:
        warmup: Epochs of rising learning rate.
        low: Epochs at 128 px, some 85 %; the others are at full resolution.
    """

    warmup: int
    low: int


class Strength(NamedTuple):
    """What the number of epochs decides for each model: longer runs and larger models take more.

    Attributes:
        magnitude: Of RandAugment, at full resolution; 0: none. At 128 px it is half of that, as
            erasing is.
        cutmix_share: Of the mixed groups; 0: mixup alone.
    """

    lr: str
    weight_decay: float
    drop_path: float
    min_scale: float
    magnitude: int = 0
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix_share: float = 0.0


MODELS = {
    "tiny": Model("ff_tiny_patch16_224", "7.7 M", "61.4", 16),
    "base": Model("ff_base_patch16_224", "62 M", "74.9", 16),
    "large": Model("ff_large_patch32_224", "206 M", "71.4", 32),
}
# Low resolution nearly to the end, then a short full-resolution finish: better than a ramp of the
# same cost in five of five pairs on Imagenette (docs/proxy.md, a2). Averaged weights gain nothing
# there, as the learning rate ends at 0: there are none.
LENGTHS = {
    16: Length(2, 14),
    24: Length(2, 20),
    32: Length(3, 27),
    40: Length(4, 34),
    56: Length(5, 48),
    88: Length(8, 75),
}
# No RandAugment in short runs: there it cost points in five of six pairs (docs/proxy.md).
STRENGTHS = {
    ("tiny", 16): Strength("3.0e-3", 0.05, 0.0, 0.25),
    ("tiny", 24): Strength("3.0e-3", 0.05, 0.0, 0.25),
    ("tiny", 32): Strength("2.0e-3", 0.05, 0.0, 0.2, 2),
    ("tiny", 40): Strength("2.0e-3", 0.05, 0.0, 0.2, 2),
    ("tiny", 56): Strength("2.0e-3", 0.05, 0.0, 0.08, 4),
    ("tiny", 88): Strength("2.0e-3", 0.05, 0.0, 0.08, 6, mixup=0.05),
    ("base", 16): Strength("1.5e-3", 0.05, 0.0, 0.25),
    ("base", 24): Strength("1.5e-3", 0.05, 0.0, 0.25),
    ("base", 32): Strength("1.5e-3", 0.05, 0.0, 0.08, 7, mixup=0.05),
    ("base", 40): Strength("1.0e-3", 0.1, 0.0, 0.08, 7, mixup=0.05),
    ("base", 56): Strength("1.0e-3", 0.1, 0.03, 0.08, 9, mixup=0.1),
    ("base", 88): Strength("1.0e-3", 0.1, 0.05, 0.08, 9, 0.1, 0.2, 0.25),
    ("large", 16): Strength("1.0e-3", 0.05, 0.05, 0.25, mixup=0.1),
    ("large", 24): Strength("1.0e-3", 0.05, 0.05, 0.25, mixup=0.1),
    ("large", 32): Strength("1.0e-3", 0.1, 0.05, 0.08, 9, mixup=0.1),
    ("large", 40): Strength("1.0e-3", 0.1, 0.05, 0.08, 9, mixup=0.1),
    ("large", 56): Strength("1.0e-3", 0.1, 0.1, 0.08, 9, 0.0, 0.2, 0.125),
    ("large", 88): Strength("1.0e-3", 0.1, 0.1, 0.08, 9, 0.25, 0.35, 0.5),
}


def augment_section(strength: Strength) -> str:
    """Write what is done to images besides crops and flips; nothing if there is nothing."""
    lines = []
    if strength.magnitude:
        lines.append(f"policy: rand-m{strength.magnitude}-mstd0.5-inc1  # RandAugment")
    if strength.erasing:
        lines.append(f"erasing: {strength.erasing}")
    if lines:
        lines.append("ramp_start: 0.5  # half of it at 128 px")
    if strength.mixup:
        lines.append(f"mixup: {strength.mixup}")
    if strength.cutmix_share:
        lines.append("cutmix: 1.0")
        lines.append(f"mixup_switch_prob: {strength.cutmix_share}  # CutMix instead of mixup")
    if strength.mixup:
        lines.append("mixup_group: 128  # must divide the images that a GPU takes at a time")
    return "".join(["augment:\n", *(f"  {line}\n" for line in lines), "\n"]) if lines else ""


def body(size: str, epochs: int) -> str:
    """Write the options of one recipe."""
    model, length, strength = MODELS[size], LENGTHS[epochs], STRENGTHS[size, epochs]
    return f"""\
data:
  train_path: betons/imagenet/train.beton
  val_path: betons/imagenet/val.beton
  min_scale: {strength.min_scale}

{augment_section(strength)}model:
  name: {model.name}
  num_classes: 1000
  drop_path_rate: {strength.drop_path}

resolution:
  min_res: 128
  max_res: 224
  start_ramp: {length.low}
  end_ramp: {length.low}
  multiple: {model.multiple}

lr:
  lr: {strength.lr}
  base_batch_size: 1024
  schedule: linear
  warmup_epochs: {length.warmup}
  warmup_lr: 1.0e-6

training:
  epochs: {epochs}
  global_batch_size: 1024
  optimizer: adamw
  weight_decay: {strength.weight_decay}
  label_smoothing: 0.1
  clip_grad: 1.0
  compile: true

validation:
  resolution: 224
"""


def header(budget: Budget) -> str:
    """Write what a recipe is, costs and may give."""
    model, epochs = MODELS[budget.size], budget.config.training.epochs
    config = f"--config ff_configs/{budget.path.name}"
    title = f"FF-{budget.size} ({model.parameters} parameters): ImageNet in {epochs} epochs"
    low = LENGTHS[epochs].low
    entries = {
        "Paper": 'Melas-Kyriazi, "Do You Even Need Attention?", arXiv:2105.02723, for the model.'
        f" {budget.size}_300_paper.yaml is its recipe, of {model.paper_top_1} %; this one is ours.",
        "Command": f"torchrun --nproc_per_node=8 train_imagenet.py {config}\n"
        f"python train_imagenet.py {config}",
        "Data": "python write_imagenet.py, with IMAGENET_DIR set to the ImageNet images",
        "Compute": compute_entry(budget),
        "Top-1": f"{TOP_1[budget.path.stem]} %, forecast; not measured.",
        "Cost": cost_entry(budget),
        "Protocol": "224 px, centre crop of 0.875, no flip averaging.",
    }
    lines = [f"{title}, {low} at 128 px and {epochs - low} at 224.", ""]
    for key, text in entries.items():
        wrapped = [line for part in text.split("\n") for line in textwrap.wrap(part, WIDTH - 12)]
        lines += [f"{key + ':' if i == 0 else '':10}{line}" for i, line in enumerate(wrapped)]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def compute_entry(budget: Budget) -> str:
    """Say what is computed."""
    return (
        f"{exponential(budget.flops)} FLOPs, forward and backward, for"
        f" {budget.num_images / 1e6:.1f} million images, {resolution_ramp(budget)}; counted."
    )


def cost_entry(budget: Budget) -> str:
    """Say how long that may take."""
    hours = ", ".join(
        f"{rounded(budget.gpu_hours(gpu))} GPU-hours on {names}" for names, gpu in GPUS.items()
    )
    return (
        f"{hours}, forecast at {shares(budget)} of the dense bf16"
        " peak, without validation or waiting for images; not measured."
    )


def tables() -> dict[str, str]:
    """Make what stands in docs/reproduce.md: the paper's recipes, the ladder, and an example."""
    budgets = [budget for size in SIZES for budget in load_budgets(size, FOLDER)]
    papers = [b for b in budgets if b.path.stem.endswith("paper")]
    example = recommend("base", "h200", hours=4)
    return {
        "budget": textwrap.indent(f"\n{example}\n", "    "),
        "paper": table(papers),
        "ladder": table([b for b in budgets if b not in papers]),
    }


def table(budgets: list[Budget]) -> str:
    """Write a row for each recipe; hours are on the clock."""
    columns = [f"hours on 1 / 8 {names}" for names in GPUS]
    rows = [["config", "images, million", "FLOPs", "top-1, %", *columns]]
    rows += [["---"] * len(rows[0])]
    for budget in budgets:
        hours = [budget.gpu_hours(gpu) for gpu in GPUS.values()]
        rows.append(
            [
                f"[{budget.path.stem}](../ff_configs/{budget.path.name})",
                f"{budget.num_images / 1e6:.1f}",
                exponential(budget.flops),
                TOP_1[budget.path.stem],
                *(f"{rounded(one)} / {rounded(one / 8)}" for one in hours),
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def write(folder: Path) -> None:
    """Write all recipes of the ladder into a folder."""
    for size, epochs in STRENGTHS:
        path = folder / f"{size}_{epochs}_epochs.yaml"
        path.write_text(body(size, epochs))
        path.write_text(f"{header(load_budget(path))}\n{body(size, epochs)}")


if __name__ == "__main__":
    write(FOLDER)
    PAGE.write_text(fill_page(PAGE.read_text(), tables()))
