"""What is measured: models, resolutions, batches, and who trains them."""

import dataclasses

FF = ("ffvit", "definition", "ffvit, compiled", "definition, compiled")
TIMM = ("ffvit", "timm", "ffvit, compiled")
RESNET = ("ffvit", "ffcv-imagenet", "ffvit, compiled")


@dataclasses.dataclass(frozen=True)
class Case:
    """A model at a resolution.

    Attributes:
        model: Its name.
        resolution: Side of the images, pixels.
        cpu_batch_size: Small, so that all takes minutes on one core.
        gpu_batch_size: As one GPU trains it.
        programs: Who trains it: names of `loops.LOOPS`, compiled or not.
        cpu_programs: The same on a CPU, where compiling takes as long as everything else.
    """

    model: str
    resolution: int
    cpu_batch_size: int
    gpu_batch_size: int
    programs: tuple[str, ...]
    cpu_programs: tuple[str, ...]

    def batch_size(self, device_type: str) -> int:
        """Choose the batch."""
        return self.gpu_batch_size if device_type == "cuda" else self.cpu_batch_size

    def programs_on(self, device_type: str) -> tuple[str, ...]:
        """Choose the programs."""
        return self.programs if device_type == "cuda" else self.cpu_programs


def _case(
    model: str, resolution: int, batch_sizes: tuple[int, int], programs: tuple[str, ...]
) -> Case:
    eager = tuple(name for name in programs if "compiled" not in name)
    return Case(model, resolution, *batch_sizes, programs, eager)


# The most wanted first: a run that is out of time leaves out the rest.
# The paper's definition runs at one resolution: at 128 px there is nothing to compare with.
CASES = (
    _case("ff_tiny_patch16_224", 224, (8, 1024), (*FF, "bare")),
    _case("ff_base_patch16_224", 224, (2, 256), FF),
    _case("ff_base_patch16_224", 128, (2, 512), ("ffvit", "ffvit, compiled")),
    _case("ff_large_patch32_224", 224, (2, 256), FF),
    _case("ff_tiny_patch16_224", 128, (8, 1024), ("ffvit", "ffvit, compiled")),
    _case("resnet50_blurpool", 224, (4, 256), RESNET),
    _case("resnet18_blurpool", 224, (4, 512), RESNET),
    _case("mixer_b16_224", 224, (2, 256), TIMM),
    _case("deit_base_patch16_224", 224, (2, 256), TIMM),
    _case("resnet50_blurpool", 128, (4, 512), RESNET),
    _case("resnet18_blurpool", 128, (4, 1024), RESNET),
    _case("deit_base_patch16_224", 128, (2, 512), TIMM),
    _case("ff_large_patch32_224", 128, (2, 512), ("ffvit", "ffvit, compiled")),
    # Compiling for a CPU takes longer than all of the above.
    Case("ff_tiny_patch16_224", 224, 8, 1024, programs=(), cpu_programs=FF),
)
# With a loader: the networks for which it may be the slower part; on a CPU hardly any.
END_TO_END = (
    dataclasses.replace(
        _case("ff_tiny_patch16_224", 224, (8, 1024), ("ffvit, compiled", "definition")),
        cpu_programs=("ffvit", "definition"),
    ),
    dataclasses.replace(
        _case("ff_base_patch16_224", 224, (2, 256), ("ffvit, compiled", "definition")),
        cpu_programs=(),
    ),
    _case("resnet18_blurpool", 128, (16, 1024), ("ffvit", "ffcv-imagenet")),
    dataclasses.replace(
        _case("resnet50_blurpool", 224, (4, 256), ("ffvit", "ffcv-imagenet")), cpu_programs=()
    ),
)
