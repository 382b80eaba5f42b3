"""Names of a package that are imported when somebody asks for them: what needs only its other parts starts sooner."""

import importlib
from collections.abc import Callable
from typing import Any


def importing_late(package: str, names: list[str], module: str) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package, by which names of one of its modules are its own."""

    def get(name: str) -> Any:
        if name in names:
            return getattr(importlib.import_module(module), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get
