"""Makes our models known to timm as soon as a program has imported both, in either order.

`import ffvit` itself imports neither timm nor torch, which take seconds that `report` and `inspect`
do not need: it waits for timm to be imported by whoever wants it.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

LIBRARY = "timm"
MODELS = "ffvit.models"


def register_with_timm() -> None:
    """Register our models with timm: now if it is imported already, else when it will be."""
    if LIBRARY in sys.modules:
        importlib.import_module(MODELS)
    elif not any(isinstance(finder, _TimmFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TimmFinder())


class _TimmFinder(MetaPathFinder):
    """Finds timm by the other finders, and lets its import end with that of our models.

    It stays in place, since some packages look for timm without importing it.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != LIBRARY:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(name, path, target) for finder in others)
        spec = next((found for found in specs if found is not None), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                importlib.import_module(MODELS)

            # On this one loader: timm reads its data files through it.
            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec
