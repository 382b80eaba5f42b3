import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F

from src.datamodules.cifar10 import CIFAR10DataModule
from src.datamodules.images import random_flip, random_shift
from src.datamodules.mnist import MNISTDataModule
from tests.image_files import write_cifar10, write_mnist

SHAPES = {MNISTDataModule: (1, 28, 28), CIFAR10DataModule: (3, 32, 32)}
KINDS = list(SHAPES)
SMALL = {"num_val": 12, "batch_size": 16, "verify_checksums": False, "download": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_mnist(folder, num_train=60, num_test=20)
    return write_cifar10(folder, num_per_batch=12, num_test=20)


def make(kind, folder, **kwargs):
    datamodule = kind(str(folder), **{**SMALL, **kwargs})
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


def collect(loader):
    """An epoch as one batch, in the order of the index."""
    batches = list(loader)
    epoch = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    order = epoch["index"].argsort()
    return {name: values[order] for name, values in epoch.items()}


def loaders_of(datamodule):
    return datamodule.train_dataloader(), datamodule.val_dataloader(), datamodule.test_dataloader()


def epochs(datamodule):
    return [collect(loader) for loader in loaders_of(datamodule)]


@pytest.mark.parametrize("kind", KINDS)
def test_batches(kind, folder):
    datamodule = make(kind, folder)
    assert datamodule.sample_shape == SHAPES[kind]
    assert datamodule.num_classes == len(datamodule.class_names) == 10
    assert datamodule.values == "unit"
    for loader, sizes in zip(loaders_of(datamodule), ([16, 16, 16], [12], [16, 4]), strict=True):
        batches = list(loader)
        assert [len(batch["label"]) for batch in batches] == sizes
        for batch in batches:
            assert set(batch) == {"image", "label", "index"}
            assert batch["image"].shape[1:] == SHAPES[kind] and batch["image"].dtype == torch.float32
            assert batch["label"].dtype == batch["index"].dtype == torch.int64
            assert batch["label"].shape == batch["index"].shape == batch["image"].shape[:1]
        assert collect(batches)["index"].tolist() == list(range(sum(sizes)))


def test_loaders_take_pinning(folder):
    assert make(MNISTDataModule, folder, pin_memory=True).train_dataloader().pin_memory


@pytest.mark.parametrize("kind", KINDS)
def test_one_sample_is_a_batch_of_one_without_its_first_axis(kind, folder):
    dataset = make(kind, folder).test_dataloader().dataset
    assert len(dataset) == 20
    sample, batch = dataset[3], dataset.__getitems__([5, 3])
    assert sample["image"].shape == SHAPES[kind] and sample["index"] == 3
    assert all(torch.equal(sample[name], batch[name][1]) for name in batch)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("counts", "train", "val", "test"),
    [
        ({"num_val": 12}, slice(0, 48), slice(48, 60), slice(0, 20)),
        ({"num_train": 5, "num_val": 7, "num_test": 4}, slice(0, 5), slice(53, 60), slice(0, 4)),
        ({"num_train": 40, "num_val": 20, "num_test": 20}, slice(0, 40), slice(40, 60), slice(0, 20)),
        ({"num_train": 45, "num_val": None}, slice(0, 45), slice(45, 60), slice(0, 20)),
        ({"num_train": None, "num_val": 0}, slice(0, 60), slice(60, 60), slice(0, 20)),
        ({"num_train": 60, "num_val": None}, slice(0, 60), slice(60, 60), slice(0, 20)),
    ],
)
def test_training_takes_the_first_and_validation_the_last_images_of_the_training_file(
    kind, counts, train, val, test, folder
):
    datamodule = make(kind, folder, values="integers", **counts)
    for split, part, loader in zip(("train", "train", "test"), (train, val, test), loaders_of(datamodule), strict=True):
        images, labels = datamodule.files.read_split(split)
        if not len(labels[part]):
            assert list(loader) == []
            continue
        epoch = collect(loader)
        assert torch.equal(epoch["image"], torch.from_numpy(images[part]).float())
        assert torch.equal(epoch["label"], torch.from_numpy(labels[part]))


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_what_they_are_said_to_be(kind, folder):
    grey = torch.from_numpy(make(kind, folder).files.read_split("test")[0])
    choices = ("unit", "standardised", "integers")
    images = {values: collect(make(kind, folder, values=values).test_dataloader())["image"] for values in choices}
    assert torch.equal(images["integers"], grey.float())
    assert torch.equal(images["unit"], grey.float() / 255)
    mean, std = (torch.tensor(numbers, dtype=torch.float64).view(-1, 1, 1) for numbers in (kind.MEAN, kind.STD))
    torch.testing.assert_close(images["standardised"].double(), (grey / 255.0 - mean) / std, rtol=0, atol=1e-6)
    assert all(image.dtype == torch.float32 for image in images.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("values", ["unit", "standardised", "integers"])
def test_worker_processes_give_the_same_batches(kind, values, folder):
    results = []
    for num_workers in (0, 2):
        torch.manual_seed(0)
        datamodule = make(kind, folder, values=values, num_workers=num_workers)
        assert datamodule.train_dataloader().persistent_workers == (num_workers > 0)
        results.append([*datamodule.train_dataloader(), *datamodule.test_dataloader()])
    assert len(results[0]) == len(results[1]) == 5
    assert all(torch.equal(a[name], b[name]) for a, b in zip(*results, strict=True) for name in a)


def test_only_training_is_shuffled(folder):
    datamodule = make(MNISTDataModule, folder)
    torch.manual_seed(0)
    loader = datamodule.train_dataloader()
    orders = [[tuple(batch["index"].tolist()) for batch in loader] for _ in range(2)]
    assert orders[0] != orders[1] != sorted(orders[1])
    for loader in (datamodule.val_dataloader(), datamodule.test_dataloader()):
        index = torch.cat([batch["index"] for batch in loader])
        assert index.tolist() == list(range(len(index)))


def possible(image, max_shift, flips):
    """Every image that augmentation can make of one, as bytes."""
    size = image.shape[-1]
    padded = F.pad(image, (max_shift,) * 4)
    crops = [
        padded[:, top : top + size, left : left + size]
        for top in range(2 * max_shift + 1)
        for left in range(2 * max_shift + 1)
    ]
    crops += [crop.flip(-1) for crop in crops] if flips else []
    return {crop.contiguous().numpy().tobytes() for crop in crops}


@pytest.mark.parametrize(("kind", "max_shift", "flips"), [(MNISTDataModule, 2, False), (CIFAR10DataModule, 4, True)])
def test_augmented_images_are_crops_of_the_padded_image_and_all_of_them_occur(kind, max_shift, flips, folder):
    datamodule = make(kind, folder, values="integers", augment=True, num_train=3)
    originals = torch.from_numpy(datamodule.files.read_split("train")[0][:3]).float()
    allowed = [possible(image, max_shift, flips) for image in originals]
    assert {len(images) for images in allowed} == {(2 * max_shift + 1) ** 2 * (1 + flips)}
    torch.manual_seed(0)
    dataset = datamodule.train_dataloader().dataset.dataset
    batch = dataset.__getitems__([0, 1, 2] * 4000)
    seen = [set(), set(), set()]
    for index, image in zip(batch["index"].tolist(), batch["image"], strict=True):
        seen[index].add(image.numpy().tobytes())
    assert seen == allowed
    assert batch["image"].shape == (12000, *SHAPES[kind])
    assert torch.equal(batch["label"][:3], dataset.labels)


@pytest.mark.parametrize("kind", KINDS)
def test_augmentation_is_seeded_and_leaves_validation_test_and_the_stored_images_alone(kind, folder):
    plain, augmented = make(kind, folder), make(kind, folder, augment=True)
    first, *rest = epochs(plain)
    results = []
    for _ in range(2):
        torch.manual_seed(1)
        results.append(epochs(augmented))
    assert torch.equal(results[0][0]["image"], results[1][0]["image"])
    assert not torch.equal(results[0][0]["image"], first["image"])
    torch.manual_seed(2)
    assert not torch.equal(collect(augmented.train_dataloader())["image"], results[0][0]["image"])
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(rest, results[0][1:], strict=True))
    stored = [datamodule.train_dataloader().dataset.dataset.images for datamodule in (augmented, plain)]
    assert torch.equal(*stored)


