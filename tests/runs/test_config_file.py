"""config.yaml comes back as it was written; a stranger's calls nothing, grows nowhere, and is read or named."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf, open_dict

from src.config.checks import plain
from src.config.composition import CONFIG_DIR, compose_config
from src.runs.config_file import load_config, read_config, write_config
from src.runs.folder import RunFolder
from src.runs.formats import FORMAT, FORMAT_KEY, TOO_DEEP
from src.runs.references import resolve_references
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
    assert load_config(path) == config
    found, expected = read_config(path), plain(config, resolve=True)
    # What calls a resolver stays as it is written.
    if "${" in str(found["task"]["optimizer"]["lr"]):
        expected["task"]["optimizer"]["lr"] = found["task"]["optimizer"]["lr"]
    assert found == expected


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


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_references_are_what_omegaconf_makes_of_them(experiment: str) -> None:
    config = compose_config([f"experiment={experiment}", "run_dir=somewhere", "logger=csv"])
    with open_dict(config):
        config.network = {**config.get("network", {}), "learning_rate": 0.5}
    saved, expected = plain(config, resolve=False), plain(config, resolve=True)
    found = resolve_references(saved)
    rate = found["task"]["optimizer"]["lr"]
    if isinstance(rate, str):  # what calls a resolver stays as it is written
        assert rate == "${oc.select:network.learning_rate,1.0e-2}"
        found["task"]["optimizer"]["lr"] = 0.5
    assert found == expected


def test_references_of_every_form() -> None:
    content = {
        "a": {"b": [10, {"c": "x"}], "same": "${.b}", "up": "${..top}", "upper": {"two": "${...top}"}},
        "top": 3,
        "key": "b",
        "parts": ["${a.b[0]}", "${a.b.1.c}", "${a[b][1].c}", "${.0}", "${a.${key}}", "-${top}-${key}-"],
        "through": "${a}",
        "behind": "${through.same[0]}",
        "kept": "\\${top}",
    }
    expected = OmegaConf.to_container(OmegaConf.create(content), resolve=True)
    assert isinstance(expected, dict)
    assert resolve_references(content) == {**expected, "kept": "\\${top}"}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)), "no aliases"),
        ("a0: x\n" + "".join(f'a{n}: "${{a{n - 1}}}${{a{n - 1}}}"\n' for n in range(1, 60)), "references to at most"),
        ("a0: [x]\n" + "".join(f'a{n}: ["${{a{n - 1}}}", "${{a{n - 1}}}"]\n' for n in range(1, 40)), "at most"),
        ("a: ${b}\nb: ${a}\n", "to another value"),
        ("a:\n  b: ${a}\n", "to another value"),
        ("a: ${....b}\n", "to another value"),
        ("a: ${b.c}\nb: [1]\n", "a key that exists"),
        ("a: " + "[" * 200 + "]" * 200, TOO_DEEP),
        ("a: " + "[" * 5000 + "]" * 5000, TOO_DEEP),
        (
            "a0: [x]\n" + "".join(f"a{n}:\n  - ${{a{n - 1}}}\n" for n in range(1, 60)),
            TOO_DEEP,
        ),
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
