"""A synthetic set is not written into the user's own data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate

from src.config.composition import compose_config


@pytest.mark.parametrize(
    ("experiment", "file", "reader"),
    [
        ("segmentation", "dataset.json", "nnunet"),
        ("brats", "BraTS20_Training_001/BraTS20_Training_001_t1.nii", "brats"),
        ("brats", "HGG/Brats18_a/Brats18_a_t1.nii.gz", "brats"),
        ("ct_slices", "ground_truth_train_000.hdf5", "lodopab"),
        ("irevnet_lab datamodule=image_folder_demo", "cats/1.png", "image_folder"),
        ("irevnet_lab datamodule=image_folder_demo", "1.jpg", "image_folder"),
    ],
)
def test_own_data_need_the_datamodule_that_reads_them(experiment: str, file: str, reader: str, tmp_path: Path) -> None:
    arguments = [*f"experiment={experiment}".split(), f"datamodule.data_dir={tmp_path / 'data'}"]
    config: Any = compose_config(arguments).datamodule
    made = instantiate(config).data_dir
    (made / file).parent.mkdir(parents=True)  # what an earlier run made is no data of the user's
    (made / file).touch()
    assert instantiate(config).data_dir == made
    (tmp_path / "data" / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "data" / file).touch()
    with pytest.raises(Exception, match=f"datamodule={reader} reads your own data") as error:
        instantiate(config)
    assert f"got {tmp_path / 'data'} with {file}" in str(error.value.__cause__ or error.value)
