"""The page of a run: one HTML file that opens from its folder and follows the run.

Nothing is loaded from anywhere: style, script and pictures are in it, so that it can be mailed, and
a policy in its head keeps a browser from fetching or running anything else. `page.js` loads it anew
while the run goes on; without scripts a browser does so by itself.
"""

import base64
import datetime as dt
import hashlib
import html
import importlib.resources
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ffvit.errors import printable
from ffvit.explanation import FOLDER as EXPLANATION_FOLDER
from ffvit.explanation import PICTURES
from ffvit.page.pictures import picture
from ffvit.page.plots import plot
from ffvit.page.story import Status, notices, plots_of, status_of, tiles
from ffvit.runlog import LOG_NAME, Run

PAGE_NAME = "index.html"
INTERVAL_S = 10.0
# Writing the page may take this share of a run's time.
MAX_SHARE = 0.01
# A run that is silent for so long has perhaps been killed.
SILENT_S = 900
SILENT = (
    '<li id="silent" hidden><b>No news.</b> Nothing was written for a while: a long validation, or '
    "the run was killed. The same command goes on from its newest checkpoint.</li>"
)
# Heading and description.
CONTACT_SHEET = (
    "What the model sees",
    "the same training images as they are cropped at each resolution, with their classes",
)


class RunPage:
    """Writes a run's page as its records come: every ten seconds, more seldom if that is dear."""

    def __init__(self) -> None:
        """Be due at once."""
        self._due = 0.0

    def __call__(self, run: Run, record: Mapping[str, Any]) -> None:
        """Write the page if it is due, and at a run's start and end.

        Raises:
            OSError: It could not be written; the run goes on, and so does the page when it can.
        """
        begin = time.monotonic()
        if begin < self._due and record["kind"] not in ("run", "end"):
            return
        self._due = begin + INTERVAL_S
        write_page(run, run.folder)
        end = time.monotonic()
        self._due = max(self._due, end + (end - begin) / MAX_SHARE)


def write_page(run: Run, folder: Path) -> Path:
    """Write `index.html`, so that a reader finds the old one or the new one whole.

    Args:
        run: What is shown.
        folder: Where to.

    Raises:
        OSError: Names the file, and says why.
    """
    path = folder / PAGE_NAME
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        temporary.write_text(render(run), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(
            error.errno, f"the run's page cannot be written ({os.strerror(error.errno or 0)})", path
        ) from None
    return path


def render(run: Run) -> str:
    """Lay out the page of a run as HTML."""
    style, script = (_resource(name) for name in ("page.css", "page.js"))
    status = status_of(run)
    written_at = _written_at(run)
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )
    refresh = f'<noscript><meta http-equiv="refresh" content="{INTERVAL_S:.0f}"></noscript>'
    pictures = {"contact_sheet.png": CONTACT_SHEET}
    pictures |= {f"{EXPLANATION_FOLDER}/{name}": texts for name, texts in PICTURES.items()}
    parts = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_text(status.short)} · {_text(run.name)}</title>",
        refresh if status.name == "running" else "",
        f'<link rel="icon" href="data:,"><style>{style}</style></head>',
        f'<body data-refresh-seconds="{INTERVAL_S:.0f}" data-silent-seconds="{SILENT_S}"',
        f' data-written-at="{written_at:.0f}">',
        _header(run, status, written_at),
        "<main><h2>Over the epochs</h2>",
        '<p class="quiet">Read values off a plot with the pointer, or with the arrow keys.</p>',
        f'<div class="plots">{"".join(plot(**arguments) for arguments in plots_of(run))}</div>',
        _epoch_table(run.epochs),
        *(picture(run.folder / name, *texts) for name, texts in pictures.items()),
        _fold("Config", _config(run.config)),
        _fold("Environment", _section("", _flat(run.environment)), is_open=False),
        f"</main><script>{script}</script></body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _header(run: Run, status: Status, written_at: float) -> str:
    """Lay out how far the run is, its main figures, and what to look at."""
    is_running = status.name == "running"
    moment = dt.datetime.fromtimestamp(written_at, tz=dt.timezone.utc)
    pause = '<label id="refresh" hidden><input type="checkbox">follow the run</label>'
    listed = [
        f'<li class="{"bad" if notice.is_bad else "warn"}"><b>{_text(notice.title)}</b> '
        f"{_text(notice.text)}</li>"
        for notice in notices(run)
    ]
    if is_running:
        listed.append(SILENT)
    parts = [
        f'<header><h1>{_text(run.name)}</h1><div class="state">',
        f'<span class="badge {status.name}">{status.mark} {status.name}</span>',
        f"<span>{_text(status.text)}</span>{pause if is_running else ''}</div>",
        f'<progress max="1" value="{status.done:.4f}" aria-label="share of the training done">',
        f"{status.done:.0%}</progress>",
        f'<p class="quiet">written {moment:%Y-%m-%d %H:%M:%S} UTC<span id="age"></span></p>',
        '<dl class="tiles">',
        *(
            f"<div><dt>{_text(tile.name)}</dt><dd>{_text(tile.value)}"
            f"<small>{_text(tile.note)}</small></dd></div>"
            for tile in tiles(run)
        ),
        "</dl>",
        f'<ul class="notices" aria-label="what to look at">{"".join(listed)}</ul>' * bool(listed),
        "</header>",
    ]
    return "".join(parts)


