"""Files of strangers on the page: nothing is called, nothing grows, and whatever they hold is shown or named."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf, open_dict
from src.compare.foreign import MAX_DEPTH
from src.compare.references import resolve_references

from src.compare.page import build_page
from src.compare.runs import read_run
from src.compare.sources import find_sources
from src.config.checks import plain
from src.config.composition import CONFIG_DIR, compose_config
from src.utils.reading import FileError
from tests.compare.folders import summary, write_run
from tests.compare.test_runs import write_unfinished

EXPERIMENTS = sorted(path.stem for path in (CONFIG_DIR / "experiment").glob("*.yaml"))
CALL = "${oc.env:SECRET}"
# Beside what a summary has in such a place.
ODD = [None, True, [], ["a", 1], {}, {"a": {"b": [1]}}, "", "\ud800</script>", "x" * 10_000, 10**400, -(2**60), 1e308]
ODD += [float("nan"), float("inf"), CALL, [[[[{"a": CALL}]]]]]
PLACES = [
    *[(key,) for key in summary()],
    *[("metrics", "test/psnr"), ("hardware", "cpu"), ("versions", "torch"), ("config", "run_dir"), ("config", "seed")],
    *[("config", "monitor"), ("config", "monitor", "metric"), ("config", "monitor", "mode"), ("config", "model")],
    *[("config", "trainer"), ("config", "trainer", "default_root_dir"), ("config", "model", "_target_")],
    ("config", "model", "body"),
]


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


def page_of(folder: Path) -> str:
    page = build_page(find_sources([str(folder)]), "none")
    page.encode()
    return page


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


def test_no_resolver_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hidden-treasure")
    folder = write_unfinished(tmp_path / "run")
    path = folder / "config.yaml"
    attacks = [CALL, "${${env}:SECRET}", "${oc.${e}:SECRET}", "${oc.decode:'${oc.env:SECRET}'}", "${oc.create:${x}}"]
    config = OmegaConf.load(path)
    config.update({"env": "oc.env", "e": "env", "x": CALL, "backprop": CALL, "attacks": attacks, "again": "${attacks}"})
    config.model = {"_target_": CALL}
    OmegaConf.save(config, path)
    write_run(tmp_path / "other", config={"a": CALL}, model=CALL)
    page = page_of(tmp_path)
    assert "hidden-treasure" not in page and "oc.env:SECRET" in page


def test_what_a_resolver_would_say_is_no_difference(tmp_path: Path) -> None:
    loggers = "logger=[csv,wandb]"
    write_unfinished(tmp_path / "a", loggers)  # its group is ${oc.env:WANDB_RUN_GROUP,${experiment}}
    write_unfinished(tmp_path / "b", loggers, "logger.wandb.group=known")
    assert '"differences":[]' in page_of(tmp_path)
    write_unfinished(tmp_path / "c", loggers, "logger.wandb.group=other")
    assert '"key":"logger.wandb.group"' in page_of(tmp_path)


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
        ("a: " + "[" * 200 + "]" * 200, f"at most {MAX_DEPTH} containers"),
        ("a: " + "[" * 5000 + "]" * 5000, f"at most {MAX_DEPTH} containers"),
        ("a0: [x]\n" + "".join(f"a{n}:\n  - ${{a{n - 1}}}\n" for n in range(1, 60)), f"at most {MAX_DEPTH} containers"),
        ("a: " + "9" * 5000, ""),
        ("a: !!python/object/apply:os.system [id]", ""),
        ("a: !!binary aGVsbG8=\n", "without experiment"),
        ("2026-01-01: 1\n", ""),
        ("? [a, b]\n: 1\n", ""),
        ("", ""),
    ],
)
def test_a_configuration_that_grows_or_is_odd_is_named(config: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(config)
    with within_seconds(20), pytest.raises(FileError, match="expected the configuration of a run") as caught:
        read_run(tmp_path)
    assert str(path) in str(caught.value) and reason in str(caught.value)


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_odd_values_are_shown_or_named(place: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hidden-treasure")
    folder = write_run(tmp_path / "run")
    path = folder / "summary.json"
    good = json.loads(path.read_text())
    for odd in ODD:
        content = deepcopy(good)
        node = content
        for key in place[:-1]:
            node = node[key]
        node[place[-1]] = odd
        path.write_text(json.dumps(content))
        try:
            page = page_of(folder)
        except FileError as error:
            assert str(path) in str(error)
        else:
            assert "hidden-treasure" not in page and page.count("</script>") == 2


def test_a_damaged_run_is_left_out_beside_a_good_one(tmp_path: Path) -> None:
    write_run(tmp_path / "good")
    (write_run(tmp_path / "deep") / "summary.json").write_text("[" * 100_000)
    (tmp_path / "bomb").mkdir()
    (tmp_path / "bomb" / "config.yaml").write_text("a: &a [x]\nb: *a\n")
    found = find_sources([str(tmp_path)])
    assert list(found.runs) == ["good"] and len(found.notes) == 2
