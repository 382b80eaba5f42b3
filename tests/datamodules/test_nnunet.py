"""nnU-Net's raw format: files by nibabel and SimpleITK, numbers by independent computations."""

import json
import shutil
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy.ndimage import map_coordinates

import predict
import train
from src.config.composition import compose_config
from src.datamodules.nnunet import NnunetDataModule
from src.datamodules.nnunet.cases import find_training_cases
from src.datamodules.nnunet.demo import NnunetDemo
from src.datamodules.nnunet.resampling import resample_classes, resample_image, resampled_shape
from src.datamodules.volumes.cases import CLASSES, IMAGE

CHANNELS = ("CT", "PET")
LABELS = {"background": 0, "liver": 1, "lesion": 2}
SPACING = (1.0, 1.5, 2.0)
DESCRIPTION = {
    "channel_names": {"0": "CT", "1": "PET"},
    "labels": LABELS,
    "numTraining": 5,
    "file_ending": ".nii.gz",
}


def affine(spacing, origin=(-10.0, 5.0, 3.0)):
    matrix = np.diag([*spacing, 1.0])
    matrix[:3, 3] = origin
    return matrix


def save(path, voxels, spacing=SPACING):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine(spacing)), path)


def volumes(index, shape):
    """Two channels and labels, zero at the border."""
    rng = np.random.default_rng(index)
    images = np.zeros((2, *shape), np.float32)
    images[:, 1:-1, 2:-2, 1:-1] = rng.normal(50, 20, (2, shape[0] - 2, shape[1] - 4, shape[2] - 2))
    labels = np.zeros(shape, np.uint8)
    labels[2:7, 3:8, 2:6] = 1
    labels[3:5, 4:6, 3:5] = 2
    return images, labels


def write_set(folder, layout="nnunet", count=5, spacings=None, description=DESCRIPTION):
    """Write cases of odd sizes in one of the layouts, and one more without labels."""
    for index in range(count + 1):
        images, labels = volumes(index, (11, 12 + index, 9))
        spacing = (spacings or {}).get(index, SPACING)
        name, part = f"case_{index:03d}", "imagesTr" if index < count else "imagesTs"
        if layout == "msd":
            save(folder / part / f"{name}.nii.gz", np.moveaxis(images, 0, -1), spacing)
        else:
            for channel, image in enumerate(images):
                save(folder / part / f"{name}_{channel:04d}.nii.gz", image, spacing)
        if index < count:
            save(folder / "labelsTr" / f"{name}.nii.gz", labels, spacing)
    if layout == "msd":
        names = [f"case_{index:03d}.nii.gz" for index in range(count)]
        description = {
            "tensorImageSize": "4D",
            "modality": DESCRIPTION["channel_names"],
            "labels": {str(value): name for name, value in LABELS.items()},
            "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names],
            "test": ["./imagesTs/case_005.nii.gz"],
        }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def make(folder, **kwargs):
    own = {"cache_dir": str(folder.parent / "cache"), "size": (6, 6, 6), "preprocessing_workers": 0}
    return NnunetDataModule(str(folder), **{**own, **kwargs})


def prepared(folder, **kwargs):
    datamodule = make(folder, **kwargs)
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


def cached(datamodule):
    return {case.case.name: case for part in ("train", "val") for case in datamodule.cases[part]}


@pytest.fixture
def root(tmp_path):
    return write_set(tmp_path / "data")


@pytest.mark.parametrize("layout", ["nnunet", "msd"])
def test_both_layouts_give_the_same_arrays(layout, tmp_path):
    datamodule = prepared(write_set(tmp_path / layout, layout))
    assert datamodule.modalities == CHANNELS and datamodule.class_names == tuple(LABELS)
    assert datamodule.regions == {"liver": (1,), "lesion": (2,)} and datamodule.sample_shape == (2, 6, 6, 6)
    (file,) = (tmp_path / "cache").rglob("fingerprint.json")
    known = json.loads(file.read_text())["channels"][0]
    foreground = np.concatenate(
        [image[0][labels > 0] for image, labels in (volumes(i, (11, 12 + i, 9)) for i in range(5))]
    )
    # These are of 10,000 draws from each case, as in nnU-Net.
    assert abs(known["mean"] - foreground.mean()) < 0.5 and abs(known["std"] - foreground.std()) < 0.5
    assert np.abs(np.percentile(foreground, (0.5, 99.5)) - [known["low"], known["high"]]).max() < 6
    cases = cached(datamodule)
    assert sorted(cases) == [f"case_{index:03d}" for index in range(5)]
    for index in range(5):
        images, labels = (array[..., 1:-1, 2:-2, 1:-1] for array in volumes(index, (11, 12 + index, 9)))
        case = cases[f"case_{index:03d}"]
        ct, pet = case.array(IMAGE)
        np.testing.assert_allclose(
            ct, (np.clip(images[0], known["low"], known["high"]) - known["mean"]) / known["std"], atol=1e-5
        )
        np.testing.assert_allclose(pet, (images[1] - images[1].mean()) / images[1].std(), atol=1e-5)
        assert np.array_equal(case.array(CLASSES), labels)
    batch = next(iter(datamodule.train_dataloader()))
    assert batch["image"].shape == (1, 2, 6, 6, 6) and batch["label"].max() <= 2


