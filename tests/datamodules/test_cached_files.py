import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from src.datamodules.cached_files import folder_name, make_missing, require_writable, run_parallel, whole_folder
from src.utils.files import atomic_write
from src.utils.processes import available_cpus
from tests.marks import slow

ROOT = Path(__file__).parents[2]


def touch(path):
    path.write_text(str(os.getpid()))


def fail_at_two(number):
    if number == 2:
        raise RuntimeError("two")


def fail_or_sleep(number):
    if number == 0:
        raise RuntimeError("zero")
    time.sleep(60)


def test_atomic_write_leaves_the_whole_file_or_nothing(tmp_path):
    path = tmp_path / "data.bin"
    with atomic_write(path) as file:
        file.write(b"old")
        assert not path.exists()
    assert path.read_bytes() == b"old"
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as file:
        file.write(b"half of the n")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_require_writable(tmp_path):
    require_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match=f"folder that can be written to, got {folder}"):
            require_writable(folder)


def test_another_parameter_is_another_folder():
    names = {folder_name("size8", {"a": a, "b": b}) for a in (1, 2) for b in ("x", None)}
    assert len(names) == 4 and all(name.startswith("size8-") for name in names)
    assert folder_name("size8", {"b": "x", "a": 1}) in names


def make_files(folder, names, made):
    """Make files of a folder that are missing or empty, and note which."""

    def find_unusable():
        damages = {n: f"{folder / n} is empty" if (folder / n).exists() else None for n in names}
        return {n: damage for n, damage in damages.items() if damage is None or not (folder / n).read_bytes()}

    def make(unusable):
        made.extend(unusable)
        for name in unusable:
            (folder / name).write_text(name)

    make_missing(folder, "tests", find_unusable, make, {"names": names})


def test_only_what_is_missing_or_damaged_is_made(tmp_path):
    folder, made = tmp_path / "cache", []
    make_files(folder, ["a", "b"], made)
    assert made == ["a", "b"] and '"names"' in (folder / "parameters.json").read_text()
    (folder / "b").write_bytes(b"")
    (folder / "half.tmp").mkdir()
    (folder / "half.tmp" / "inner.tmp").write_bytes(b"half")
    with pytest.warns(UserWarning, match=f"Replacing a damaged file: {folder / 'b'} is empty"):
        make_files(folder, ["a", "b", "c"], made)
    assert made == ["a", "b", "b", "c"] and not (folder / "half.tmp").exists()
    before = {path: path.stat().st_mtime_ns for path in (folder, *folder.iterdir())}
    make_files(folder, ["a", "b", "c"], made)
    assert len(made) == 4 and {path: path.stat().st_mtime_ns for path in (folder, *folder.iterdir())} == before


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with whole_folder(tmp_path / "a" / "case") as folder:
        (folder / "file").write_text("1")
        assert not (tmp_path / "a" / "case").exists()
    assert (tmp_path / "a" / "case" / "file").read_text() == "1"
    assert (tmp_path / "a" / "case").stat().st_mode == (tmp_path / "a").stat().st_mode
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "a" / "other") as folder:
        (folder / "file").write_text("1")
        raise KeyboardInterrupt
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["case"]


@pytest.mark.parametrize("num_workers", [0, slow(2)])
def test_every_task_is_done_once_where_it_should(num_workers, tmp_path):
    paths = [tmp_path / str(n) for n in range(3)]
    run_parallel(touch, paths, num_workers, "Touching")
    here = {path.read_text() == str(os.getpid()) for path in paths}
    assert here == {num_workers == 0}


def test_an_exception_in_this_process_is_raised():
    with pytest.raises(RuntimeError, match="two"):
        run_parallel(fail_at_two, [1, 2], 0, "Failing")


def test_an_exception_in_a_worker_is_raised_and_ends_the_others():
    others = set(multiprocessing.active_children())
    with pytest.raises(RuntimeError, match="zero"):
        run_parallel(fail_or_sleep, [1, 0], 2, "Failing")
    deadline = time.monotonic() + 20
    while set(multiprocessing.active_children()) - others and time.monotonic() < deadline:
        time.sleep(0.05)
    assert set(multiprocessing.active_children()) <= others


def test_available_cpus():
    assert 1 <= available_cpus() <= (os.cpu_count() or 1)


@pytest.mark.slow
def test_workers_that_still_start_say_nothing_about_ctrl_c():
    code = "import time; from src.datamodules.cached_files import run_parallel\n"
    code += "from src.utils.signals import exit_on_signals\nif __name__ == '__main__':\n    print(flush=True)\n"
    code += "    with exit_on_signals(): run_parallel(time.sleep, [60, 60], 2, 'sleeping')"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, start_new_session=True, text=True, **pipes)
    assert process.stdout.readline() == "\n"
    time.sleep(1.5)  # they import torch
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGINT and "Traceback" not in errors, errors
