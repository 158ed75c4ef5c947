"""Every option of every command: one frozen dataclass per section.

The only declaration of an option: name, type, default and a line of help. config.py fills them in.
No meaning lives here: a section is checked by whoever reads it.
"""

import dataclasses
from typing import Any


def option(default: Any, help_text: str) -> Any:
    """Declare one field of a section with the line of help that `--help` prints."""
    return dataclasses.field(default=default, metadata={"help": help_text})


@dataclasses.dataclass(frozen=True)
class DataSection:
    """Where the images are and how training crops are cut from them."""

    train_path: str = option(
        "betons/imagenet/train.beton",
        "beton with the training images, or several: a,b*.beton; also URLs, s3://bucket/a.beton",
    )
    val_path: str = option(
        "betons/imagenet/val.beton", "beton with the validation images, or several"
    )
    stage_dir: str = option(
        "", "folder that betons at URLs are copied to, on a local disk; empty: one in $TMPDIR"
    )
    num_workers: int = option(
        0, "decode threads per process; 0: this process's share of the CPU cores"
    )
    min_scale: float = option(0.08, "smallest training crop, as a fraction of the image's area")
    flip: bool = option(True, "mirror half of the training images")
    repeats: int = option(
        1, "crops of an image in an epoch, which then shows 1/repeats of the images"
    )
    order: str = option(
        "random", "training order: random, or blocks for betons larger than memory (see window_gib)"
    )
    window_gib: float = option(2.0, "blocks: images mixed with each other, GiB of the beton")
    on_error: str = option(
        "stop", "at a training image that cannot be decoded: stop, or skip (show another, count)"
    )
    watchdog_s: float = option(
        300.0, "seconds without a batch after which the run stops with all stacks; 0: never"
    )


@dataclasses.dataclass(frozen=True)
class AugmentSection:
    """What is done to training images on the device."""

    policy: str = option(
        "", "RandAugment as timm writes it (rand-m9-mstd0.5-inc1), 3a (3-Augment), or empty: none"
    )
    color_jitter: float = option(
        0.0, "change brightness, contrast and saturation by up to this share; 0: do not"
    )
    erasing: float = option(0.0, "share of the images of which a box is erased with noise")
    ramp_start: float = option(
        1.0, "share of policy's magnitude and of erasing when the resolution's ramp begins"
    )
    mixup: float = option(0.0, "alpha of mixup's Beta distribution; 0: no mixup")
    cutmix: float = option(0.0, "alpha of CutMix's Beta distribution; 0: no CutMix")
    mixup_prob: float = option(1.0, "share of the groups that are mixed, by either")
    mixup_switch_prob: float = option(0.5, "of those, the share that gets CutMix if both are on")
    mixup_mode: str = option(
        "batch", "what shares a draw: batch (a whole group), pair (image and partner), or elem"
    )
    mixup_group: int = option(
        128, "consecutive images that are mixed with each other, the first with the last"
    )


@dataclasses.dataclass(frozen=True)
class ModelSection:
    """Which network is trained."""

    name: str = option("ff_base_patch16_224", "one of ours, or any timm model")
    num_classes: int = option(0, "classes of the head; 0: as many as the training beton names")
    image_size: int = option(
        0, "side of the canonical token grid's image, pixels; 0: the model's own"
    )
    patch_size: int = option(0, "side of a patch, pixels; 0: the model's own")
    embed_dim: int = option(0, "channels; 0: the model's own")
    depth: int = option(0, "blocks; 0: the model's own")
    drop_rate: float = option(0.0, "dropout probability")
    drop_path_rate: float = option(
        0.0, "stochastic depth of the last block; earlier blocks linearly less"
    )
    resampler: str = option(
        "dct", "token grids other than the canonical: dct, area, bilinear, bicubic, nearest"
    )


@dataclasses.dataclass(frozen=True)
class ResolutionSection:
    """Progressive resizing: the side of the training images, by epoch."""

    min_res: int = option(224, "first training resolution, pixels")
    max_res: int = option(224, "last training resolution, pixels")
    start_ramp: int = option(0, "epoch at which the resolution begins to grow")
    end_ramp: int = option(0, "epoch from which on it is max_res")
    multiple: int = option(16, "resolutions are rounded to multiples of this, pixels")


@dataclasses.dataclass(frozen=True)
class LrSection:
    """The learning rate, per step."""

    lr: float = option(1e-3, "peak learning rate at a global batch of base_batch_size")
    base_batch_size: int = option(
        0, "the batch lr is stated for, scaled linearly to the run's; 0: the run's own"
    )
    schedule: str = option(
        "linear", "after the warm-up: linear or cosine to min_lr, or step; or deit, by epoch"
    )
    warmup_epochs: float = option(0.0, "epochs of linear warm-up")
    warmup_lr: float = option(0.0, "learning rate at step 0, scaled like lr (not for deit)")
    min_lr: float = option(0.0, "learning rate at the end, scaled like lr (not for deit or step)")


