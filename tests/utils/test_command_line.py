"""Options of the programs, their spellings and what is refused; and how a program ends after a signal."""

from __future__ import annotations

import contextlib
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from src.utils.command_line import parse
from src.utils.errors import ConfigError, user_errors
from src.utils.signals import exit_on_signals


@dataclass(frozen=True, kw_only=True)
class Required:
    source: Annotated[str, "<folder>"]


@dataclass(frozen=True, kw_only=True)
class Options(Required):
    num_jobs: int = 1
    count: int | None = None
    dry_run: bool = False
    images: Literal["none", "all"] = "all"
    runs: list[Path] = field(default_factory=list)
    shape: list[int] = field(default_factory=list)


@pytest.mark.parametrize(
    ("arguments", "expected", "others"),
    [
        ([], {}, []),
        (["num_jobs=2", "seed=0,1"], {"num_jobs": 2}, ["seed=0,1"]),
        (["a", "--num-jobs", "2", "b"], {"num_jobs": 2}, ["a", "b"]),
        (["--num-jobs=2", "--dry-run", "num_jobs"], {"num_jobs": 2, "dry_run": True}, ["num_jobs"]),
        (["dry_run=False", "--images", "none", "count=3"], {"images": "none", "count": 3}, []),
        (["--runs", "a", "b,c", "--dry-run"], {"runs": [Path("a"), Path("b,c")], "dry_run": True}, []),
        (["runs=[a, b]", "runs=c", "shape=1,2"], {"runs": [Path(n) for n in "abc"], "shape": [1, 2]}, []),
        (["~model.body", "+new=1"], {}, ["~model.body", "+new=1"]),
    ],
)
def test_every_spelling_is_read(arguments: list[str], expected: dict[str, Any], others: list[str]) -> None:
    assert parse(Options, ["source=x", *arguments]) == (Options(source="x", **expected), others)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected one source=<folder>, got 0$"),
        (["seed=1", "a/b"], r"expected one source=<folder>, got 0; did you mean source=a/b\?"),
        (["scale=paper", "sorce=a"], r"got 0; did you mean source=a\?"),
        (["any_source_folder=a"], r"got 0; did you mean source=a\?"),
        (["model.source=a"], "got 0$"),
        (["source=a", "source=b"], "expected one source=<folder>, got 2"),
        (["source=a", "--count"], "expected one count=<value>, got 0"),
        (["source=a", "--num-job", "2"], "got '--num-job'; did you mean 'num_jobs'"),
        (["source=a", "-v"], "expected key=value arguments or options, got '-v'"),
        (["source=a", "num_jobs=0"], "expected num_jobs to be a positive integer, got '0'"),
        (["source=a", "shape=2,x"], "expected shape to be a positive integer, got 'x'"),
        (["source=a", "images=some"], "expected images to be one of none, all, got 'some'"),
        (["source=a", "dry_run=maybe"], "expected dry_run=true or dry_run=false, got 'maybe'"),
    ],
)
def test_what_does_not_fit_is_named(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(Options, arguments)


def test_a_signal_that_comes_twice_interrupts_no_cleaning_up(capsys: pytest.CaptureFixture) -> None:
    """As ``timeout`` sends it: to the process and to its group."""
    cleaned_up = False
    with pytest.raises(SystemExit) as ended, exit_on_signals("; go on"):
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            cleaned_up = True
    assert cleaned_up and ended.value.code == 143
    assert capsys.readouterr().err == "ended by SIGTERM; go on\n"


def test_a_signal_that_breaks_the_cleaning_up_of_a_library_still_ends_the_program(
    capsys: pytest.CaptureFixture,
) -> None:
    """As Ctrl-C does now and then while Hydra composes: OmegaConf restores flags of a node that has no parent yet."""
    with pytest.raises(SystemExit) as ended, exit_on_signals(), user_errors(show_traceback=False):
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            try:
                raise AttributeError("no parent")
            except AttributeError as error:
                raise ConfigError from error
    assert ended.value.code == 130
    assert capsys.readouterr().err == "ended by SIGINT\n"


def test_an_error_behind_a_handled_exit_is_shown(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended, user_errors(show_traceback=False):
        with contextlib.suppress(SystemExit):
            sys.exit(130)
        raise ConfigError("expected a, got b")
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: expected a, got b\n")
