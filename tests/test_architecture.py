"""The rules of docs/architecture.md that a program can check, and proof that each check works."""

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

MAX_LINES = 400
MAX_LINES_OF = {"train_imagenet.py": 200}
MAX_CALLS_TO_BACKWARD = 2

# Module: the only places that may import it.
ONLY = {
    "ffcv": ("ffvit/data/", "ffvit/jpeg/", "ffvit/doctor/"),
    "timm": ("ffvit/models/", "ffvit/optim.py", "ffvit/trainer.py", "ffvit/doctor/"),
    "fastargs": ("ffvit/config.py",),
}
# Place: what it may never import.
IMPURE = ("torch", "os", "random", "time", "ffcv", "ffvit.models")
PROGRAM = ("torch", "ffvit.data", "ffvit.jpeg", "ffvit.models", "ffvit.trainer")
NEVER = {
    "ffvit/models/": ("ffvit.data", "ffvit.jpeg"),
    "ffvit/data/": ("ffvit.models",),
    "ffvit/jpeg/": ("torch", "ffvit.data", "ffvit.models"),
    "ffvit/schedules.py": (*IMPURE, "ffvit.data"),
    "ffvit/data/order.py": IMPURE,
    "ffvit/reports.py": PROGRAM,
    "ffvit/charts.py": PROGRAM,
    "ffvit/explanation.py": PROGRAM,
    "ffvit/page/": PROGRAM,
}
# The only places that join models and data.
JOINTS = ("ffvit/assembly.py", "ffvit/commands/", "ffvit/api.py")

# Folders of one person's machine, and hosts that a package client knows by itself.
FORBIDDEN_TEXT = re.compile(
    r"(?<![\w.$}])/(?:home|work|root)/"
    r"|\b(?:pypi|pythonhosted|npmjs)\.(?:org|com)\b|\b(?:deb|security)\.debian\.org\b"
)


def tracked_files() -> list[Path]:
    """List what git tracks or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listing = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs git, and a checkout")
    paths = {REPOSITORY / name for name in listing.stdout.decode().split("\0") if name}
    return sorted(path for path in paths if path.is_file())


def sources() -> Iterator[tuple[str, str]]:
    """Give name and text of each Python file of the program, tests left out."""
    for path in [*REPOSITORY.glob("*.py"), *(REPOSITORY / "ffvit").rglob("*.py")]:
        yield path.relative_to(REPOSITORY).as_posix(), path.read_text()


def imports(name: str, text: str) -> set[str]:
    """Collect the full names that a file imports, wherever in the file."""
    found = set()
    package = name.removesuffix(".py").split("/")[:-1]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*parents, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found |= {ast.literal_eval(a) for a in node.args if isinstance(a, ast.Constant)}
    return found


def within(module: str, name: str) -> bool:
    """Say whether `name` is `module` or something in it."""
    return name == module or name.startswith(f"{module}.")


def bad_imports(name: str, text: str) -> list[str]:
    """Check one file against `ONLY`, `NEVER` and `JOINTS`."""
    found = imports(name, text)
    bad = [
        f"{name} may not import {module}: only {', '.join(places)} may"
        for module, places in ONLY.items()
        if not name.startswith(places) and any(within(module, other) for other in found)
    ]
    bad += [
        f"{name} may not import {module}"
        for place, modules in NEVER.items()
        for module in modules
        if name.startswith(place) and any(within(module, other) for other in found)
    ]
    rooms = [r for r in ("ffvit.models", "ffvit.data") if any(within(r, other) for other in found)]
    if len(rooms) > 1 and not name.startswith(JOINTS):
        places = ", ".join(JOINTS)
        bad.append(f"{name} may not join ffvit.models and ffvit.data: only {places} may")
    return bad


def bad_size(name: str, text: str) -> list[str]:
    """Check one file's name and number of lines."""
    limit, lines = MAX_LINES_OF.get(name, MAX_LINES), len(text.splitlines())
    bad = [f"{name} has {lines} lines, {limit} are allowed"] if lines > limit else []
    if Path(name).stem in ("utils", "util", "helpers", "misc", "common"):
        bad.append(f"{name}: name a file after what it holds")
    return bad


def bad_text(name: str, text: str) -> list[str]:
    """Look for folders of one machine and hosts of package registries."""
    lines = enumerate(text.splitlines(), 1)
    return [f"{name}:{i}: {line.strip()}" for i, line in lines if FORBIDDEN_TEXT.search(line)]


def way_to_backward(*texts: str) -> list[str]:
    """Find the shortest way from `main` to `backward()`, over the functions of these files.

    Returns:
        The functions called one by another, `main` left out, the last of which runs `backward()`;
        empty if there is no way. Functions are told apart by name only.
    """
    called = {
        node.name: {ast.unparse(c.func).split(".")[-1] for c in ast.walk(node) if is_call(c)}
        for text in texts
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef)
    }
    ways, reached = [["main"]], {"main"}
    for way in ways:
        if "backward" in called[way[-1]]:
            return way[1:]
        further = (called[way[-1]] & called.keys()) - reached
        ways += [[*way, name] for name in sorted(further)]
        reached |= further
    return []


