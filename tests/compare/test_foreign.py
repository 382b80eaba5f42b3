"""Files of strangers on the page: nothing is called, nothing grows, and whatever they hold is shown or named."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from src.compare.page import build_page
from src.compare.sources import find_sources
from src.runs.folder import RunFolder
from src.utils.reading import FileError
from tests.compare.folders import summary, write_run, write_unfinished

CALL = "${oc.env:SECRET}"
# Beside what a summary has in such a place.
ODD = [None, True, [], ["a", 1], {}, {"a": {"b": [1]}}, "", "\ud800</script>", "x" * 10_000, 10**400, -(2**60), 1e308]
ODD += [float("nan"), float("inf"), CALL, [[[[{"a": CALL}]]]]]
PLACES = [
    *[(key,) for key in (*summary(), "format")],
    *[("metrics", "test/psnr"), ("hardware", "cpu"), ("versions", "torch"), ("config", "run_dir"), ("config", "seed")],
    *[("config", "monitor"), ("config", "monitor", "metric"), ("config", "monitor", "mode"), ("config", "model")],
    *[("config", "trainer"), ("config", "trainer", "default_root_dir"), ("config", "model", "_target_")],
    ("config", "model", "body"),
]


def page_of(folder: Path) -> str:
    page = build_page(find_sources([str(folder)]), "none")
    page.encode()
    return page


def test_no_resolver_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hidden-treasure")
    folder = write_unfinished(tmp_path / "run")
    path = RunFolder(folder).config
    attacks = [CALL, "${${env}:SECRET}", "${oc.${e}:SECRET}", "${oc.decode:'${oc.env:SECRET}'}", "${oc.create:${x}}"]
    config = OmegaConf.load(path)
    config.update({"env": "oc.env", "e": "env", "x": CALL, "backprop": CALL, "attacks": attacks, "again": "${attacks}"})
    config.model = {"_target_": CALL}
    OmegaConf.save(config, path)
    write_run(tmp_path / "other", config={"a": CALL}, model=CALL)
    page = page_of(tmp_path)
    assert "hidden-treasure" not in page and "oc.env:SECRET" in page


def test_a_reference_of_an_earlier_version_is_no_difference(tmp_path: Path) -> None:
    write_unfinished(tmp_path / "a", "trainer.max_epochs=12")
    path = RunFolder(write_unfinished(tmp_path / "b", "trainer.max_epochs=12")).config
    path.write_text(path.read_text().replace("max_epochs: 12", "max_epochs: ${network.epochs}"))
    assert '"differences":[]' in page_of(tmp_path)
    write_unfinished(tmp_path / "c", "trainer.max_epochs=13")
    assert '"key":"trainer.max_epochs"' in page_of(tmp_path)


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_odd_values_are_shown_or_named(place: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hidden-treasure")
    folder = write_run(tmp_path / "run")
    path = RunFolder(folder).summary
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
    RunFolder(write_run(tmp_path / "deep")).summary.write_text("[" * 100_000)
    (tmp_path / "bomb").mkdir()
    RunFolder(tmp_path / "bomb").config.write_text("a: &a [x]\nb: *a\n")
    found = find_sources([str(tmp_path)])
    assert list(found.runs) == ["good"] and len(found.notes) == 2
