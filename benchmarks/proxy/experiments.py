"""The experiments: which arms are compared with which, and why.

Arms that are to cost the same were given their epochs from the measured costs
(`python -m benchmarks.proxy costs`); tables say what each costs.
"""

import dataclasses
from typing import Any, Literal

from benchmarks.proxy.arms import FULL, LOW, MIXER, RESNET, VIT, Arm, arm, ramp

EPOCHS = 12


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One row of a table.

    Attributes:
        arm: What is asked about.
        against: What it is compared with, seed by seed; None: with nothing.
        title: What the arm is, in words.
        at_equal: What the two have in common: epochs, or time (cost).
    """

    arm: Arm
    against: Arm | None
    title: str
    at_equal: Literal["epochs", "time"] = "epochs"


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A question and the runs that answer it.

    Attributes:
        question: In one sentence.
        rows: Of its table.
        num_seeds: Runs of each arm, seeds from 0.
    """

    question: str
    rows: tuple[Comparison, ...]
    num_seeds: int = 5

    @property
    def arms(self) -> list[Arm]:
        """All arms, each once; those that others are compared with first."""
        against = [row.against for row in self.rows if row.against is not None]
        named = {a.name: a for a in (*against, *(row.arm for row in self.rows))}
        return list(named.values())


constant = arm("constant", (FULL, EPOCHS))
constant_10 = arm("constant_10", (FULL, 10))
constant_14 = arm("constant_14", (FULL, 14))
ramped = ramp("ramp", EPOCHS, start=4, end=9, shows_switches=True)
ramped_long = ramp("ramp_long", 18, start=7, end=14)


def resampled(resampler: str) -> Arm:
    """Make the ramp with another resampler."""
    model = {"resampler": resampler}
    return ramp(f"ramp_{resampler}", EPOCHS, start=4, end=9, shows_switches=True, model=model)


raw_resize = ramp(
    "ramp_raw_resize",
    EPOCHS,
    start=4,
    end=9,
    shows_switches=True,
    model={"name": "proxy_raw_resize"},
)

RESOLUTION = Experiment(
    "Does a growing resolution cost accuracy at equal epochs, and does it win any at equal time?",
    (
        Comparison(constant, None, "80 px throughout"),
        Comparison(constant_10, None, "80 px throughout"),
        Comparison(constant_14, None, "80 px throughout"),
        Comparison(ramped, constant, "48 to 80 px"),
        Comparison(ramped, constant_10, "48 to 80 px", "time"),
        Comparison(ramped_long, constant_14, "48 to 80 px", "time"),
    ),
)
RESAMPLERS = Experiment(
    "Does it matter how token weights change grid?",
    (
        Comparison(ramped, None, "dct (the default)"),
        Comparison(resampled("area"), ramped, "area"),
        Comparison(resampled("bilinear"), ramped, "bilinear"),
        Comparison(resampled("nearest"), ramped, "nearest"),
        Comparison(raw_resize, ramped, "weights resized like images, not rescaled"),
    ),
)
SHAPE = Experiment(
    "Which shape of the schedule is best, most at the time of the ramp of 12 epochs?",
    (
        Comparison(ramped, None, "ramp from 48 px"),
        *(
            Comparison(other, ramped, title, "time")
            for other, title in (
                (arm("two_steps", (LOW, 6), (64, 3), (FULL, 3)), "two steps"),
                (arm("finish_3", (LOW, 10), (FULL, 3)), "48 px, then 3 epochs at 80 px"),
                (arm("finish_2", (LOW, 12), (FULL, 2)), "48 px, then 2 epochs at 80 px"),
                (arm("finish_1", (LOW, 14), (FULL, 1)), "48 px, then 1 epoch at 80 px"),
                (ramp("ramp_from_32", 13, start=5, end=10, low=32), "ramp from 32 px"),
                (
                    arm("finish_2_from_32", (32, 14), (FULL, 2)),
                    "32 px, then 2 epochs at 80 px",
                ),
            )
        ),
        Comparison(
            arm("finish_2_of_12", (LOW, 10), (FULL, 2)), ramped, "48 px, then 2 epochs at 80 px"
        ),
    ),
)

constant_cosine = arm("constant_cosine", (FULL, EPOCHS), lr={"schedule": "cosine"})
by_timm = arm("timm", (FULL, EPOCHS), lr={"schedule": "cosine"}, is_timm=True)
TRAINER = Experiment(
    "Does our trainer reach the accuracy of timm's training script, and what is better or worse?",
    (
        Comparison(by_timm, None, "timm's classes, cosine"),
        Comparison(constant_cosine, by_timm, "our trainer, cosine"),
        Comparison(constant, by_timm, "our trainer, linear"),
        Comparison(constant, constant_cosine, "our trainer, linear"),
    ),
)

