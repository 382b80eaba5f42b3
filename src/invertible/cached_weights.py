"""Torch's cache of parametrised weights, which knows nothing of passes without a graph."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.nn.utils import parametrize


class _KeepsNothing(dict):
    def __setitem__(self, key: Any, value: Any) -> None:
        pass


@contextmanager
def without_cached_weights() -> Iterator[None]:
    """Inside, ``torch.nn.utils.parametrize.cached`` has no effect.

    A weight that a pass without a graph leaves in the cache has none for those who need it, and one that is found there
    may belong to the graph of somebody else.
    """
    cache = getattr(parametrize, "_cache", None)
    if cache is None or not getattr(parametrize, "_cache_enabled", False) or isinstance(cache, _KeepsNothing):
        yield
        return
    parametrize._cache = _KeepsNothing()
    try:
        yield
    finally:
        if isinstance(parametrize._cache, _KeepsNothing):  # else ``cached`` has ended meanwhile
            parametrize._cache = cache