def test_version_2_of_dataset_json_names_regions(root):
    labels = {"background": 0, "whole tumour": [1, 3], "core": 3}
    (root / "dataset.json").write_text(json.dumps({**DESCRIPTION, "labels": labels}))
    datamodule = make(root)
    assert datamodule.regions == {"whole_tumour": (1, 2), "core": (2,)}
    assert datamodule.label_values == {0: 0, 1: 1, 2: 3} and datamodule.class_names == ("background", "label 1", "core")


def half_pixel(image, shape):
    """Values at the centres of other voxels that fill the same volume."""
    axes = [(np.arange(n) + 0.5) * old / n - 0.5 for n, old in zip(shape, image.shape, strict=True)]
    return np.meshgrid(*axes, indexing="ij")


def test_resampling_is_a_spline_between_voxel_centres():
    rng = np.random.default_rng(0)
    image, shape = rng.normal(size=(9, 8, 7)).astype(np.float32), (13, 6, 10)
    expected = map_coordinates(image, half_pixel(image, shape), order=3, mode="nearest")
    # As in nnU-Net, a spline does not overshoot the values.
    expected = expected.clip(image.min(), image.max())
    np.testing.assert_allclose(resample_image(image[None], shape, None)[0], expected, atol=1e-4)
    assert resampled_shape((10, 10, 10), (1, 2, 0.5), (2, 1, 1)) == (5, 20, 5)


def test_across_thick_slices_the_nearest_one_counts():
    image = np.random.default_rng(0).normal(size=(1, 5, 6, 4)).astype(np.float32)
    thick = resample_image(image, (5, 6, 8), 2)
    np.testing.assert_allclose(thick, image.repeat(2, axis=3), atol=1e-5)


def test_classes_are_resampled_by_their_shares():
    classes = np.zeros((6, 6, 6), np.uint8)
    classes[:3], classes[3:, :2] = 1, 2
    assert np.array_equal(resample_classes(classes, (12, 12, 12), None), classes.repeat(2, 0).repeat(2, 1).repeat(2, 2))
    there = resample_classes(classes, (9, 10, 11), None)
    assert (resample_classes(there, (6, 6, 6), None) == classes).mean() > 0.97


def test_spacings_are_resampled_to_the_median_or_refused(tmp_path):
    root = write_set(tmp_path / "data", spacings={1: (2.0, 1.5, 2.0)})
    case = cached(prepared(root))["case_001"]
    assert case.array(IMAGE).shape[1:] == (18, 9, 7) == case.array(CLASSES).shape
    assert cached(prepared(root, spacing=[2.0, 3.0, 2.0]))["case_000"].array(IMAGE).shape[1:] == (4, 4, 7)
    with pytest.raises(
        ValueError, match=r"got 1 that are.*\n.*case_001.*expected voxels of 1 × 1.5 × 2 mm.*2 × 1.5 × 2"
    ):
        prepared(root, spacing=None)


def evaluate(truth_dir, predicted_dir, ending=".nii.gz"):
    """nnU-Net's evaluate_folder: files of the same name, of the same geometry, Dice of each class."""
    scores = {}
    for path in sorted(Path(predicted_dir).glob(f"*{ending}")):
        truth, found = (sitk.ReadImage(str(folder / path.name)) for folder in (Path(truth_dir), Path(predicted_dir)))
        for get in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            assert np.allclose(getattr(truth, get)(), getattr(found, get)())
        a, b = (sitk.GetArrayFromImage(image) for image in (truth, found))
        scores[path.name] = [2 * np.sum((a == c) & (b == c)) / np.sum((a == c) * 1 + (b == c)) for c in (1, 2)]
    return scores


