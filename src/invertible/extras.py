"""Libraries that only some features need."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Name the extra of ``invertible-imaging`` that brings what is imported inside, where it is missing."""
    try:
        yield
    except ImportError as error:
        raise ImportError(f"{error}: pip install 'invertible-imaging[{name}]'", name=error.name) from error
