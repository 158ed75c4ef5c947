"""Texts of others in Markdown: names from run folders, manifests and configs."""

import html

from ffvit.errors import printable


def plain(text: object) -> str:
    """Keep a text from being read as HTML, a link, an image, code or the end of a table's cell."""
    escaped = html.escape(printable(str(text)), quote=False)
    return "".join(f"\\{character}" if character in "|[]`" else character for character in escaped)