@pytest.mark.parametrize("spacing", ["median", [1.4, 1.2, 1.7]])
@pytest.mark.parametrize("layout", ["nnunet", "msd"])
def test_the_truth_as_prediction_comes_back_in_its_own_geometry(layout, spacing, tmp_path):
    root = write_set(tmp_path / "data", layout, spacings={1: (2.0, 1.5, 2.0)})
    datamodule = prepared(root, spacing=spacing, predict_dir=str(root / "imagesTr"))
    truths = {name: torch.from_numpy(np.array(case.array(CLASSES))) for name, case in cached(datamodule).items()}
    datamodule.setup("predict")
    for index, sample in enumerate(datamodule.predict_dataloader()):
        assert "label" not in sample
        datamodule.save_prediction(index, truths[datamodule.case_name("predict", index)], tmp_path / "predicted")
    scores = evaluate(root / "labelsTr", tmp_path / "predicted")
    assert len(scores) == 5
    if spacing == "median":
        assert all(scores[f"case_{i:03d}.nii.gz"] == [1, 1] for i in (0, 2, 3, 4))
    assert min(liver for liver, _ in scores.values()) > 0.8


def test_the_fingerprint_alone_is_enough_to_predict(root, tmp_path):
    prepared(root)
    (fingerprint,) = (tmp_path / "cache").rglob("fingerprint.json")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(root / "dataset.json", elsewhere)
    arguments = {"predict_dir": str(root / "imagesTs"), "cache_dir": str(tmp_path / "other")}
    with pytest.raises(ValueError, match=r"expected datamodule.fingerprint_file or a training set"):
        make(elsewhere, **arguments).setup("predict")
    alone = make(elsewhere, **arguments, fingerprint_file=str(fingerprint))
    alone.setup("predict")
    beside = make(root)
    beside.setup("predict")
    assert np.array_equal(alone.cases["predict"][0].array(IMAGE), beside.cases["predict"][0].array(IMAGE))


def arrays(datamodule, split):
    """The preprocessed images of a split, by their names."""
    return {case.case.name: np.array(case.array(IMAGE)) for case in datamodule.cases[split]}


def with_state(state, folder, **kwargs):
    datamodule = make(folder, **kwargs)
    datamodule.load_state_dict(state)
    return datamodule


def saved(datamodule, path):
    """The state, as a checkpoint has it."""
    torch.save(datamodule.state_dict(), path)
    return torch.load(path, weights_only=True)


def grow(root, tmp_path):
    """Add brighter cases of larger voxels, and let another run measure the set."""
    for index in range(10, 17):
        images, labels = volumes(index, (9, 10, 8))
        for channel, image in enumerate(images):
            save(root / "imagesTr" / f"case_{index:03d}_{channel:04d}.nii.gz", 5 * image, (2.0, 3.0, 4.0))
        save(root / "labelsTr" / f"case_{index:03d}.nii.gz", labels, (2.0, 3.0, 4.0))
    prepared(root)
    (measured,) = (tmp_path / "cache").rglob("fingerprint.json")
    return measured


def test_a_checkpoint_preprocesses_as_its_training_did_after_the_set_has_grown(root, tmp_path):
    split = tmp_path / "split.json"
    first = prepared(root, split_file=str(split))
    first.setup("predict")
    state = saved(first, tmp_path / "state.pt")
    measured = grow(root, tmp_path)
    before = measured.read_text()
    again = with_state(state, root, split_file=str(split))
    again.prepare_data()
    again.setup()
    again.setup("predict")
    assert again.cases.keys() == {"train", "val", "test", "predict"} and measured.read_text() == before
    for part in again.cases:
        found, expected = arrays(again, part), arrays(first, part)
        assert found.keys() == expected.keys() and all(np.array_equal(found[name], expected[name]) for name in found)
    assert saved(again, tmp_path / "state.pt") == state
    unaware = make(root)
    unaware.setup("predict")
    assert unaware.cases["predict"][0].array(IMAGE).shape != first.cases["predict"][0].array(IMAGE).shape


