"""Reports: a Markdown table and charts of finished or running runs, and one run's page.

Reads run folders and nothing else: neither models nor images, so torch is not needed.
"""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

from ffvit import anchors, charts
from ffvit.errors import UserError, printable
from ffvit.explanation import FOLDER as EXPLANATION_FOLDER
from ffvit.explanation import PICTURES, load_explanation
from ffvit.markdown import plain
from ffvit.page import write_page
from ffvit.progress import duration
from ffvit.runlog import Run, load_run

MISSING = "-"
NUM_CONFUSED = 10
NOTES = """\
Measured by the runs themselves. Accuracy is that of the last validated epoch, not of the best one.
Images/s and data wait (the share of the training time spent waiting for images) are means over the
training time; time and GPU-hours include validation.
"""


def write_report(folders: Sequence[Path], out_dir: Path) -> Path:
    """Write `report.md` and its charts, of one run or of several side by side.

    Args:
        folders: Run folders, each with at least one finished epoch.
        out_dir: Created if missing. Gets `report.md`, `charts/*.png`, and for one run
            `report.png` and `index.html`. What `explain` left in a run folder is copied there.

    Returns:
        The path of `report.md`.

    Raises:
        UserError: A folder that is no run or has no finished epoch, or an `out_dir` that cannot be
            written.
    """
    runs = _name_apart([load_run(folder) for folder in folders])
    try:
        (out_dir / "charts").mkdir(parents=True, exist_ok=True)
        lines = [f"# {plain(' / '.join(run.name for run in runs))}", "", *_table(runs), "", NOTES]
        if len(runs) == 1:
            charts.overview(runs[0], _summary(runs[0]), out_dir / "report.png")
            lines += ["![loss, accuracy and resolution by epoch](report.png)", ""]
        for name, draw in (
            ("accuracy", charts.accuracy),
            ("training", charts.training),
            ("throughput", charts.throughput),
        ):
            draw(runs, out_dir / "charts" / f"{name}.png")
            lines += [f"![{name}](charts/{name}.png)", ""]
        lines += _against_published(runs, out_dir)
        for index, run in enumerate(runs, start=1):
            folder = Path(EXPLANATION_FOLDER) / (str(index) if len(runs) > 1 else "")
            lines += _explanation(run, out_dir, folder)
        lines += ["## Conditions", "", *_conditions(runs), ""]
        path = out_dir / "report.md"
        path.write_text("\n".join(lines), encoding="utf-8")
        if len(runs) == 1:
            write_page(runs[0], out_dir)
    except OSError as error:
        raise UserError(
            f"{out_dir}: cannot write the report there ({error.strerror}); choose another folder"
            " with --out."
        ) from None
    return path


def describe_result(folder: Path) -> str:
    """Say in one line how a run ended, and where its report is.

    Raises:
        UserError: The folder is no run, or has no finished epoch.
    """
    run = load_run(folder)
    last = run.epochs[-1]
    return (
        f"{run.config['model']['name']}: top-1 {last['top_1']:.2%} on {last['num_samples']} images "
        f"after {last['epoch']} epochs ({last['elapsed_s']:.0f} s). "
        f"Report: {folder / 'report.md'}. "
        f"Look into it: python -m ffvit explain {folder}. "
        f"Compare with other runs: python -m ffvit report {folder} ..."
    )


def _against_published(runs: Sequence[Run], out_dir: Path) -> list[str]:
    """Draw ImageNet runs on GPUs beside published results; nothing for other runs."""
    comparable = [run for run in runs if run.is_on_gpu and anchors.is_imagenet(run.start)]
    if not comparable:
        return []
    charts.against_published(comparable, out_dir / "charts" / "cost.png")
    rows = [
        [
            anchor.name,
            str(anchor.epochs),
            f"{anchor.top_1:.1f}",
            f"{anchor.hours:.2f} {anchor.device}-h" if anchor.hours else "not published",
            anchor.source,
        ]
        for anchor in anchors.ANCHORS
    ]
    header = ["published", "epochs", "top-1 %", "cost", "source"]
    return [
        "![top-1 against hours of a device, beside published results](charts/cost.png)",
        "",
        "Published by others, not measured here; devices and protocols differ:",
        "",
        _markdown_row(header),
        _markdown_row([":--", "--:", "--:", "--:", ":--"]),
        *(_markdown_row(row) for row in rows),
        "",
    ]


def _explanation(run: Run, out_dir: Path, folder: Path) -> list[str]:
    """Show what `explain` found out about a run; nothing if it was not asked.

    Args:
        run: Has it in its folder.
        out_dir: Of the report.
        folder: Below it, for the pictures.
    """
    explanation = load_explanation(run.folder)
    if explanation is None:
        return []
    source, target = run.folder / EXPLANATION_FOLDER, out_dir / folder
    if target.resolve() != source.resolve():
        target.mkdir(parents=True, exist_ok=True)
        for name in PICTURES:
            if (source / name).exists():
                shutil.copyfile(source / name, target / name)
    lines = [f"## {plain(explanation.weights)}, looked into", ""]
    confused = explanation.most_confused(NUM_CONFUSED)
    if confused:
        lines += [_markdown_row(["class", "taken for", "images", "of"])]
        lines += [_markdown_row([":--", ":--", "--:", "--:"])]
        lines += [
            _markdown_row([true, predicted, str(count), str(total)])
            for true, predicted, count, total in confused
        ]
        lines += [""]
    for name, (title, description) in PICTURES.items():
        if (target / name).exists():
            lines += [
                f"**{title}**: {description}.",
                "",
                f"![{title}]({folder.as_posix()}/{name})",
                "",
            ]
    return lines


