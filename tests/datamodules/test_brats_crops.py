import numpy as np
import pytest
import torch

from src.datamodules.crops import read_crop
from src.datamodules.volumes.crops import Augmentation, draw_crop


def cut(volume, first, size):
    """The oracle of `read_crop`: the volume in the middle of much background."""
    margin = 40
    padded = np.pad(volume, [(0, 0)] * (volume.ndim - 3) + [(margin, margin)] * 3)
    return padded[(..., *(slice(f + margin, f + margin + s) for f, s in zip(first, size, strict=True)))]


@pytest.mark.parametrize("size", [(4, 4, 4), (10, 12, 8), (16, 3, 20), (30, 30, 30)])
def test_crops_are_parts_of_the_volume_in_background(size):
    rng = np.random.default_rng(0)
    volume = rng.normal(size=(2, 10, 12, 8)).astype(np.float32)
    torch.manual_seed(0)
    for _ in range(50):
        first = draw_crop(np.zeros((10, 12, 8), np.uint8), size, 0.5)
        for f, s, n in zip(first, size, (10, 12, 8), strict=True):
            assert min(0, n - s) <= f <= max(0, n - s)
        for array in (volume, volume[0]):
            crop = read_crop(array, first, size)
            assert crop.dtype == np.float32 and np.array_equal(crop, cut(array, first, size))


def test_all_places_are_equally_likely_without_oversampling():
    torch.manual_seed(0)
    classes = np.ones((5, 4, 6), np.uint8)
    firsts = [tuple(draw_crop(classes, (3, 6, 6), 0.0)) for _ in range(1800)]
    counts = np.unique(firsts, axis=0, return_counts=True)[1]
    assert len(counts) == 3 * 3 * 1  # 5 − 3 + 1 inside, 6 − 4 + 1 around, one that is the volume's own
    assert counts.min() > 150 and counts.max() < 250


def test_a_crop_is_centred_at_a_voxel_of_a_class_each_as_likely_as_the_other():
    classes = np.zeros((20, 20, 20), np.uint8)
    classes[8:13, 8:13, 8] = 2  # 25 voxels
    classes[10, 10, 11] = 3  # one
    torch.manual_seed(0)
    centres = np.array([draw_crop(classes, (4, 4, 4), 1.0) for _ in range(1000)]) + 2
    drawn = classes[tuple(centres.T)]
    assert set(drawn) == {2, 3} and 450 < (drawn == 3).sum() < 550
    assert len(np.unique(centres[drawn == 2], axis=0)) == 25


def test_a_crop_at_the_border_stays_inside():
    classes = np.zeros((20, 20, 6), np.uint8)
    classes[19, 0, 3] = 1
    torch.manual_seed(0)
    assert {tuple(draw_crop(classes, (8, 8, 10), 1.0)) for _ in range(20)} == {(12, 0, -2)}


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_how_often_a_crop_looks_for_the_tumour(probability):
    classes = np.zeros((40, 40, 40), np.uint8)
    classes[20, 20, 20] = 3
    torch.manual_seed(0)
    hits = sum(draw_crop(classes, (2, 2, 2), probability) == [19, 19, 19] for _ in range(400))
    assert abs(hits / 400 - probability) < 0.07


def test_a_healthy_case_is_cropped_anywhere():
    torch.manual_seed(0)
    firsts = {tuple(draw_crop(np.zeros((5, 5, 5), np.uint8), (4, 4, 4), 1.0)) for _ in range(200)}
    assert len(firsts) == 8


def brain(seed=0, shape=(6, 5, 4)):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(4, *shape, generator=generator)
    image[:, :2] = 0
    return image, torch.randint(4, shape, generator=generator)


def test_flips_are_the_only_change_without_intensities():
    image, label = brain()
    axes = [[a for a, flipped in zip((-3, -2, -1), bits, strict=True) if flipped] for bits in np.ndindex(2, 2, 2)]
    allowed = {image.flip(a).numpy().tobytes(): label.flip(a).numpy().tobytes() for a in axes}
    augmentation = Augmentation(0.0, 0.0, 0.0)
    torch.manual_seed(0)
    seen = set()
    for _ in range(100):
        changed, labels = augmentation(image, label)
        assert type(changed) is type(labels) is torch.Tensor
        assert changed.dtype == torch.float32 and labels.dtype == torch.int64
        assert allowed[changed.contiguous().numpy().tobytes()] == labels.contiguous().numpy().tobytes()
        seen.add(changed.contiguous().numpy().tobytes())
    assert seen == set(allowed)


@pytest.mark.parametrize(("scale", "shift"), [(0.1, 0.0), (0.0, 0.2), (0.3, 0.1)])
def test_intensities_are_scaled_and_shifted_within_their_bounds_and_the_background_is_not(scale, shift):
    image, label = brain()
    augmentation = Augmentation(scale, shift, 0.0)
    torch.manual_seed(0)
    factors, offsets = [], []
    for _ in range(100):
        changed, _ = augmentation(image, label)
        assert torch.equal((changed != 0).sum(), (image != 0).sum())
        for before, after in zip(image, changed, strict=True):
            # A flip changes the order; the map is increasing.
            x, y = before[before != 0].double().sort().values, after[after != 0].double().sort().values
            slope = (y[-1] - y[0]) / (x[-1] - x[0])
            torch.testing.assert_close(y, slope * (x - x[0]) + y[0], rtol=0, atol=1e-5)
            factors.append(float(slope))
            offsets.append(float(y[0] - slope * x[0]))
    for values, middle, bound in ((factors, 1, scale), (offsets, 0, shift)):
        assert np.abs(np.array(values) - middle).max() <= bound + 1e-5
        assert bound == 0 or np.std(values) == pytest.approx(bound / np.sqrt(3), rel=0.1)


def test_noise_is_within_its_bound_and_inside_only():
    image, label = torch.ones(4, 20, 20, 20), torch.zeros(20, 20, 20, dtype=torch.int64)
    image[:, 10:] = 0
    augmentation = Augmentation(0.0, 0.0, 0.5)
    torch.manual_seed(0)
    deviations = []
    for _ in range(50):
        changed, _ = augmentation(image, label)
        assert (changed == 0).sum() == (image == 0).sum()
        deviations.append(float(changed[changed != 0].std()))
    assert 0.4 < max(deviations) < 0.51 and min(deviations) < 0.1


def test_augmentation_follows_torchs_generator_and_leaves_its_input():
    image, label = brain()
    copies = image.clone(), label.clone()
    augmentation = Augmentation(0.1, 0.1, 0.1)
    torch.manual_seed(5)
    first = [augmentation(image, label) for _ in range(3)]
    augmentation = Augmentation(0.1, 0.1, 0.1)
    torch.manual_seed(5)
    second = [augmentation(image, label) for _ in range(3)]
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
    assert not torch.equal(first[0][0], first[1][0])
    assert torch.equal(image, copies[0]) and torch.equal(label, copies[1])