def test_new_cases_are_preprocessed_by_the_state(root, tmp_path):
    state = saved(prepared(root), tmp_path / "state.pt")
    grow(root, tmp_path)
    assert "fingerprint.json" not in str(state) and state["normalisations"] == ["ct", "z_score"]
    with pytest.warns(UserWarning, match="7 cases are in no part"):
        datamodule = with_state(state, root)
        datamodule.prepare_data()
    cases = [*find_training_cases(root, datamodule.description)[0]]
    usable, problems = datamodule.preprocess(cases)
    assert problems == [] and {case.case.name: case.array(IMAGE).shape[1:] for case in usable}["case_010"] == (
        14,
        12,
        12,
    )
    with pytest.raises(ValueError, match=r"got 7 that are .*\n.*case_010.*expected voxels of 1 × 1.5 × 2 mm"):
        with_state(state, root, spacing=None).prepare_data()


def test_the_state_alone_is_enough_to_predict(root, tmp_path):
    beside = prepared(root)
    beside.setup("predict")
    state = saved(beside, tmp_path / "state.pt")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    names = {"0": "other", "1": "PET"}
    (elsewhere / "dataset.json").write_text(json.dumps({**DESCRIPTION, "channel_names": names}))
    places = {"predict_dir": str(root / "imagesTs"), "cache_dir": str(tmp_path / "new")}
    alone = with_state(state, elsewhere, **places, fingerprint_file="nowhere.json")
    alone.setup("predict")
    assert alone.normalisations == ("ct", "z_score")
    assert np.array_equal(arrays(alone, "predict")["case_005"], arrays(beside, "predict")["case_005"])
    chosen = with_state(state, elsewhere, **places, normalisation=["none", "none"])
    assert chosen.normalisations == ("none", "none")
    names["2"] = "third"
    (elsewhere / "dataset.json").write_text(json.dumps({**DESCRIPTION, "channel_names": names}))
    with pytest.raises(ValueError, match="expected a fingerprint of 3 channels, got 'checkpoint': got 2 channels"):
        with_state(state, elsewhere)


def test_there_is_no_state_before_the_set_is_measured(root):
    (root / "labelsTr" / "case_001.nii.gz").write_bytes(b"")
    datamodule = make(root)
    assert datamodule.state_dict() == {}
    with pytest.raises(ValueError, match="got 1 that are incomplete or invalid"):
        datamodule.prepare_data()
    assert datamodule.state_dict() == {}


def spoil(root):
    images, labels = root / "imagesTr", root / "labelsTr"
    (images / "case_000_0001.nii.gz").unlink()
    (labels / "case_001.nii.gz").unlink()
    voxels = volumes(2, (11, 14, 9))[1]
    voxels[0, 0, 0] = 7
    save(labels / "case_002.nii.gz", voxels)
    image = volumes(3, (11, 15, 9))[0][1]
    image[0, 0, 0] = np.nan
    save(images / "case_003_0001.nii.gz", image)
    save(images / "case_004_0000.nii.gz", volumes(4, (11, 15, 9))[0][0])
    save(images / "case_004_0001.nii.gz", volumes(4, (11, 16, 9))[0][1], (1.0, 1.5, 2.5))
    save(images / "case_009_0000.nii.gz", image)
    save(labels / "case_010.nii.gz", voxels)
    (images / "case_002_0002.nii.gz").write_bytes((images / "case_002_0001.nii.gz").read_bytes())


