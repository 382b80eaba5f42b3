"""Scans of BraTS's own size: 240×240×155 voxels in four modalities."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from tests.brats_files import write_case

SIZE = (240, 240, 155)
MEMORY_GIB = 1.5
SCRIPT = """
    import json, sys
    from pathlib import Path
    import torch
    from src.datamodules.brats import BratsDataModule
    from src.utils.resident_memory import peak_resident_bytes

    def peak_gib():
        return peak_resident_bytes() / 2**30

    root = Path(sys.argv[1])
    datamodule = BratsDataModule(str(root), cache_dir=str(root.parent / "cache"), preprocessing_workers=0)
    report = {"imported": peak_gib()}
    datamodule.prepare_data()
    report["prepared"] = peak_gib()
    datamodule.setup()
    datamodule.setup("predict")
    batch = next(iter(datamodule.train_dataloader()))
    report["crop"] = list(batch["image"].shape), list(batch["label"].shape)
    report["trained"] = peak_gib()
    volume = next(iter(datamodule.predict_dataloader()))["image"]
    report["volume"] = list(volume.shape)
    path = datamodule.save_prediction(0, torch.ones(volume.shape[2:], dtype=torch.int64), root.parent / "out")
    report["predicted"] = peak_gib()
    print(json.dumps(report))
"""


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
def test_loading_and_predicting_take_little_memory(dtype, tmp_path):
    for index in range(3):
        write_case(tmp_path / "data", index=index, dtype=dtype, shape=SIZE)
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path / "data")]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    report = json.loads(done.stdout.splitlines()[-1])
    print(report)
    assert report["crop"] == [[1, 4, 160, 192, 128], [1, 160, 192, 128]]
    assert report["volume"] == [1, 4, 235, 237, 151]
    assert report["predicted"] < MEMORY_GIB