BUDGETS = {6: (2, 5), EPOCHS: (4, 9)}  # epochs: start and end of the ramp


def budget(epochs: int, suffix: str = "", **options: Any) -> Arm:
    """Make a ramp of so many epochs; without a suffix the one of the other experiments."""
    start, end = BUDGETS[epochs]
    if epochs == EPOCHS:
        shows_switches = not suffix
        return ramp(f"ramp{suffix}", epochs, start, end, shows_switches=shows_switches, **options)
    return ramp(f"ramp_{epochs}{suffix}", epochs, start, end, **options)


def settings(
    question: str, suffix: str, title: str, num_seeds: int = 3, **options: Any
) -> Experiment:
    """Compare a changed option with the base at the two smaller budgets."""
    rows = []
    for epochs in (6, EPOCHS):
        rows.append(Comparison(budget(epochs), None, f"{epochs} epochs"))
        changed = budget(epochs, suffix, **options)
        rows.append(Comparison(changed, budget(epochs), f"{epochs} epochs, {title}"))
    return Experiment(question, tuple(rows), num_seeds)


LEARNING_RATE = settings(
    "Is twice the learning rate better, in a short and in a longer run?",
    "_lr_6e-3",
    "6e-3",
    lr={"lr": 6e-3},
)
AUGMENTATION = settings(
    "Does RandAugment help, in a short and in a longer run?",
    "_randaugment",
    "RandAugment of magnitude 5",
    augment={"policy": "rand-m5-mstd0.5-inc1"},
)
HEAD = settings(
    "Is the mean of the patches a better head than the class token?",
    "_mean_pool",
    "mean of the patches",
    num_seeds=5,
    model={"name": "proxy_mean_pool"},
)

DEEP = {"depth": 6}
LAYER_SCALE = Experiment(
    "Does LayerScale help a model of six blocks?",
    (
        Comparison(budget(6, "_deep", model=DEEP), None, "six blocks"),
        Comparison(
            budget(6, "_layer_scale", model={**DEEP, "name": "proxy_layer_scale"}),
            budget(6, "_deep", model=DEEP),
            "six blocks, LayerScale",
        ),
    ),
)

TEACHER = Experiment(
    "Does a ResNet's opinion in the targets help, and is it worth its time?",
    (
        Comparison(ramped, None, "no teacher"),
        Comparison(budget(EPOCHS, "_soft", teaching="soft"), ramped, "its probabilities"),
        Comparison(budget(EPOCHS, "_hard", teaching="hard"), ramped, "its first choice"),
        Comparison(
            ramp("ramp_10_soft", 10, start=3, end=8, teaching="soft"),
            ramped,
            "its probabilities, fewer epochs",
            "time",
        ),
    ),
)


def ladder() -> Experiment:
    """Compare the FF model, two schedules, with others that take as long, at three budgets."""
    rows = []
    for constant_arm, finish, mixer, vit, resnet in (
        (arm("constant_7", (FULL, 7)), ((LOW, 8), (FULL, 2)), 7, 5, 6),
        (constant_14, ((LOW, 18), (FULL, 3)), 14, 10, 12),
        (arm("constant_28", (FULL, 28)), ((LOW, 38), (FULL, 5)), 27, 20, 25),
    ):
        epochs = len(constant_arm.resolutions)
        others = (
            (arm(f"late_{epochs}", *finish), "FF, low resolution, then full"),
            (arm(f"mixer_{epochs}", (FULL, mixer), model=MIXER), "Mixer"),
            (arm(f"vit_{epochs}", (FULL, vit), model=VIT), "ViT"),
            (arm(f"resnet_{epochs}", (FULL, resnet), model=RESNET), "ResNet"),
        )
        rows.append(Comparison(constant_arm, None, "FF at 80 px"))
        rows += [Comparison(other, constant_arm, title, "time") for other, title in others]
    return Experiment("What does a budget of time buy, by schedule and by model?", tuple(rows))


EXPERIMENTS = {
    "a": RESOLUTION,
    "resamplers": RESAMPLERS,
    "a2": SHAPE,
    "b": ladder(),
    "d": TRAINER,
    "lr": LEARNING_RATE,
    "augment": AUGMENTATION,
    "head": HEAD,
    "layer_scale": LAYER_SCALE,
    "teacher": TEACHER,
}