def test_all_problems_are_listed_together(root):
    spoil(root)
    (root / "imagesTr" / "._case_000_0000.nii.gz").write_text("of macOS")
    with pytest.raises(ValueError, match=r"skip_bad_cases=true skips them") as error:
        prepared(root)
    message = str(error.value)
    for line in (
        "case_000_0001.nii.gz: expected this file of channel 0001 (PET), got none",
        "case_001: labelsTr/case_001.nii.gz: expected this file; cases without labels belong to imagesTs",
        "case_002: case_002_0002.nii.gz: expected channels up to 0001, as dataset.json names 2",
        "imagesTr/case_003_0001.nii.gz: expected finite values, got 1 infinite or NaN values",
        "case_004_0001.nii.gz: expected the spatial shape (11, 15, 9) of imagesTr/case_004_0000.nii.gz, got (11, 16",
        "labelsTr/case_004.nii.gz: expected the spatial shape (11, 15, 9)",
        "case_009: labelsTr/case_009.nii.gz: expected this file",
        "case_010: imagesTr/case_010: expected this image, which labelsTr/case_010.nii.gz asks for, got none",
    ):
        assert line in message, line
    (root / "imagesTr" / "case_002_0002.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"expected labels 0, 1, 2 as in dataset.json, got 0, 1, 2, 7"):
        prepared(root)


def test_a_fold_of_nnunets_own_splits(root, tmp_path):
    path = tmp_path / "splits_final.json"
    folds = [{"train": ["case_000", "case_001", "case_002"], "val": ["case_003", "case_004"]}]
    folds.append({"train": folds[0]["val"], "val": folds[0]["train"]})
    path.write_text(json.dumps(folds))
    for number, fold in enumerate(folds):
        cases = prepared(root, split_file=str(path), fold=number).cases
        assert {part: [case.case.name for case in cases[part]] for part in cases} == {**fold, "test": fold["val"]}
    with pytest.raises(ValueError, match=r"splits_final\.json.*datamodule\.fold=2 of 2 folds, which begin with 0"):
        prepared(root, split_file=str(path), fold=2)
    with pytest.raises(ValueError, match=r"list of folds.* for datamodule\.fold=1, got a split that is drawn"):
        prepared(root, fold=1)
    path.write_text(json.dumps([folds[0]["train"]]))
    with pytest.raises(ValueError, match=r"expected a JSON file with lists of cases.*splits_final\.json"):
        prepared(root, split_file=str(path))


def test_the_scans_of_a_patient_stay_together(tmp_path):
    root = write_set(tmp_path / "data", count=8)
    for group, val in ((None, "24"), ("case_00[45]?", "45"), ("(case_00[67]?)", "67")):  # the others are one patient
        assert list(arrays(prepared(root, group=group), "val")) == [f"case_00{index}" for index in val]
    assert len(list((tmp_path / "cache").rglob("split-val0.2-test0-seed0*.json"))) == 3
    with pytest.raises(ValueError, match=r"group='case_00\(\[0-3\]\)'.* got nothing in case_004, case_005"):
        prepared(root, group="case_00([0-3])")
    with pytest.raises(ValueError, match=r"datamodule\.group as a regular expression"):
        make(root, group="(")


def test_bad_cases_can_be_skipped(root):
    (root / "imagesTr" / "case_000_0001.nii.gz").unlink()
    save(root / "labelsTr" / "case_001.nii.gz", np.full((11, 13, 9), 7, np.uint8))
    images, labels = volumes(3, (11, 15, 9))
    for name, voxels in (("imagesTr/case_003_0000", images[0]), ("imagesTr/case_003_0001", images[1])):
        save(root / f"{name}.nii.gz", voxels, (1.0, 1.5, 5.0))
    save(root / "labelsTr" / "case_003.nii.gz", labels, (1.0, 1.5, 5.0))
    with pytest.warns(UserWarning, match="bad cases") as caught:
        assert sorted(cached(prepared(root, skip_bad_cases=True, spacing=None))) == ["case_002", "case_004"]
    [message] = [str(w.message) for w in caught if "Skipping" in str(w.message)]  # once
    assert message.startswith("Skipping 3 bad cases")


def test_a_4d_file_with_another_number_of_channels(tmp_path):
    root = write_set(tmp_path / "data", "msd")
    save(root / "imagesTr" / "case_000.nii.gz", np.ones((11, 12, 9, 3), np.float32))
    with pytest.raises(ValueError, match=r"case_000.nii.gz: expected the 2 channels of dataset.json, got 3"):
        prepared(root)


def test_a_listed_case_without_files_is_named(tmp_path):
    root = write_set(tmp_path / "data", "msd")
    for part in ("imagesTr", "labelsTr"):
        (root / part / "case_003.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"case_003.*expected this image, which dataset.json asks for, got none"):
        prepared(root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": {"liver": 1}}, "labels: expected a background with the value 0"),
        ({"labels": {"background": 0}}, "labels: expected a class besides the background"),
        ({"labels": {"background": 0, "a": 1, "b": 1}}, "labels: expected another value for each class"),
        ({"labels": {"background": 0, "a": 1.5}}, "labels: expected integers from 0 to 255 for 'a', got .1.5."),
        ({"labels": {"background": 0, "a": 1, "ignore": 2}}, 'expected no class "ignore"'),
        ({"labels": {"background": 0, "a b": 1, "A.b": 2}}, "names that differ in letters and digits"),
        ({"labels": []}, "labels: expected .*background"),
        ({"channel_names": {"1": "CT"}}, "channel_names .or modality.: expected"),
        ({"file_ending": ".png"}, "file_ending: expected .nii.gz or .nii, which are read here, got '.png'"),
    ],
)
def test_a_wrong_dataset_json(root, change, message):
    (root / "dataset.json").write_text(json.dumps({**DESCRIPTION, **change}))
    with pytest.raises(ValueError, match=f"(?s)dataset.json.*{message}"):
        make(root)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "dataset.json").unlink(), "has no such file. datamodule=nnunet_demo makes a synthetic"),
        (lambda root: (root / "dataset.json").write_text("{"), "dataset.json"),
        (shutil.rmtree, "is no folder"),
        (lambda root: shutil.rmtree(root / "labelsTr"), "labelsTr, which does not exist"),
        (
            lambda root: [p.unlink() for p in root.glob("*Tr/*")],
            "images with the ending .nii.gz in .*imagesTr, got none",
        ),
    ],
)
def test_missing_and_empty_folders(root, damage, message):
    damage(root)
    with pytest.raises(ValueError, match=message):
        prepared(root)