@dataclasses.dataclass(frozen=True)
class TrainingSection:
    """The optimization."""

    epochs: int = option(88, "passes over the training images")
    global_batch_size: int = option(1024, "images per optimizer update, over all processes")
    accumulation_steps: int = option(1, "micro-batches per update and process")
    optimizer: str = option("adamw", "adamw or sgd (Nesterov off)")
    momentum: float = option(0.9, "momentum of sgd, beta1 of adamw")
    weight_decay: float = option(
        0.05, "decoupled for adamw; never on norms, biases and the class token"
    )
    decay_positions: bool = option(
        False, "decay position embeddings, too, as the FF models' author did"
    )
    label_smoothing: float = option(0.0, "probability mass spread over all classes")
    clip_grad: float = option(0.0, "largest gradient norm; 0: no clipping")
    ema_decay: float = option(0.0, "decay of the averaged weights, per update; 0: none are kept")
    mixed_precision: bool = option(True, "bf16 autocast on a GPU (a CPU always computes in fp32)")
    compile: bool = option(False, "torch.compile, one graph per resolution")
    seed: int = option(0, "seed of initialisation, order, crops and dropout")


@dataclasses.dataclass(frozen=True)
class ValidationSection:
    """How a model is measured."""

    batch_size: int = option(256, "images per process and step")
    resolution: int = option(224, "side of the validation images, pixels")
    ratio: float = option(
        0.875, "side of the centre crop as a fraction of the image's shorter side"
    )
    filter: str = option("area", "resize filter: area (triangle where it enlarges) or bicubic")
    flip_average: bool = option(False, "average the logits of the image and its mirror image")


@dataclasses.dataclass(frozen=True)
class RunSection:
    """The run's folder and what is written into it."""

    folder: str = option("", "run folder; empty: runs/<name of the config file>")
    mode: str = option(
        "train", "train; data_only or model_only: measure the loader or the model, write nothing"
    )
    resume: str = option(
        "auto", "auto: go on from the folder's latest checkpoint; never: refuse a used folder"
    )
    checkpoint_minutes: float = option(
        15.0, "a checkpoint within an epoch every so many minutes, and at its end; 0: at its end"
    )
    checkpoint_steps: int = option(0, "a checkpoint every so many updates, too; 0: none")
    keep: int = option(2, "checkpoints that stay, besides the best: the newest ones")
    timeout_s: float = option(
        600.0, "seconds that a process waits for the others before it gives up"
    )
    log_interval: int = option(50, "updates between two log lines, and between looks at the loss")
    trackers: str = option(
        "", "where records go besides the run folder: tensorboard, wandb or both"
    )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """All that `train_imagenet.py` reads."""

    data: DataSection = DataSection()
    augment: AugmentSection = AugmentSection()
    model: ModelSection = ModelSection()
    resolution: ResolutionSection = ResolutionSection()
    lr: LrSection = LrSection()
    training: TrainingSection = TrainingSection()
    validation: ValidationSection = ValidationSection()
    run: RunSection = RunSection()


@dataclasses.dataclass(frozen=True)
class WriteSection:
    """All that `write_imagenet.py` reads."""

    data_dir: str = option("", "folder or archive with the source images; empty: $IMAGENET_DIR")
    out_dir: str = option("betons/imagenet", "folder for train.beton and val.beton")
    source: str = option("auto", "layout: auto, folders, imagenet, kaggle, shards, parquet, cifar")
    split: str = option("all", "what to write: all, train or val")
    val_labels: str = option(
        "", "ground-truth file of a flat val folder: one label, or file name and label, per line"
    )
    val_fraction: float = option(
        0.1, "share held out for val where the source has no val split; 0: none"
    )
    mode: str = option(
        "jpg", "jpg: encode anew; raw: pixels; passthrough: keep small baseline JPEGs as they are"
    )
    max_side: int = option(500, "longer side is shrunk to this, pixels; 0: no limit")
    short_side: int = option(0, "shorter side is shrunk to this, pixels; 0: no limit")
    jpeg_quality: int = option(90, "JPEG quality, 1 to 100")
    chroma: str = option("420", "chroma subsampling of encoded JPEGs: 420, 422 or 444")
    restart_interval: int = option(4, "MCUs between restart markers; 0: none")
    max_pixels: int = option(
        89_478_485, "an image with more pixels is refused before it is decoded (Pillow's limit)"
    )
    on_error: str = option(
        "stop", "an image that cannot be read: stop, or skip it and list it in the manifest"
    )
    resume: bool = option(
        False, "keep what is written when interrupted, and go on with what an earlier run left"
    )
    subset: int = option(
        0, "write only so many images of each split, evenly over the classes; 0: all"
    )
    shuffle: bool = option(True, "store the images in a random order instead of by class")
    seed: int = option(0, "seed of the shuffle, the subset and the held-out split")
    num_workers: int = option(0, "encoding processes; 0: one per CPU core")
