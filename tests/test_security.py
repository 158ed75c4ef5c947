"""docs/security.md: nothing in a file is executed. No source of ours calls what would."""

import ast
from collections.abc import Iterator

import pytest
from test_architecture import sources, tracked_files

# What executes a file's content, or unpacks files where it says. Each is called by name.
EXECUTES = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "marshal.load",
    "marshal.loads",
    "shelve.open",
    "joblib.load",
    "torch.hub.load",
    "torch.jit.load",
    "torch.package.PackageImporter",
    "yaml.unsafe_load",
    "yaml.full_load",
    "yaml.load_all",
    "numpy.ctypeslib.load_library",
    "shutil.unpack_archive",
}
SAFE_LOADERS = {"yaml.SafeLoader", "_UniqueKeyLoader"}


def dangerous_calls(text: str) -> Iterator[str]:
    """Name the calls that would execute what a file holds, whatever name a module has here."""
    tree = ast.parse(text)
    full_names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            full_names |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            full_names |= {
                alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names
            }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        first, *rest = ast.unparse(node.func).split(".")
        name = ".".join([full_names.get(first, first), *rest])
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if (
            name in EXECUTES
            or (name == "torch.load" and keywords.get("weights_only") != "True")
            or (name == "numpy.load" and keywords.get("allow_pickle", "False") != "False")
            or (name == "yaml.load" and ast.unparse(node.args[1]) not in SAFE_LOADERS)
            or (name.endswith(".extractall") and keywords.get("filter") != "'data'")
            or keywords.get("shell", "False") != "False"
        ):
            yield ast.unparse(node)


@pytest.mark.parametrize(
    "call",
    [
        "import pickle\npickle.load(file)",
        "import pickle as p\np.loads(data)",
        "from pickle import loads\nloads(data)",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "from torch import load\nload(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import yaml\nyaml.load(text, yaml.Loader)",
        "eval(text)",
        "archive.extractall(folder)",
        "import subprocess\nsubprocess.run(text, shell=True)",
    ],
)
def test_dangerous_calls_are_noticed(call):
    assert list(dangerous_calls(call))


@pytest.mark.parametrize(
    "call",
    [
        "import torch\ntorch.load(path, map_location='cpu', weights_only=True)",
        "import numpy as np\nnp.load(path)",
        "import yaml\nyaml.load(text, yaml.SafeLoader)\nyaml.safe_load(text)",
        "model.eval()",
        "import re\nre.compile(text)",
        "import torch\ntorch.compile(model)",
        "archive.extractall(folder, filter='data')",
    ],
)
def test_safe_calls_are_left_alone(call):
    assert not list(dangerous_calls(call))


def test_no_source_executes_what_a_file_holds():
    benchmarks = [
        (path.name, path.read_text())
        for path in tracked_files()
        if path.suffix == ".py" and path.parent.name in ("benchmarks", "scripts")
    ]
    assert benchmarks
    found = [
        f"{name}: {call}"
        for name, text in [*sources(), *benchmarks]
        for call in dangerous_calls(text)
    ]
    assert found == []