def test_a_folder_to_predict_that_is_empty(root):
    prepared(root)
    (root / "empty").mkdir()
    with pytest.raises(ValueError, match=r"images with the ending .nii.gz in .*empty, got none"):
        make(root, predict_dir=str(root / "empty")).setup("predict")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 1}, "expected image.channels=2 image.num_classes=3, .*CT, PET .*got image.channels=1"),
        ({"num_classes": 2}, "got image.channels=2 image.num_classes=2"),
        ({"spacing": "mean"}, "spacing as median, null or three positive numbers in mm, got 'mean'"),
        ({"spacing": [1, 0, 1]}, "spacing as median"),
        ({"normalisation": ["ct"]}, "normalisation as one of .* for each of the channels CT, PET, got .'ct'."),
        ({"size": [4, 4]}, "size as three positive numbers"),
    ],
)
def test_bad_arguments(root, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(root, **arguments)


@pytest.mark.parametrize(("kind", "low", "high"), [("unit", 0, 1), ("none", None, None), ("rgb", None, None)])
def test_other_normalisations(root, kind, low, high):
    image = cached(prepared(root, normalisation=[kind, "z_score"]))["case_000"].array(IMAGE)[0]
    raw = volumes(0, (11, 12, 9))[0][0, 1:-1, 2:-2, 1:-1]
    expected = {"unit": (raw - raw.min()) / (raw.max() - raw.min()), "none": raw, "rgb": raw / 255}[kind]
    np.testing.assert_allclose(image, expected, rtol=1e-5, atol=1e-6)


TINY = [
    *("datamodule.demo.num_cases=4", "datamodule.demo.num_test=1", "datamodule.demo.shape=[26,25,24]"),
    *("datamodule.size=[16,16,16]", "network.blowup=4", "network.num_couplings=1", "network.num_levels=2"),
    *("trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1", "logger=csv"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant",
    [
        ["datamodule.demo.format=msd"],
        ["datamodule.demo.regions=true", "task.outputs=regions", "model.out_channels=2"],
    ],
    ids=["msd", "regions"],
)
def test_from_files_to_label_maps(variant, tmp_path):
    folders = [f"datamodule.data_dir={tmp_path / 'data'}", f"datamodule.cache_dir={tmp_path / 'cache'}"]
    run = tmp_path / "run"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train.train(compose_config(["experiment=segmentation", *TINY, *variant, *folders, f"run_dir={run}"]))
        assert predict.predict(*predict.load([f"ckpt={run}", f"output={tmp_path / 'out'}"])) == 1
    (written,) = (tmp_path / "out").glob("*.nii.gz")
    assert written.name == "demo_004.nii.gz" and (run / "images" / "test-overlays.png").is_file()


def test_the_demo_is_written_again_only_where_it_is_missing(tmp_path):
    demo = NnunetDemo(num_cases=2, num_test=1, shape=(24, 25, 26))
    folder = demo.folder(tmp_path)
    demo.write(folder, 0)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.nii.gz")}
    assert len(times) == 2 * 3 + 2
    (folder / "labelsTr" / "demo_001.nii.gz").unlink()
    demo.write(folder, 0)
    again = {path: path.stat().st_mtime_ns for path in folder.rglob("*.nii.gz")}
    assert again.keys() == times.keys() and sum(again[path] != times[path] for path in times) == 3
