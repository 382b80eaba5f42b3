"""The values of classes in files and in memory."""

import numpy as np
import pytest

from src.datamodules.brats.releases import RELEASES
from src.datamodules.volumes.labels import to_classes, to_labels


@pytest.mark.parametrize("release", RELEASES.values(), ids=list(RELEASES))
def test_classes_have_the_values_of_the_release_in_files(release):
    values = np.array(list(release.label_values.values()))
    labels = np.random.default_rng(0).choice(values, (4, 5, 6)).astype(np.float32)
    classes = to_classes(labels, release.label_values)
    for index, value in release.label_values.items():
        assert np.array_equal(classes == index, labels == value)
    back = to_labels(classes, release.label_values)
    assert back.dtype == np.uint8 and np.array_equal(back, labels)
    assert to_labels(classes, {index: 300 + index for index in release.label_values}).dtype == np.uint16


def test_unknown_values_are_named():
    label_values = {0: 0, 1: 1, 2: 4}
    with pytest.raises(ValueError, match=r"^expected label values among \[0, 1, 4\], got \[2, 3\]$"):
        to_classes(np.array([[0, 1, 3], [2, 3, 4]]), label_values)
    with pytest.raises(ValueError, match=r"^expected classes among \[0, 1, 2\], got \[-1, 3\]$"):
        to_labels(np.array([0, 3, -1, 2]), label_values)