def test_shifts_and_flips_differ_from_image_to_image():
    torch.manual_seed(0)
    image = torch.arange(1, 26, dtype=torch.uint8).view(1, 1, 5, 5)
    batch = image.expand(400, 2, 5, 5)
    shifted, flipped = random_shift(batch, 1), random_flip(batch)
    assert torch.equal(shifted[:, 0], shifted[:, 1])  # channels move together
    assert len({image.numpy().tobytes() for image in shifted}) == 9
    assert 0.4 < (flipped != batch).flatten(start_dim=1).any(dim=1).float().mean() < 0.6
    assert torch.equal(random_shift(batch, 0), batch)


@pytest.mark.parametrize(("border", "mode"), [("zeros", "constant"), ("nearest", "edge"), ("symmetric", "symmetric")])
def test_what_comes_in_from_outside_is_that_of_numpys_padding(border, mode):
    image = torch.arange(1, 21).view(1, 1, 4, 5).to(torch.uint8)
    padded = np.pad(image.numpy()[0, 0], 2, mode=mode)
    crops = {padded[i : i + 4, j : j + 5].tobytes() for i in range(5) for j in range(5)}
    torch.manual_seed(0)
    shifted = random_shift(image.expand(400, -1, -1, -1), 2, border)
    assert {crop.numpy().tobytes() for crop in shifted[:, 0]} == crops


def test_shifts_flips_and_borders_are_those_asked_for(folder):
    module = CIFAR10DataModule(str(folder), 8, 4, 4, augment=True, max_shift=0, flips=False, verify_checksums=False)
    module.setup("fit")
    images = module.sets["train"]
    assert torch.equal(images[0]["image"] * 255, images.images[0].float())
    with pytest.raises(ValueError, match="border as one of zeros, nearest, symmetric, got 'wrap'"):
        CIFAR10DataModule(border="wrap")


