"""Pages of the documentation's site that are made from other files, and links that leave docs/.

A hook of MkDocs, see mkdocs.yml. The Markdown below docs/ also reads well without the site.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from ffvit.options import TrainConfig, WriteSection

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\]\((?P<path>[^)#:\s]+)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {
        "index.md": _moved_to_docs((ROOT / "README.md").read_text(encoding="utf-8")),
        "contributing.md": _moved_to_docs((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")),
        "options.md": options_page(),
        "recipes.md": recipes_page(),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links out of docs/: to a recipe's section, else to the file's name in the repository."""
    folder = (ROOT / "docs" / page.file.src_uri).parent

    def replace(match: re.Match[str]) -> str:
        target = (folder / match["path"]).resolve()
        if target.is_relative_to(ROOT / "docs"):
            return match[0]
        name = target.relative_to(ROOT).as_posix()
        if target.suffix == ".yaml" and target.exists():
            up = "../" * page.file.src_uri.count("/")
            return f"]({up}recipes.md#{_anchor(name)})"
        if name == "README.md":
            return "](index.md)"
        if name == "CONTRIBUTING.md":
            return "](contributing.md)"
        return f"]{{{name}}}"  # not a link; the brackets go below

    text = LINK.sub(replace, markdown)
    return re.sub(r"\[([^\]]+)\]\{([^}]+)\}", r"\1 (`\2` in the repository)", text)


def options_page() -> str:
    """List every option with its default and its line of help."""
    lines = [
        "# Every option",
        "",
        "Made from `ffvit/options.py`. A config file names sections, and options below them; on",
        "the command line it is `--section.option=value`. Later files override earlier ones, and",
        "the command line overrides all.",
        "",
        "## train_imagenet.py",
    ]
    for section in dataclasses.fields(TrainConfig):
        lines += ["", f"### {section.name}", "", str(section.type.__doc__), ""]
        lines += _table(section.type, f"{section.name}.")
    lines += ["", "## write_imagenet.py", "", "Given as `--option=value`.", ""]
    return "\n".join([*lines, *_table(WriteSection, "")]) + "\n"


def recipes_page() -> str:
    """Show every shipped config."""
    lines = [
        "# Every recipe",
        "",
        "The shipped configs as they are; each header says what it gives.",
    ]
    for folder in ("ff_configs", "rn_configs"):
        for path in sorted((ROOT / folder).rglob("*.yaml")):
            name = path.relative_to(ROOT).as_posix()
            if path.is_symlink():
                lines += ["", f"`{name}` is `{path.readlink()}`."]
                continue
            text = path.read_text(encoding="utf-8")
            lines += ["", f"## {name} {{ #{_anchor(name)} }}", "", "```yaml", text.rstrip(), "```"]
    return "\n".join(lines) + "\n"


def _table(section: type, prefix: str) -> list[str]:
    """Make a table of a section's options."""
    lines = ["| option | default | |", "|---|---|---|"]
    for field in dataclasses.fields(section):
        default = repr(field.default).replace("|", "\\|")
        text = field.metadata["help"].replace("|", "\\|")
        lines.append(f"| `{prefix}{field.name}` | `{default}` | {text} |")
    return lines


def _moved_to_docs(text: str) -> str:
    """Carry a file of the repository's root over to docs/: its links change."""

    def replace(match: re.Match[str]) -> str:
        path = match["path"]
        moved = path.removeprefix("docs/") if path.startswith("docs/") else f"../{path}"
        return f"]({moved}{match['anchor'] or ''})"

    return LINK.sub(replace, text)


def _anchor(name: str) -> str:
    return name.replace("/", "-").removesuffix(".yaml")
