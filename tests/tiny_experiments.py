"""Every experiment at a size that takes seconds: an epoch without validation, an epoch with it, and a test."""

from __future__ import annotations

from pathlib import Path

from src.config.composition import CONFIG_DIR
from src.datamodules.pairs.demo import write_demo
from tests.image_files import write_cifar10, write_mnist

TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy.timeout_minutes=1"]
EPOCHS = ["trainer.max_epochs=2", "trainer.check_val_every_n_epoch=2", "trainer.log_every_n_steps=1"]
IMAGES = ["datamodule.num_train=8", "datamodule.num_val=4", "datamodule.num_test=4", "datamodule.batch_size=2"]
FLOW = [*IMAGES, "callbacks.images.num_images=2"]
BRATS = [
    "datamodule.demo.num_cases=6",
    "datamodule.demo.shape=[24,24,24]",
    "datamodule.size=[16,16,16]",
    "datamodule.val_fraction=0.34",
    "datamodule.test_fraction=0.34",
    "datamodule.batch_size=1",
    "network.blowup=4",
    "network.num_couplings=1",
    "network.num_levels=2",
]
SEGMENTATION = [
    *("datamodule.demo.num_cases=6", "datamodule.demo.shape=[24,24,24]", "datamodule.size=[16,16,16]"),
    *("datamodule.val_fraction=0.34", "datamodule.test_fraction=0.34", "datamodule.batch_size=1"),
    *("network.blowup=4", "network.num_couplings=1", "network.num_levels=2"),
]
SIZES = {
    "ct_postproc": [
        *("datamodule.scan.size=16", "datamodule.num_train=4", "datamodule.num_val=2", "datamodule.num_test=2"),
        *("datamodule.foam.num_balls=5", "datamodule.generation_workers=0", "datamodule.batch_size=1"),
        *("network.blowup=4", "network.num_levels=2", "network.num_couplings=1"),
    ],
    "brats": BRATS,
    "ct_slices": [
        *("datamodule.size=24", "datamodule.num_views=30", "datamodule.num_pixels=35", "datamodule.batch_size=1"),
        *("datamodule.num_train=4", "datamodule.num_val=2", "datamodule.num_test=2"),
        *("network.blowup=4", "network.num_levels=2", "network.num_couplings=1"),
    ],
    "iconvnet_table1": [*IMAGES, "network.convnet.width=4"],
    "iconvnet_table2": [*IMAGES, "callbacks.images.num_images=2"],
    "iresnet_cifar10": [*IMAGES, "callbacks.images.num_images=2", "network.iresnet.num_blocks=[1,1,1]"],
    "irevnet_cifar10": [*IMAGES, "callbacks.images.num_images=2", "network.irevnet.num_blocks=[1,1,1]"],
    "irevnet_lab": [*IMAGES, "callbacks.images.num_images=2"],
    "irevnet_lab/sheet": [*IMAGES, "callbacks.images.num_images=2"],
    "iunet_figures": ["datamodule.size=16", *IMAGES],
    "flows/glow": [*FLOW, "network.glow={num_levels:2,num_steps:1,hidden_channels:4}"],
    "flows/iconvnet": [*FLOW, "network.iconvnet_flow.num_layers=[1,1]"],
    "flows/iconvnet_multiscale": [*FLOW, "network.iconvnet_multiscale_flow.num_layers=[1,1]"],
    "flows/iresnet": [*FLOW, "network.iresnet_flow={num_levels:2,num_blocks:1,hidden_channels:4}"],
    "flows/realnvp": [*FLOW, "network.realnvp.num_residual_blocks=1", "network.realnvp.hidden_channels=4"],
    "restoration": [
        *("datamodule.size=16", "datamodule.crops_per_pair=1", "datamodule.preprocessing_workers=0"),
        *("datamodule.val_fraction=0.34", "datamodule.test_fraction=0.34", "datamodule.batch_size=1"),
        *("network.blowup=4", "network.num_levels=2", "network.num_couplings=1"),
    ],
    "segmentation": SEGMENTATION,
    **{f"iunet_table2/{path.stem}": BRATS for path in sorted((CONFIG_DIR / "experiment/iunet_table2").glob("*.yaml"))},
}
# The data folder of each experiment; experiments without one generate their data.
FOLDERS = {
    "ct_postproc": "foam_ct",
    "iconvnet_table1": ".",
    "iconvnet_table2": ".",
    "iresnet_cifar10": ".",
    "irevnet_cifar10": ".",
    **{f"flows/{path.stem}": "." for path in sorted((CONFIG_DIR / "experiment/flows").glob("*.yaml"))},
    "irevnet_lab": ".",
    "irevnet_lab/sheet": ".",
    "restoration": "pairs",
    "ct_slices": "lodopab",
}
# Experiments that keep preprocessed data in a folder of their own.
CACHED = {"restoration": "pairs_cache", "ct_slices": "lodopab_cache"}


def write_images(folder: Path) -> None:
    """Write the image sets that the experiments read."""
    write_mnist(folder)
    write_cifar10(folder)
    write_demo(folder / FOLDERS["restoration"])


def tiny(experiment: str, folder: Path, run_dir: Path) -> list[str]:
    """Return the command line of an experiment with two processes, whose data are in ``folder`` or are made there."""
    overrides = [f"experiment={experiment}", *TWO, *EPOCHS, *SIZES[experiment], "logger=csv", f"run_dir={run_dir}"]
    if SIZES[experiment] in (BRATS, SEGMENTATION):
        data = folder / experiment.partition("/")[0]
        overrides += [f"datamodule.data_dir={data}", f"datamodule.cache_dir={data}_cache"]
    if experiment in FOLDERS:
        overrides += [f"datamodule.data_dir={folder / FOLDERS[experiment]}"]
    if experiment in CACHED:
        overrides += [f"datamodule.cache_dir={folder / CACHED[experiment]}"]
    if FOLDERS.get(experiment) == ".":
        overrides += ["datamodule.verify_checksums=false"]
    return overrides
