"""The values of a sweep as arguments, in Hydra's grammar (hydra.cc, "Basic Override syntax")."""

from typing import Any

from hydra.core.override_parser.types import Override, Quote, QuotedString, Transformer, ValueType

from src.config.composition import parse_overrides
from src.utils.errors import ConfigError


def argument(name: str, value: Any) -> str:
    """Return the argument that gives a parameter this value."""
    return f"{name}={as_text(value)}"


def as_text(value: Any) -> str:
    """Return a value as W&B's agent writes it, unless Hydra would read something else than this one value.

    A string that is written like a number stays as it is, because YAML reads ``1e-3`` as a string.
    """
    if not isinstance(value, str):
        return _element(value)
    return value if _read(value) is not None else _quoted(value)


def values_of(override: Override) -> list[Any]:
    """Return the values that an argument of the command line lists.

    A string keeps its quotes if it would be read otherwise without them.

    Raises:
        ConfigError: for an interval or a glob.
    """
    if override.is_delete():
        return [None]
    if override.value_type in (ValueType.INTERVAL_SWEEP, ValueType.GLOB_CHOICE_SWEEP):
        raise ConfigError(f"expected values or a range, got {override.input_line!r}")
    if override.is_sweep_override():
        return [_unquoted(element) for element in override.sweep_iterator(transformer=Transformer.identity)]
    value = override.value()
    return [value if not isinstance(value, str) or _read(value) == [value] else override.get_value_element_as_str()]


def _unquoted(element: Any) -> Any:
    if not isinstance(element, QuotedString):
        return element
    return element.text if _read(element.text) == [element.text] else element.with_quotes()


def _element(value: Any) -> str:
    """Return a value that may be part of a list."""
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"[{', '.join(map(_element, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_element(item)}' for key, item in value.items())}}}"
    return _quoted(value) if isinstance(value, str) and _read(value) != [value] else str(value)


def _quoted(text: str) -> str:
    return QuotedString(text, Quote.single).with_quotes()


def _read(text: str) -> list[Any] | None:
    """Return what Hydra reads, in a list; None if the text is not one value."""
    try:
        (override,) = parse_overrides([f"x={text}"])
    except ConfigError:
        return None
    return None if override.is_sweep_override() else [override.value()]