def is_call(node: ast.AST) -> bool:
    """Say whether a node of a syntax tree is a call."""
    return isinstance(node, ast.Call)


def test_rooms_import_only_what_they_may() -> None:
    assert [bad for name, text in sources() for bad in bad_imports(name, text)] == []


def test_files_stay_short_and_have_names_that_say_something() -> None:
    texts = [p for p in tracked_files() if p.suffix in (".py", ".cpp", ".h", ".sh")]
    assert texts
    names = [(p.relative_to(REPOSITORY).as_posix(), p.read_text()) for p in texts]
    assert [bad for name, text in names for bad in bad_size(name, text)] == []


def test_no_file_names_a_machine_or_a_registry() -> None:
    bad = []
    for path in tracked_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue  # a picture
        bad += bad_text(path.relative_to(REPOSITORY).as_posix(), text)
    assert bad == []


def test_main_is_two_calls_away_from_backward() -> None:
    texts = [(REPOSITORY / name).read_text() for name in ("train_imagenet.py", "ffvit/trainer.py")]
    way = way_to_backward(*texts)
    assert way
    assert len(way) <= MAX_CALLS_TO_BACKWARD


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("ffvit/models/x.py", "import ffvit.data.loader", "may not import ffvit.data"),
        ("ffvit/models/x.py", "from ffvit import data", "may not import ffvit.data"),
        ("ffvit/models/x.py", "from ..data import loader", "may not import ffvit.data"),
        ("ffvit/data/x.py", "def f():\n    from ffvit.models import y", "import ffvit.models"),
        ("ffvit/data/sources/x.py", "from ...models import y", "may not import ffvit.models"),
        ("ffvit/jpeg/x.py", "import numpy, torch.nn", "may not import torch"),
        ("ffvit/trainer.py", "from ffcv.loader import Loader", "may not import ffcv"),
        ("ffvit/trainer.py", "import_module('ffcv')", "may not import ffcv"),
        ("ffvit/metrics.py", "import timm", "may not import timm"),
        ("train_imagenet.py", "import fastargs", "may not import fastargs"),
        ("ffvit/schedules.py", "import torch", "may not import torch"),
        ("ffvit/data/order.py", "import random", "may not import random"),
        ("ffvit/reports.py", "import ffvit.trainer", "may not import ffvit.trainer"),
        ("ffvit/export.py", "import ffvit.data, ffvit.models", "may not join"),
        ("train_imagenet.py", "import ffvit.data, ffvit.models", "may not join"),
    ],
)
def test_a_wrong_import_is_noticed(name: str, text: str, message: str) -> None:
    assert message in " ".join(bad_imports(name, text))


def test_commands_may_join_models_and_data() -> None:
    assert bad_imports("ffvit/commands/x.py", "import ffvit.data, ffvit.models") == []


def test_names_that_begin_like_a_forbidden_one_are_allowed() -> None:
    assert bad_imports("ffvit/models/x.py", "import ffvit.dataset, ffcvx, torch") == []


@pytest.mark.parametrize(
    ("check", "name", "text"),
    [
        (bad_size, "ffvit/x.py", "pass\n" * (MAX_LINES + 1)),
        (bad_size, "train_imagenet.py", "pass\n" * 201),
        (bad_size, "ffvit/utils.py", "pass\n"),
        (bad_text, "README.md", "betons lie in /" + "home/me/betons"),
        (bad_text, "docs/x.md", "`cd /" + "work/x`"),
        (bad_text, "Dockerfile", "--index-url https://" + "pypi" + ".org/simple"),
    ],
)
def test_a_broken_rule_is_noticed(
    check: Callable[[str, str], list[str]], name: str, text: str
) -> None:
    assert len(check(name, text)) == 1


def test_files_within_the_limits_pass() -> None:
    assert bad_size("ffvit/x.py", "pass\n" * MAX_LINES) == []
    assert bad_text("README.md", "runs/home/x, $PREFIX/usr/lib") == []


def test_a_third_call_before_backward_is_noticed() -> None:
    main = "def main():\n    train()\ndef train():\n    trainer.train_epoch()\n"
    near = "class Trainer:\n    def train_epoch(self):\n        loss.backward()\n"
    far = "class Trainer:\n    def train_epoch(self):\n        self.step()\n"
    far += "    def step(self):\n        loss.backward()\n"
    assert way_to_backward(main, near) == ["train", "train_epoch"]
    assert way_to_backward(main, far) == ["train", "train_epoch", "step"]
    assert way_to_backward(main) == []


def test_names_of_test_files_are_unique() -> None:
    """Pytest imports them by bare names: it would refuse the second, and every test with it."""
    names = [path.name for path in (REPOSITORY / "tests").rglob("*.py")]
    assert {name for name in names if names.count(name) > 1} == set()
