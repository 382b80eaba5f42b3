"""What a task reads from a data module."""

from typing import Any


def check_attributes(datamodule: Any, what: str, *names: str) -> None:
    """Raise ValueError, naming the missing ones, unless a data module has all attributes; ``what`` it should give."""
    missing = [name for name in names if not hasattr(datamodule, name)]
    if missing:
        raise ValueError(
            f"expected a datamodule of {what} with {', '.join(names)}, got {type(datamodule).__name__} without "
            f"{', '.join(missing)}"
        )
