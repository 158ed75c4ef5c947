"""Pictures inside a page."""

import base64
import functools
import html
import io
from pathlib import Path

from PIL import Image

MAX_WIDTH_PX = 1600


def picture(path: Path, title: str, description: str) -> str:
    """Put a picture of the run folder into the page, under a heading; nothing if it is not there.

    Args:
        path: A picture that Pillow reads.
        title: Heading.
        description: What one sees in it, for those who cannot.
    """
    try:
        changed = path.stat().st_mtime_ns
        source, width, height = _encode(path, changed)
    except OSError:  # not there (yet), or half written
        return ""
    return (
        f"<h2>{html.escape(title)}</h2><p class='quiet'>{html.escape(description)}</p>"
        f'<img class="picture" src="{source}" width="{width}" height="{height}" '
        f'alt="{html.escape(description)}">'
    )


@functools.lru_cache(maxsize=16)
def _encode(path: Path, changed_ns: int) -> tuple[str, int, int]:
    """Encode a picture as a data URL, small enough for a page that is written again and again."""
    del changed_ns  # the key of the cache
    with Image.open(path) as stored:
        image = stored.convert("RGB")
    image.thumbnail((MAX_WIDTH_PX, 100 * MAX_WIDTH_PX))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/webp;base64,{encoded}", image.width, image.height
