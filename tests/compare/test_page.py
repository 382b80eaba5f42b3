"""What the page holds: columns, differences, pictures, and nothing that could break out of it."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import compare
from src.compare.columns import columns_of, values_of
from src.compare.differences import differences
from src.compare.page import build_page, page_data, script_safe
from src.compare.pictures import MAX_EPOCHS, MAX_SIDE, choose_epochs, data_uri
from src.compare.runs import RunRecord
from src.compare.sources import Sources, find_sources
from src.runs.folder import RunFolder
from src.tasks.metrics import Metric, to_plain
from src.utils.errors import ConfigError
from tests.compare.folders import summary, write_picture, write_run

ROOT = Path(__file__).resolve().parents[2]


def run_with(config: dict[str, Any] | None = None, **changes: Any) -> RunRecord:
    known = summary(**changes)
    whole = known.pop("config")
    return RunRecord(Path("run"), known, whole if config is None else config)


def data_of(page: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert match is not None
    return json.loads(match.group(1))


def test_quality_and_cost_stand_in_front_in_their_units() -> None:
    columns = columns_of([run_with()])
    assert [(c.key, c.unit, c.better) for c in columns if c.role in ("quality", "cost")] == [
        ("test/psnr", "dB", "max"),
        ("val/psnr", "dB", "max"),
        ("test/ssim", None, "max"),
        ("parameters", None, "min"),
        ("step_time", "ms", "min"),
        ("memory", "GiB", "min"),
        ("total_time", "min", "min"),
    ]
    assert [c.key for c in columns if c.role == "metric"] == ["test/psnr_fbp", "train/loss"]
    values = values_of(run_with(step_time_s=None))
    assert (values["memory"], values["total_time"], values["step_time"]) == (1.0, 1.5, None)
    assert values_of(run_with(metrics={"test/loss": float("nan")}))["test/loss"] is None


@pytest.mark.parametrize(
    ("task", "name", "unit", "better"),
    [
        ("density.Density", "test/bits_per_dim", "bits/dim", "min"),
        ("density.Density", "test/logdet", "bits/dim", None),
        ("segmentation.Segmentation", "test/dice_wt", None, "max"),
        ("segmentation.Segmentation", "test/hausdorff95_et", "voxels", "min"),
        ("segmentation.Segmentation", "test/psnr", None, None),
    ],
)
def test_the_task_of_a_run_describes_its_metrics(task: str, name: str, unit: str | None, better: str | None) -> None:
    config = {"task": {"_target_": f"src.tasks.{task}"}}
    columns = columns_of([run_with(config, metrics={name: 1.0})])
    assert [(c.unit, c.better, c.role) for c in columns if c.key == name] == [(unit, better, "quality")]


def test_the_metrics_of_anyones_task_are_described_by_its_summary_and_its_monitor() -> None:
    config = {"task": {"_target_": "mine.Task"}, "monitor": {"metric": "val/novel", "mode": "max"}}
    descriptions = to_plain([Metric("fid", "FID", "points", "min", 1)])
    metrics = {"test/fid": 3.0, "test/novel": 1.0, "test/odd": 0.0}
    run = run_with(config, metrics=metrics, metric_descriptions=descriptions)
    assert [(c.key, c.unit, c.better, c.role) for c in columns_of([run]) if c.key.startswith("test/")] == [
        ("test/novel", None, "max", "quality"),
        ("test/fid", "points", "min", "quality"),
        ("test/odd", None, None, "metric"),
    ]


def test_times_and_memory_have_their_units() -> None:
    columns = {c.key: c for c in columns_of([run_with(metrics={"time/step_s": 1.0, "memory/peak_gib": 2.0})])}
    found = [(columns[n].unit, columns[n].better) for n in ("time/step_s", "memory/peak_gib")]
    assert found == [("s", "min"), ("GiB", "min")]


def test_only_the_keys_that_differ_are_listed() -> None:
    first = {"run_dir": "out/a", "seed": 0, "model": {"width": 4, "norm": {}}, "best": "out/a/best", "lr": 0.1}
    second = {"run_dir": "out/b", "seed": 1, "model": {"depth": [2, 2]}, "best": "out/b/best", "lr": 0.1}
    runs = [run_with(first), run_with(second, hardware={"cpu": "two"}), run_with(first, hardware=None, versions=None)]
    assert differences(runs) == [
        ("seed", ["0", "1", "0"]),
        ("model.width", ["4", None, "4"]),
        ("model.norm", ["{}", None, "{}"]),
        ("model.depth", [None, "[2, 2]", None]),
        ("hardware.cpu", ["one", "two", None]),
    ]
    assert differences([runs[0], runs[2]]) == []


def test_a_run_folder_is_a_place_and_no_part_of_a_word() -> None:
    runs = [run_with({"run_dir": name, "layer": "dropout", "files": [f"{name}/a"]}) for name in ("out", "drop")]
    assert differences(runs) == []


def test_no_data_ends_the_script_element() -> None:
    evil = {"</script><script>alert(1)</script>": "<!--<script>", "\u2028": float(1)}
    text = script_safe(evil)
    assert "<" not in text and json.loads(text) == evil
    with pytest.raises(ValueError):
        script_safe(float("nan"))


def test_the_page_is_one_file_that_asks_for_nothing(tmp_path: Path) -> None:
    names = ["</script><b>", "{{script}}"]
    for number, name in enumerate(names):
        write_run(tmp_path / str(number), pictures=[("test-000", None)], model=name, experiment=name)
    page = build_page(find_sources([str(tmp_path)]))
    assert [run["values"]["model"] for run in data_of(page)["runs"]] == names
    assert page.count("</script>") == 2
    # No address but the namespace of SVG, which nobody fetches.
    assert set(re.findall(r"\w+://[^\"' ]+", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\b(src|href)=\"(?!data:)[^#\"]", page)
    assert "default-src 'none'" in page


def test_curves_are_thinned_and_tests_stay_in_the_table(tmp_path: Path) -> None:
    rows = [{"step": step, "train/loss": float(step)} for step in range(5000)] + [{"step": 5000, "test/loss": 1.0}]
    write_run(tmp_path / "run", rows)
    (run,) = page_data(find_sources([str(tmp_path)]), "all")["runs"]
    assert set(run["curves"]) == {"train/loss"}
    assert run["curves"]["train/loss"]["group"] == 3 and len(run["curves"]["train/loss"]["step"]) <= 2000


@pytest.mark.parametrize(
    ("images", "expected"), [("all", {"test-000", "val-000"}), ("test", {"test-000"}), ("none", set())]
)
def test_the_pictures_that_are_asked_for(tmp_path: Path, images: str, expected: set[str]) -> None:
    write_run(tmp_path / "run", pictures=[("test-000", None), *(("val-000", epoch) for epoch in range(20))])
    (run,) = page_data(find_sources([str(tmp_path)]), images)["runs"]
    assert set(run["pictures"]) == expected
    if images == "all":
        epochs = [epoch for epoch, _ in run["pictures"]["val-000"]]
        assert (len(epochs), epochs[0], epochs[-1]) == (MAX_EPOCHS, 0, 19)
        assert run["seriesLengths"]["val-000"] == 20


def test_the_epochs_are_evenly_spread() -> None:
    series = {epoch: Path() for epoch in (40, 0, 10, 20, 30)}
    assert choose_epochs(series, 3) == [0, 20, 40]
    assert choose_epochs(series, 5) == [0, 10, 20, 30, 40]


@pytest.mark.parametrize("constant", [True, False])
def test_a_picture_is_embedded_without_loss(tmp_path: Path, constant: bool) -> None:
    path = tmp_path / "picture.png"
    write_picture(path, side=64)
    if constant:
        Image.new("RGBA", (64, 64), (10, 20, 30, 255)).save(path)
    picture = decoded(data_uri(path))
    np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), np.asarray(Image.open(path).convert("RGB")))


def test_a_large_picture_is_scaled_down(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.new("L", (2 * MAX_SIDE, MAX_SIDE), 128).save(path)
    assert decoded(data_uri(path)).size == (MAX_SIDE, MAX_SIDE // 2)


def png_of(width: int, height: int) -> bytes:
    """A whole PNG of one bit per pixel, which packs a thousand times smaller."""
    buffer = io.BytesIO()
    Image.new("1", (8, 8)).save(buffer, format="PNG")
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(height * (1 + (width + 7) // 8)), 9)
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    return buffer.getvalue()[:8] + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png_of(9000, 9000), "expected at most 67108864 pixels, got 9000 × 9000"),
        (png_of(20_000, 10_000), "DecompressionBombError"),
        (png_of(100, 100)[:50], "truncated"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "cannot identify"),
        (b"", "cannot identify"),
    ],
    ids=["many pixels", "bomb", "truncated", "program", "empty"],
)
def test_a_hostile_picture_is_named_and_never_unpacked(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"expected a picture, got '.*picture\.png': .*({message})"):
        data_uri(path)


def test_a_damaged_picture_is_left_out_and_said(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", pictures=[("test-000", None), ("test-001", None)])
    broken = RunFolder(folder).pictures()["test-001"][None]
    broken.write_bytes(broken.read_bytes()[:200])
    sources = find_sources([str(folder)])
    data = page_data(sources, "all")
    assert set(data["runs"][0]["pictures"]) == {"test-000"}
    assert len(data["notes"]) == 1 and str(broken) in data["notes"][0]


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["a"], {}),
        (["a", "output=x.html", "images=test"], {"output": "x.html", "images": "test"}),
        (["--output=x.html", "a"], {"output": "x.html"}),
        (["--output", "x.html", "a", "--images", "none"], {"output": "x.html", "images": "none"}),
    ],
)
def test_options_are_read_in_both_spellings(arguments: list[str], options: dict[str, Any]) -> None:
    assert compare.read_arguments(arguments) == (["a"], compare.Options(**options))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["images=all"], "expected at least one run folder"),
        (["a", "image=all"], "did you mean 'images'"),
        (["a", "--outptu", "x.html"], "did you mean 'output'"),
        (["a", "images=some"], "expected images to be one of none, test, all, got 'some'"),
        (["a", "output=page.pdf"], "expected output to be a file <name>.html, got 'page.pdf'"),
        (["a", "--output"], "expected one output=<value>, got 0"),
    ],
)
def test_wrong_arguments_are_named(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compare.read_arguments(arguments)


def test_a_folder_with_an_equals_sign_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "seed=1").mkdir()
    assert compare.read_arguments([str(tmp_path / "seed=1")])[0] == [str(tmp_path / "seed=1")]


def test_the_command_line_writes_the_page_without_torch(tmp_path: Path) -> None:
    write_run(tmp_path / "run", pictures=[("test-000", None)])
    output = tmp_path / "folder" / "page.html"
    code = f"""
import sys
sys.argv = ["compare.py", {str(tmp_path / "run")!r}, "output={output}"]
import compare
compare.main()
heavy = {{"torch", "pytorch_lightning", "hydra", "wandb", "matplotlib"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "1 run(s) on a page of" in done.stdout and str(output) in done.stdout
    assert data_of(output.read_text())["runs"][0]["name"] == "run"


def test_a_missing_run_is_an_error_of_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["compare.py", "nowhere"])
    with pytest.raises(SystemExit) as caught:
        compare.main()
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("error: expected a run folder")


def test_no_runs_no_title() -> None:
    assert page_data(Sources({"a": run_with()}), "none")["title"] == "ct_postproc: 1 run"
