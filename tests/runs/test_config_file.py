"""config.yaml comes back as it was written; a stranger's calls nothing, grows nowhere, and is read or named."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from src.config.checks import plain
from src.config.composition import CONFIG_DIR, compose_config
from src.runs.config_file import load_config, read_config, write_config
from src.runs.folder import RunFolder
from src.runs.formats import FORMAT, FORMAT_KEY, TOO_DEEP
from src.utils.files import write_text
from src.utils.reading import FileError

EXPERIMENTS = sorted(path.stem for path in (CONFIG_DIR / "experiment").glob("*.yaml"))


@contextmanager
def within_seconds(limit: int) -> Iterator[None]:
    def stop(*unused: Any) -> None:
        raise TimeoutError(f"more than {limit} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(limit)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_configuration_comes_back_as_it_was_written(experiment: str, tmp_path: Path) -> None:
    config = compose_config([f"experiment={experiment}", f"run_dir={tmp_path}", "logger=csv", "~logger.csv"])
    write_config(config)
    path = RunFolder(tmp_path).config
    expected = plain(config, resolve=True)
    assert plain(load_config(path), resolve=False) == read_config(path) == expected


@pytest.mark.parametrize("read", [load_config, read_config])
@pytest.mark.parametrize("found", [str(FORMAT + 1), "-1", "'1'", "null", "[1]", "${oc.env:HOME}"])
def test_a_configuration_of_a_later_version_is_refused(read: Any, found: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    write_config(compose_config([f"run_dir={tmp_path}"]))
    text = path.read_text()
    assert text.startswith(f"{FORMAT_KEY}: {FORMAT}\n")
    write_text(path, text.replace(f"{FORMAT_KEY}: {FORMAT}", f"{FORMAT_KEY}: {found}", 1))
    with pytest.raises(FileError, match=rf"of format {FORMAT} or earlier, got '.*config\.yaml'") as caught:
        read(path)
    assert str(Path.home()) not in str(caught.value)
    # Earlier versions wrote none.
    write_text(path, text.partition("\n")[2])
    assert read(path)["experiment"] == "ct_postproc"


def test_references_of_format_0_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    content = {"a": 1, "b": "${a}", "c": ["${oc.env:HOME}", {"d": "${.e}-${b}", "e": "${now:%Y}"}]}
    OmegaConf.save(content, path)
    assert read_config(path) == content


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)), "no aliases"),
        ("a: " + "[" * 200 + "]" * 200, TOO_DEEP),
        ("a: " + "[" * 5000 + "]" * 5000, TOO_DEEP),
        ("a: " + "9" * 5000, ""),
        ("a: !!python/object/apply:os.system [id]", ""),
        ("? [a, b]\n: 1\n", ""),
    ],
)
def test_a_configuration_that_grows_or_is_odd_is_named(config: str, reason: str, tmp_path: Path) -> None:
    path = RunFolder(tmp_path).config
    path.write_text(config)
    with within_seconds(20), pytest.raises(FileError, match="expected the configuration of a run") as caught:
        read_config(path)
    assert str(path) in str(caught.value) and reason in str(caught.value)