def test_only_what_is_used_of_a_file_stays_in_memory(folder):
    dataset = make(MNISTDataModule, folder, num_train=5).train_dataloader().dataset.dataset
    assert dataset.images.untyped_storage().nbytes() == 5 * 28 * 28


@pytest.mark.parametrize("kind", KINDS)
def test_a_stage_reads_its_own_files_only(kind, tmp_path):
    write_mnist(tmp_path)
    write_cifar10(tmp_path)
    datamodule = kind(str(tmp_path), num_val=5, verify_checksums=False)
    test_file = datamodule.files.locate({MNISTDataModule: "t10k-images-idx3-ubyte.gz"}.get(kind, "test_batch"))
    test_file.rename(test_file.with_name("aside"))
    datamodule.setup("fit")
    datamodule.setup("validate")
    assert len(datamodule.val_dataloader().dataset) == 5
    with pytest.raises(ValueError, match=f"{test_file}.*No such file"):
        datamodule.setup("test")
    test_file.with_name("aside").rename(test_file)
    datamodule.setup("test")
    test_file.unlink()
    datamodule.setup("test")  # has been read already
    assert len(datamodule.test_dataloader().dataset) == 20


def test_a_started_worker_gets_the_images_but_not_the_trainer(folder):
    datamodule = make(MNISTDataModule, folder, augment=True)
    datamodule.trainer = SimpleNamespace(world_size=1, global_rank=0, hook=lambda: "cannot be pickled")
    loader = datamodule.train_dataloader()
    parts = (loader.dataset, loader.collate_fn)
    batches = []
    for dataset, collate in (parts, pickle.loads(pickle.dumps(parts))):
        batches.append(collate(dataset.__getitems__([(7, 1), (3, 2)])))
    assert all(torch.equal(batches[0][name], batches[1][name]) for name in ("image", "label", "index"))


class Linear(pl.LightningModule):
    """The smallest classifier."""

    def __init__(self, sample_shape):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(sample_shape).numel(), 10))
        self.hits = []

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch["image"]), batch["label"])

    def test_step(self, batch, batch_idx):
        self.hits.append(self.net(batch["image"]).argmax(dim=1) == batch["label"])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_lightning_trains_on_them_even_without_validation_images(kind, folder):
    torch.manual_seed(0)
    datamodule = kind(str(folder), **{**SMALL, "num_val": 0})
    model = Linear(datamodule.sample_shape)
    silent = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = pl.Trainer(max_epochs=12, accelerator="cpu", **silent)
    trainer.fit(model, datamodule)
    trainer.test(model, datamodule, verbose=False)
    assert torch.cat(model.hits).float().mean() == 1.0


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (MNISTDataModule, {"num_train": 0}, "num_train of at least 1, got 0"),
        (MNISTDataModule, {"num_train": -5}, "num_train of at least 1, got -5"),
        (MNISTDataModule, {"num_val": -1}, "num_val of at least 0, got -1"),
        (MNISTDataModule, {"num_test": 0}, "num_test of at least 1, got 0"),
        (MNISTDataModule, {"batch_size": 0}, "batch_size of at least 1, got 0"),
        (MNISTDataModule, {"num_workers": -1}, "num_workers of at least 0, got -1"),
        (MNISTDataModule, {"values": "float"}, "values as one of unit, standardised, integers, got 'float'"),
        (MNISTDataModule, {"num_train": None, "num_val": None}, "num_train or num_val as a number, got None for both"),
        (MNISTDataModule, {"num_train": 55_001}, "at most 60000, .* got num_train=55001 and num_val=5000"),
        (MNISTDataModule, {"num_train": 60_001, "num_val": None}, "got num_train=60001 and num_val=None"),
        (MNISTDataModule, {"num_val": 60_000}, "got num_train=None and num_val=60000"),
        (MNISTDataModule, {"num_test": 10_001}, "num_test of at most 10000, .* got 10001"),
        (CIFAR10DataModule, {"num_train": 45_001}, "at most 50000, .* got num_train=45001 and num_val=5000"),
        (CIFAR10DataModule, {"num_test": 10_001}, "num_test of at most 10000, .* got 10001"),
    ],
)
def test_bad_arguments_are_named_before_any_folder_is_made(kind, arguments, message, tmp_path):
    with pytest.raises(ValueError, match=f"expected .*{message}"):
        kind(str(tmp_path / "new"), **arguments)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_train": 50, "num_val": 11}, "at most 60, .* got num_train=50 and num_val=11"),
        ({"num_val": 60}, "got num_train=None and num_val=60"),
        ({"num_test": 21}, "num_test of at most 20, .* got 21"),
    ],
)
def test_files_of_ones_own_are_counted_when_they_are_read(kind, arguments, message, folder):
    with pytest.raises(ValueError, match=message):
        make(kind, folder, **arguments)
