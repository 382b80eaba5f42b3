"""Images in folders: torchvision is the oracle of classes and sizes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import CenterCrop, Compose, Resize

import train
from src.config.composition import compose_config
from src.datamodules.image_folder import ImageFolderDataModule
from src.datamodules.image_folder.demo import CLASS_NAMES, ImageFolderDemo
from src.datamodules.image_folder.reading import read_image

PARTS = ("train", "val", "test")


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classes") / "set"
    ImageFolderDemo(num_per_class=10, side=12).write(folder)
    return folder


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flat") / "set"
    ImageFolderDemo(num_per_class=5, side=12, labelled=False).write(folder)
    return folder


@pytest.fixture
def copied(classes, tmp_path):
    return Path(shutil.copytree(classes, tmp_path / "set"))


def make(folder, **kwargs):
    datamodule = ImageFolderDataModule(str(folder), **{"size": 12, "num_classes": 3, "values": "integers", **kwargs})
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


def rows(dataset):
    """Images as bytes, with their labels."""
    return sorted((image.numpy().tobytes(), int(y)) for image, y in zip(dataset.images, dataset.labels, strict=True))


def test_bad_test_images_are_found_before_the_training(flat, tmp_path):
    for part in PARTS:
        shutil.copytree(flat, tmp_path / part)
    damaged = next((tmp_path / "test").glob("*.png"))
    damaged.write_bytes(damaged.read_bytes()[:200])
    datamodule = ImageFolderDataModule(str(tmp_path), size=12, values="integers")
    with pytest.raises(ValueError, match=rf"(?s)got 1 that cannot.*test/{damaged.name}.*truncated"):
        datamodule.setup("fit")


@pytest.mark.parametrize("channels", [1, 3])
def test_images_and_classes_are_torchvisions(classes, channels):
    scale = Compose([Resize(12), CenterCrop(12)])
    oracle = ImageFolder(str(classes))
    mode = {1: "L", 3: "RGB"}[channels]
    expected = sorted(
        (
            np.asarray(scale(Image.open(path).convert(mode))).reshape(12, 12, channels).transpose(2, 0, 1).tobytes(),
            label,
        )
        for path, label in oracle.samples
    )
    datamodule = make(classes, channels=channels, values="unit")
    assert sorted(row for part in PARTS for row in rows(datamodule.sets[part])) == expected
    assert datamodule.class_names == tuple(oracle.classes) == CLASS_NAMES
    assert next(iter(datamodule.train_dataloader()))["image"].shape[1:] == (channels, 12, 12) == datamodule.sample_shape


def test_each_part_has_the_same_fraction_of_every_class(classes):
    counts = {part: torch.bincount(make(classes, val_fraction=0.2).sets[part].labels).tolist() for part in PARTS}
    assert counts == {"train": [7, 7, 7], "val": [2, 2, 2], "test": [1, 1, 1]}


def test_the_seed_alone_decides_the_parts(classes):
    first, same, other = (make(classes, seed=seed).sets["test"] for seed in (0, 0, 1))
    assert torch.equal(first.images, same.images) and rows(first) != rows(other)


def test_folders_divide_the_set_and_a_missing_part_is_drawn(copied):
    for part, numbers in (("train", range(8)), ("valid", range(8, 10))):
        for name in CLASS_NAMES:
            (copied / part / name).mkdir(parents=True)
            for i in numbers:
                (copied / name / f"{i:04d}.png").rename(copied / part / name / f"{i:04d}.png")
    for name in CLASS_NAMES:
        (copied / name).rmdir()
    datamodule = make(copied)
    held_out = {read_image(path, 3, 12, "crop", False).values.tobytes() for path in (copied / "valid").rglob("*.png")}
    assert {image.numpy().tobytes() for image in datamodule.sets["val"].images} == held_out
    assert [len(datamodule.sets[part]) for part in PARTS] == [22, 6, 2]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("channels", "note"),
    [
        (1, "2 of 6 images have colours, of which image.channels=1 takes the luminance"),
        (3, "3 of 6 images are grey, and image.channels=3 repeats their one channel"),
    ],
)
def test_images_that_change_their_colours_are_counted(channels, note, tmp_path, recwarn):
    modes = ["L", "LA", "I;16", "RGB", "RGBA", "P"]
    for number, mode in enumerate(modes):
        grey = Image.fromarray(np.full((12, 12), 9 * number, np.uint16 if mode == "I;16" else np.uint8))
        (grey if mode == "I;16" else grey.convert(mode)).save(tmp_path / f"{number}.png")
    datamodule = make(tmp_path, channels=channels, val_fraction=0.2, test_fraction=0.2)
    assert [str(w.message) for w in recwarn if "of 6 images" in str(w.message)] == [f"In {tmp_path}, {note}"]
    assert datamodule.input_notes() == []
    for number in range(6):
        datamodule.read_input(tmp_path / f"{number}.png")
    assert datamodule.input_notes() == [note]


def test_part_folders_may_have_capitals(classes, tmp_path):
    for part in ("Train", "VAL", "Testing"):
        shutil.copytree(classes, tmp_path / part)
    datamodule = make(tmp_path, values="unit")
    assert [len(datamodule.sets[part]) for part in PARTS] == [30, 30, 30] and datamodule.class_names == CLASS_NAMES


@pytest.mark.parametrize("values", ["unit", "integers"])
@pytest.mark.parametrize(
    "names",
    [("training_set", "test_set"), ("Train2017", "Val2017"), ("train-images", "evaluation"), ("trainset", "test")],
)
def test_folders_that_are_meant_as_parts_are_no_classes(names, values, classes, tmp_path):
    for name in names:
        shutil.copytree(classes, tmp_path / name)
    with pytest.raises(ValueError, match=rf"folders train or training, val or .*got {', '.join(names)}; rename them"):
        make(tmp_path, num_classes=2, values=values)


@pytest.mark.parametrize("names", [("trainer", "test"), ("train_station", "valley"), ("tests_passed", "tests_failed")])
def test_classes_may_have_names_that_begin_like_those_of_parts(names, classes, tmp_path):
    for name in names:
        shutil.copytree(classes, tmp_path / name)
    assert make(tmp_path, num_classes=2, values="unit").class_names == tuple(sorted(names))


def test_a_flat_folder_is_for_flows_and_not_for_classifiers(flat):
    assert sum(len(make(flat).sets[part]) for part in PARTS) == 15
    with pytest.raises(ValueError, match=r"image.num_classes=3 class folders in .* got 0: no folder, only images"):
        make(flat, values="unit")


def test_standardised_images_have_mean_0_and_deviation_1_also_if_only_the_test_is_read(classes):
    images = next(iter(make(classes, values="standardised").train_dataloader()))["image"]
    assert images.mean(dim=(0, 2, 3)).abs().max() < 1e-4 and (images.std(dim=(0, 2, 3)) - 1).abs().max() < 1e-3
    alone = ImageFolderDataModule(str(classes), size=12, num_classes=3, values="standardised")
    alone.setup("test")
    assert set(alone.sets) == {"test"}
    batches = [next(iter(d.test_dataloader()))["image"] for d in (alone, make(classes, values="standardised"))]
    assert torch.equal(*batches)


@pytest.mark.parametrize("values", ["unit", "integers"])
def test_the_test_images_are_read_without_those_of_the_training(values, classes):
    expected = make(classes, values=values)
    alone = ImageFolderDataModule(str(classes), size=12, num_classes=3, values=values)
    alone.setup("test")
    assert list(alone.sets) == ["test"]
    for found, image in zip(alone.test_dataloader(), expected.test_dataloader(), strict=True):
        assert torch.equal(found["image"], image["image"])


def test_numbers_are_caps(classes):
    with pytest.warns(UserWarning, match="Using 5 of the 24 images for train; datamodule.num_train=null uses all"):
        datamodule = make(classes, num_train=5, num_val=1000)
    assert [len(datamodule.sets[part]) for part in PARTS] == [5, 3, 3]


def test_sixteen_bits_transparency_palettes_and_rotations(tmp_path):
    grey = np.arange(0, 65536, 4096, dtype=np.uint16).reshape(4, 4)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    assert np.array_equal(read_image(tmp_path / "deep.png", 1, 4, "exact", False).values[0], np.rint(grey / 257))
    colours = np.random.default_rng(0).integers(256, size=(4, 4, 4), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "transparent.png")
    read = read_image(tmp_path / "transparent.png", 3, 4, "exact", False).values
    assert np.array_equal(read, colours[..., :3].transpose(2, 0, 1))
    picture = Image.fromarray(colours[..., :3])
    palette = picture.quantize(16)
    palette.save(tmp_path / "palette.png")
    read = read_image(tmp_path / "palette.png", 3, 4, "exact", False).values
    assert np.array_equal(read, np.asarray(palette.convert("RGB")).transpose(2, 0, 1))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    picture.save(tmp_path / "turned.png", exif=exif)
    turned = read_image(tmp_path / "turned.png", 3, 4, "exact", False).values
    assert np.array_equal(turned, colours[::-1, ::-1, :3].transpose(2, 0, 1))


def test_bad_images_are_listed_together_and_can_be_skipped(copied):
    Image.new("RGB", (30, 5)).save(copied / "disc" / "small.png")
    (copied / "ring" / "text.png").write_text("no image")
    whole = (copied / "ring" / "0000.png").read_bytes()
    (copied / "ring" / "0000.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.full((12, 12), np.nan, np.float32)).save(copied / "stripes" / "float.tif")
    with pytest.raises(ValueError, match=r"got 4 that cannot. datamodule.skip_bad_images=true") as error:
        make(copied)
    for text in (
        "small.png': expected at least 12×12 pixels, got 30×5; datamodule.upscale=true enlarges it, and image.size=5",
        "text.png': .*cannot identify image file",
        "0000.png': .*truncated",
        "float.tif': expected 8 or 16 bits per channel, got PIL's mode F",
    ):
        assert error.match(text)
    with pytest.warns(UserWarning, match="Skipping 4 bad images"):
        datamodule = make(copied, skip_bad_images=True)
    assert sum(len(datamodule.sets[part]) for part in PARTS) == 29


def test_many_bad_images_are_listed_in_part(flat):
    with pytest.raises(ValueError, match="got 15 that cannot") as error:
        make(flat, size=99)
    _, *lines = str(error.value).splitlines()
    for index, line in enumerate(lines[:3]):
        assert line.startswith(f"  disc_000{index}.png: expected an image, got ")
    assert len(lines) == 4 and lines[3].startswith("  12 more like disc_0000.png: disc_0003.png, disc_0004.png, ")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("src.datamodules.problems.NAMED", 4)
        with pytest.raises(ValueError, match=r"(?m)^  12 more like disc_0000.png: (\w+\.png, ){3}\w+\.png and 8 more$"):
            make(flat, size=99)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "does not exist; datamodule=image_folder_demo makes a small set"),
        (lambda folder: [path.unlink() for path in folder.rglob("*.png")], "(?s)disc: no image.*ring: no image"),
        (
            lambda folder: shutil.copy(folder / "disc/0000.png", folder),
            "1 images, such as 0000.png, beside",
        ),
        (lambda folder: (folder / "train").mkdir(), "train: no image"),
        (lambda folder: shutil.rmtree(folder / "disc"), "folders in .* got 2: ring, stripes .image.num_classes=2 t"),
        (
            lambda folder: [shutil.rmtree(folder / name) for name in CLASS_NAMES[1:]],
            "got 1: disc .a classifier needs at least 2",
        ),
    ],
)
def test_wrong_folders(copied, damage, message):
    damage(copied)
    with pytest.raises(ValueError, match=message):
        make(copied, values="unit")


def test_a_validation_class_that_training_lacks_is_named(copied):
    shutil.copytree(copied, copied / "train")
    shutil.copytree(copied / "disc", copied / "val" / "disk")
    with pytest.raises(ValueError, match=r"val/disk: no such class in .*train; did you mean 'disc'"):
        make(copied)


def test_files_of_other_programs_are_left_out(copied):
    (copied / "__MACOSX").mkdir()
    (copied / ".ipynb_checkpoints").mkdir()
    (copied / "disc" / "._0000.png").write_text("")
    (copied / "disc" / "notes.txt").write_text("")
    (copied / "Thumbs.db").write_text("")
    assert sum(len(make(copied, values="unit").sets[part]) for part in PARTS) == 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 2}, "image.channels of 1 .grey. or 3 .colour., got 2"),
        ({"fit": "pad"}, "fit as one of crop, stretch, exact, got 'pad'"),
        ({"mean": [0.5]}, "mean as 3 numbers, one per channel, got .0.5."),
        ({"size": 0}, "size of at least 1, got 0"),
        ({"val_fraction": 0.7}, "val_fraction from 0 to 0.5, got 0.7"),
    ],
)
def test_bad_arguments(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        ImageFolderDataModule(str(tmp_path / "new"), **arguments)


@pytest.mark.parametrize(
    "experiment",
    [
        ["irevnet_lab"],
        ["iconvnet_table1", "network.convnet.width=4"],
        ["iconvnet_table2", "model=glow", "network.glow.hidden_channels=4", "datamodule.demo.labelled=false"],
    ],
    ids=lambda words: words[0],
)
def test_experiments_train_on_folders(experiment, tmp_path):
    sizes = ["image.size=16", "datamodule.demo.num_per_class=8", "datamodule.demo.side=16", "datamodule.batch_size=8"]
    trainer = ["trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1", "callbacks.images.num_images=2"]
    overrides = [f"experiment={experiment[0]}", *experiment[1:], "datamodule=image_folder_demo", *sizes, *trainer]
    folders = [f"datamodule.data_dir={tmp_path / 'data'}", f"run_dir={tmp_path / 'run'}", "logger=csv"]
    summary = train.train(compose_config([*overrides, *folders]))
    assert np.isfinite(list(summary["metrics"].values())).all()