def _name_apart(runs: list[Run]) -> list[Run]:
    """Put the parent's name before names that occur twice; and make names printable."""
    runs = [dataclasses.replace(run, name=printable(run.name)) for run in runs]
    names = [run.name for run in runs]
    return [
        dataclasses.replace(run, name=f"{printable(run.folder.resolve().parent.name)}/{run.name}")
        if names.count(run.name) > 1
        else run
        for run in runs
    ]


def _table(runs: Sequence[Run]) -> list[str]:
    """Lay out one row per run."""
    rows = [_row(run) for run in runs]
    header = list(rows[0])
    # Text to the left, figures to the right.
    rule = [":--" if name in ("run", "model", "validated at") else "--:" for name in header]
    return [_markdown_row(header), _markdown_row(rule)] + [
        _markdown_row(list(row.values())) for row in rows
    ]


def _row(run: Run) -> dict[str, str]:
    """Say in figures how a run went."""
    last = run.epochs[-1]
    final = run.validated[-1] if run.validated else {}
    train_s = sum(epoch["train_s"] for epoch in run.epochs)
    waited_s = sum(epoch["train_s"] * epoch["data_wait_fraction"] for epoch in run.epochs)
    resolutions = [epoch["resolution"] for epoch in run.epochs]
    low, high = min(resolutions), max(resolutions)
    return {
        "run": run.name,
        "model": run.config["model"]["name"],
        "epochs": f"{len(run.epochs)} of {run.config['training']['epochs']}",
        "images seen": f"{last['images_seen']:,}",
        "top-1 %": _percent(final.get("top_1")),
        "top-5 %": _percent(final.get("top_5")),
        "EMA top-1 %": _percent(final.get("ema_top_1")),
        "validated at": _protocol(run),
        "time": duration(last["elapsed_s"]),
        "GPU-hours": f"{last['gpu_hours']:.2f}" if run.is_on_gpu else MISSING,
        "images/s": f"{last['images_seen'] / train_s:,.0f}",
        "data wait %": _percent(waited_s / train_s),
        "resolution": f"{low} px" if low == high else f"{low} to {high} px",
    }


def _protocol(run: Run) -> str:
    """Say how accuracy was measured; figures of different protocols do not compare."""
    validation = run.config["validation"]
    text = f"{validation['resolution']} px, centre {validation['ratio']:g}, {validation['filter']}"
    return text + (", flip average" if validation["flip_average"] else "")


def _summary(run: Run) -> str:
    """Say in one line what came out."""
    row = _row(run)
    accuracy = f"{row['top-1 %']} % top-1" if run.validated else "not validated yet"
    epochs = "1 epoch" if len(run.epochs) == 1 else f"{len(run.epochs)} epochs"
    return printable(
        f"{run.name}: {accuracy} after {epochs}"
        f" ({row['model']}, {row['resolution']}, {row['time']} on {_hardware(run)})"
    )


def _hardware(run: Run) -> str:
    gpus = run.environment["gpus"]
    if run.is_on_gpu and gpus:
        # Every process has one GPU; this machine may have more than were used.
        return f"{run.start.get('world_size', len(gpus))} x {gpus[0]}"
    return f"{run.environment['num_cpu_cores']} CPU cores"


def _conditions(runs: Sequence[Run]) -> list[str]:
    """Lay out what the figures depend on, one row per run."""
    lines = [
        _markdown_row(["run", "commit", "hardware", "CPU", "versions", "seed", "global batch"]),
        _markdown_row([":--"] * 5 + ["--:"] * 2),
    ]
    for run in runs:
        environment, training = run.environment, run.config["training"]
        commit = (environment["git_commit"] or MISSING)[:10]
        limits = environment["gpu_power_limits_w"]
        power = f", {limits[0]} W" if run.is_on_gpu and limits else ""
        packages = {"python": environment["python"]} | environment["packages"]
        lines.append(
            _markdown_row(
                [
                    run.name,
                    commit + (" with changes" if environment["git_is_dirty"] else ""),
                    _hardware(run) + power,
                    environment["cpu"],
                    ", ".join(f"{name} {version}" for name, version in packages.items() if version),
                    str(training["seed"]),
                    str(training["global_batch_size"]),
                ]
            )
        )
    return lines


def _percent(fraction: float | None) -> str:
    return MISSING if fraction is None else f"{100 * fraction:.1f}"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(plain(cell) for cell in cells) + " |"
