"""What README and the pages beside it tell people to type exists, and its options parse."""

import re
import shlex
from pathlib import Path

import pytest

from ffvit.config import load_train_config, load_write_config

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "docs" / "reproduce.md", ROOT / "docs" / "imagenet.md"]


def commands(page):
    """Take the words of each command in the page's indented blocks; comments are dropped."""
    for line in page.read_text().splitlines():
        if re.match(r" {4}(make|python|torchrun) ", line):
            yield shlex.split(re.split(" #|&&", line)[0])


def all_commands():
    return [words for page in PAGES for words in commands(page)]


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = [
        word
        for words in all_commands()
        if words[0] == "make"
        for word in words[1:]
        if word.isalpha() and word.islower()
    ]
    assert {"setup", "quickstart", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_training_commands_parse_and_their_configs_exist():
    found = 0
    for words in all_commands():
        if "train_imagenet.py" in words:
            arguments = words[words.index("train_imagenet.py") + 1 :]
            configs = [str(ROOT / word) if word.endswith(".yaml") else word for word in arguments]
            load_train_config(configs)
            found += 1
    assert found >= 2


def test_writing_commands_parse():
    found = 0
    for words in all_commands():
        if words[:2] == ["python", "write_imagenet.py"]:
            load_write_config(words[2:])
            found += 1
    assert found >= 1


@pytest.mark.parametrize("page", [*PAGES, *sorted((ROOT / "docs").glob("*.md"))], ids=str)
def test_linked_files_exist(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target