def _epoch_table(epochs: Sequence[Mapping[str, Any]]) -> str:
    """Lay out the epochs as figures, latest first: what the plots show, for who cannot see them."""
    columns: list[tuple[str, str, str]] = [
        ("epoch", "epoch", "d"),
        ("top-1 %", "top_1", "%"),
        ("top-5 %", "top_5", "%"),
        ("EMA top-1 %", "ema_top_1", "%"),
        ("training loss", "train_loss", ".4f"),
        ("validation loss", "loss", ".4f"),
        ("resolution, px", "resolution", "d"),
        ("learning rate", "learning_rate", ".3g"),
        ("images/s", "images_per_s", ",.0f"),
        ("data wait %", "data_wait_fraction", "%"),
    ]
    columns = [column for column in columns if any(column[1] in epoch for epoch in epochs)]
    if not epochs:
        return ""
    head = "".join(f'<th scope="col">{title}</th>' for title, _, _ in columns)
    rows = []
    for epoch in reversed(epochs):
        cells = [_figure(epoch.get(key), form) for _, key, form in columns]
        rows.append(
            f'<tr><th scope="row">{cells[0]}</th>'
            + "".join(f"<td>{cell}</td>" for cell in cells[1:])
            + "</tr>"
        )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return _fold(
        "Each epoch",
        f'<div class="scroll" tabindex="0" role="region" aria-label="figures of each epoch">{table}'
        "</div>",
        is_open=False,
    )


def _figure(value: float | None, form: str) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.2f}" if form == "%" else f"{value:{form}}"


def _config(config: Mapping[str, Any]) -> str:
    sections = "".join(_section(name, _flat(options)) for name, options in config.items())
    return f'<div class="sections">{sections}</div>'


def _section(title: str, options: Mapping[str, str]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{_text(name)}</th><td>{_text(value)}</td></tr>'
        for name, value in options.items()
    )
    caption = f"<caption>{_text(title)}</caption>" if title else ""
    table = f"<table>{caption}<tbody>{rows}</tbody></table>"
    return table if title else f'<div class="sections">{table}</div>'


def _flat(values: Any) -> dict[str, str]:
    """Write nested values as texts by dotted names."""
    if not isinstance(values, Mapping):
        return {"": "" if values is None else str(values)}
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{key}": text for key, text in _flat(value).items()}
        elif isinstance(value, (list, tuple)):
            flat[str(name)] = ", ".join(str(item) for item in value)
        else:
            flat[str(name)] = "-" if value is None or value == "" else str(value)
    return flat


def _fold(title: str, content: str, *, is_open: bool = True) -> str:
    return f"<details{' open' if is_open else ''}><summary>{title}</summary>{content}</details>"


def _text(value: object) -> str:
    """Keep any text of a run from being read as HTML, or from reordering what stands beside it."""
    return html.escape(printable(str(value)))


def _written_at(run: Run) -> float:
    """Return when the run was last heard of, seconds since 1970."""
    try:
        return (run.folder / LOG_NAME).stat().st_mtime
    except OSError:
        return time.time()


def _resource(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
