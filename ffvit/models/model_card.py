"""The model card: what a run's record says about the model that leaves it, as Markdown.

Paths of the machine it was trained on are left out.
"""

from collections.abc import Sequence
from typing import Any

import yaml

from ffvit.markdown import plain
from ffvit.models.saved import RunState, SavedModel
from ffvit.runlog import Run, load_run

# By the first letters of a model's name.
PAPERS = {
    "ff_": (
        "feed-forward layers over the patches in place of attention, after "
        "[Do You Even Need Attention?](https://arxiv.org/abs/2105.02723); the token mixing runs at "
        "any multiple of the patch size"
    ),
    "resnet": "a ResNet, after [Deep Residual Learning](https://arxiv.org/abs/1512.03385)",
}
# Where things lay, and how the run was watched: of no meaning elsewhere.
_LOCAL = ("train_path", "val_path", "num_workers", "watchdog_s")
_NUM_NAMES_SHOWN = 20


def model_card(model: SavedModel, files: Sequence[tuple[str, str]]) -> str:
    """Write a model's card.

    Args:
        model: Its run, if it has one, gives what was measured.
        files: Name of each file beside the card, and what it is.

    Raises:
        UserError: The run's log cannot be read.
    """
    run = load_run(model.run.folder) if model.run else None
    facts = [("parameters", f"{sum(p.numel() for p in model.network.parameters()):,}")]
    if model.run and run:
        facts += _measured(model.run, run)
    else:
        facts += [("weights", f"from {model.origin}"), ("top-1", "not measured here")]
    lines = [
        "---",
        "library_name: timm",
        "pipeline_tag: image-classification",
        "tags:",
        "- image-classification",
        "- timm",
        "- ffvit",
        "---",
        f"# {plain(run.name)}: {model.name}" if run else f"# {model.name}",
        "",
        f"An image classifier of {model.num_classes:,} classes"
        + (", trained with ffvit" if run else "")
        + next((f": {text}." for key, text in PAPERS.items() if model.name.startswith(key)), "."),
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {plain(text)} |" for name, text in facts),
        "",
        "## Use",
        "",
        *_usage(model),
        "",
        "## Files",
        "",
        *(f"- `{name}`: {text}" for name, text in files),
        "",
    ]
    if model.label_names is not None:
        shown = ", ".join(plain(name) for name in model.label_names[:_NUM_NAMES_SHOWN])
        num_more = len(model.label_names) - _NUM_NAMES_SHOWN
        more = f" and {num_more:,} more" if num_more > 0 else ""
        lines += ["## Classes", "", f"{shown}{more}: `label_names` in `config.json`.", ""]
    if run:
        lines += ["## Options of the run", "", "```yaml", _options(run.config), "```", ""]
    return "\n".join(lines)


def _measured(state: RunState, run: Run) -> list[tuple[str, str]]:
    """Say what was measured, how, from what and at which cost."""
    environment = run.environment
    record = next((epoch for epoch in run.epochs if epoch["step"] == state.step), None)
    facts = [
        ("weights", f"{state.weights}, after update {state.step:,}"),
        ("training images", f"{run.start['num_train_images']:,}"),
    ]
    if record is None:
        facts.append(("top-1", "not measured after this update"))
    else:
        prefix = "ema_" if state.weights == "averaged" else ""
        place = f"on {record['num_samples']:,} validation images"
        facts += [
            ("top-1", f"{record[prefix + 'top_1']:.2%} {place}"),
            ("top-5", f"{record[prefix + 'top_5']:.2%}"),
            ("protocol", _protocol(run.config["validation"])),
            ("epochs", f"{record['epoch']} of {run.config['training']['epochs']}"),
            ("cost", _cost(run, record)),
        ]
    dirty = ", with changes" if environment.get("git_is_dirty") else ""
    versions = ", ".join(f"{name} {v}" for name, v in environment["packages"].items() if v)
    return [
        *facts,
        ("commit", f"{environment.get('git_commit') or 'unknown'}{dirty}"),
        ("versions", f"Python {environment['python']}, {versions}"),
    ]


def _protocol(validation: dict[str, Any]) -> str:
    flip = ", logits averaged with the mirror image's" if validation["flip_average"] else ""
    return (
        f"centre crop of {validation['ratio']} of the shorter side, resized to "
        f"{validation['resolution']} px ({validation['filter']}) from the JPEGs in the beton"
        f"{flip}; every image once"
    )


def _cost(run: Run, record: dict[str, Any]) -> str:
    gpus = run.environment["gpus"]
    if gpus:
        return f"{record['gpu_hours']:.2f} GPU-hours ({', '.join(sorted(set(gpus)))})"
    cores = run.environment["num_cpu_cores"]
    return f"no GPU; {record['elapsed_s']:,.0f} s on {cores} CPU cores ({run.environment['cpu']})"


def _usage(model: SavedModel) -> list[str]:
    """Show how timm loads it."""
    options = "".join(f", {key}={value!r}" for key, value in model.options.items())
    size = model.protocol.resolution
    return [
        "```python",
        "import ffvit  # makes its models known to timm",
        "import timm",
        "",
        'model = timm.create_model("local-dir:.", pretrained=True).eval()    # this folder',
        "# or by name:",
        f'model = timm.create_model("{model.name}", checkpoint_path="model.safetensors",',
        f"                          num_classes={model.num_classes}{options}).eval()",
        "",
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))",
        f"logits = model(transform(image)[None])  # a PIL image, {size} px",
        "```",
        "",
        "From the command line: `python -m ffvit predict FOLDER IMAGES`.",
    ]


def _options(config: dict[str, Any]) -> str:
    shown = {
        section: {name: value for name, value in options.items() if name not in _LOCAL}
        for section, options in config.items()
        if section != "run"
    }
    return yaml.safe_dump(shown, sort_keys=False).rstrip()
