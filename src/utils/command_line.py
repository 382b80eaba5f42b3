"""Command lines: a program's own options, and the paths or overrides beside them."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from src.utils.errors import ConfigError, did_you_mean, full_traceback_wanted, user_errors
from src.utils.signals import exit_on_signals

Options = TypeVar("Options")


def run_command_line(
    help_text: Callable[[], str | None],
    run: Callable[[list[str]], object],
    *,
    needs_arguments: bool = True,
    advice: str = "",
) -> None:
    """Call ``run`` with the arguments of this program, or print the help for ``-h`` and ``--help``.

    A user's error is one message and exit code 2; signal n ends the program with exit code 128 + n.

    Args:
        help_text: returns what the program does and which options it has.
        run: takes the arguments.
        needs_arguments: print the help also where there are none.
        advice: the end of the message after a signal, such as how to continue.
    """
    arguments = sys.argv[1:]
    with exit_on_signals(advice), user_errors(full_traceback_wanted(arguments)):
        if set(arguments) & {"-h", "--help"} or (needs_arguments and not arguments):
            print(help_text())
        else:
            run(arguments)


def parse(kind: type[Options], arguments: Sequence[str]) -> tuple[Options, list[str]]:
    """Return a program's own options and, in their order, all other arguments.

    Each field of the dataclass ``kind`` is an option. ``name=value``, ``--name=value`` and ``--name value`` are the
    same, and so are ``-`` and ``_`` in a name. ``--name`` switches a bool on. A list takes ``name=a,b``, ``name=[a,b]``
    and ``--name a b``. An int has to be positive. A field without a default is required; `Annotated` names its value
    for the message.

    Raises:
        ConfigError: for an unknown ``--name``, an option that is missing or given twice, and a value of the wrong kind.
    """
    hints = get_type_hints(kind, include_extras=True)
    missing = dataclasses.MISSING
    required = [f.name for f in dataclasses.fields(kind) if f.default is missing and f.default_factory is missing]  # type: ignore[arg-type]
    given: dict[str, list[str]] = {name: [] for name in required}
    others: list[str] = []
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        name, equals, value = argument.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if name in hints and (equals or argument.startswith("--")):
            is_list = get_origin(hints[name]) is list
            if not equals:
                values = ["true"] if hints[name] is bool else _take_values(waiting, is_list)
            else:
                values = value.strip("[]").split(",") if is_list else [value]
            given.setdefault(name, []).extend(values)
        elif argument.startswith("-"):
            hint = did_you_mean(name, hints)
            raise ConfigError(f"expected key=value arguments or options, got {argument!r}{hint}")
        else:
            others.append(argument)
    return kind(**{name: _value(name, hints[name], texts, others) for name, texts in given.items()}), others


def _take_values(waiting: list[str], is_list: bool) -> list[str]:
    """Take the values of ``--name`` from the arguments behind it: one, or those of a list up to the next option."""
    values: list[str] = []
    while waiting and not waiting[0].startswith("--") and (is_list or not values):
        values.append(waiting.pop(0))
    return values


def _value(name: str, hint: Any, texts: list[str], others: Sequence[str]) -> Any:
    meaning = "<value>"
    if get_origin(hint) is Annotated:
        hint, meaning = get_args(hint)
    if get_origin(hint) is list:
        return [_converted(name, get_args(hint)[0], text.strip()) for text in texts]
    if len(texts) != 1:
        raise ConfigError(f"expected one {name}={meaning}, got {len(texts)}{'' if texts else _meant(name, others)}")
    # Of `int | None` the type; None is the default.
    return _converted(name, hint if get_origin(hint) is Literal else (*get_args(hint), hint)[0], texts[0])


def _meant(name: str, others: Sequence[str]) -> str:
    """Return a hint to the first argument that most likely means ``name``: it has no key, or a similar one."""
    for word in others:
        key, equals, value = word.partition("=")
        letters = iter(key)
        # As checkpoint is to ckpt: it has the letters of the name in their order.
        is_longer = all(letter in letters for letter in name)
        if not equals or (key.isidentifier() and (is_longer or did_you_mean(key, [name], listed=False))):
            return f"; did you mean {name}={value if equals else word}?"
    return ""


def _converted(name: str, kind: Any, text: str) -> Any:
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        if text not in choices:
            raise ConfigError(f"expected {name} to be one of {', '.join(choices)}, got {text!r}")
        return text
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"expected {name}=true or {name}=false, got {text!r}")
        return text.lower() == "true"
    if kind is int and not (text.isdecimal() and int(text)):
        raise ConfigError(f"expected {name} to be a positive integer, got {text!r}")
    try:
        return kind(text)
    except ValueError as error:  # of a float
        raise ConfigError(f"expected {name} to be a number, got {text!r}") from error
