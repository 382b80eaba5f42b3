"""Our network in nnU-Net v2's trainer, beside nnU-Net's own: ``python -m benchmarks.nnunet``.

nnU-Net plans and preprocesses a synthetic set. Its trainer trains one short epoch of each network, with its own deep
supervision, augmentation, optimizer and loss, and then predicts the validation case. The bytes of live tensors are
counted in each step. For a patch of large sets, a step is counted without computing it.

Needs requirements-hosts.txt.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.fake_values import DEVICE, bytes_of_a_fake_step
from benchmarks.live_bytes import LiveBytes
from benchmarks.results_folder import write_json
from src.datamodules.nnunet.demo import NnunetDemo
from src.models.nnunet_plans import write_plans
from src.runs.provenance import provenance

ROOT = Path(__file__).resolve().parents[1]
MIB, GIB = 2**20, 2**30
DATASET, CONFIGURATION = "Dataset001_Demo", "3d_fullres"
DEFAULT = "nnUNetPlans"
POLICIES = ("reversible", "stored")
# A patch that nnU-Net plans for isotropic volumes, and the channels of its network there.
PATCH, FEATURES = (128, 128, 128), (32, 64, 128, 256, 320, 320)


def set_folders(folder: Path) -> None:
    """Tell nnU-Net its folders, before anything of it is imported, and to use no processes of its own."""
    for part in ("raw", "preprocessed", "results"):
        (folder / part).mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{part}"] = str(folder / part)
    os.environ |= {"nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1"}


def prepare(folder: Path) -> list[str]:
    """Write, plan and preprocess a set; return the names of nnU-Net's plans and of ours under each policy."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as nnunet

    NnunetDemo(num_cases=5, num_test=0, shape=(40, 48, 32)).write(folder / "raw" / DATASET, num_workers=0)
    nnunet.extract_fingerprints([1], num_processes=1)
    os.environ |= {"nnUNet_n_proc_DA": "1"}  # the planner takes it as a number of threads
    nnunet.plan_experiments([1])
    os.environ |= {"nnUNet_n_proc_DA": "0"}
    nnunet.preprocess([1], configurations=(CONFIGURATION,), num_processes=(1,))
    plans = folder / "preprocessed" / DATASET / f"{DEFAULT}.json"
    return [DEFAULT, *(write_plans(plans, f"iunet_{name}", backprop=name).stem for name in POLICIES)]


def train(plans: str, iterations: int) -> dict[str, Any]:
    """One epoch of nnU-Net's trainer and its final validation."""
    import numpy as np
    from nnunetv2.run.run_training import get_trainer_from_args

    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - the generator that nnU-Net's augmentation draws from
    trainer = get_trainer_from_args("1", CONFIGURATION, 0, "nnUNetTrainer_1epoch", plans, device=torch.device("cpu"))
    trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = iterations, 1
    losses, peaks, step = [], [], trainer.train_step

    def counted_step(batch: dict[str, Any]) -> dict[str, Any]:
        with LiveBytes() as live:
            result = step(batch)
        losses.append(float(result["loss"]))
        peaks.append(live.peak)
        return result

    trainer.train_step = counted_step
    trainer.run_training()
    trainer.perform_actual_validation()
    summary = json.loads((Path(trainer.output_folder) / "validation" / "summary.json").read_text())
    return {
        "plans": plans,
        "network": type(trainer.network).__name__,
        "num_parameters": sum(p.numel() for p in trainer.network.parameters()),
        "patch": [trainer.batch_size, *trainer.configuration_manager.patch_size],
        "losses": losses,
        "peak_mib": max(peaks) / MIB,
        "validation_dice": summary["foreground_mean"]["Dice"],
    }


def architectures() -> dict[str, tuple[str, dict[str, Any]]]:
    """The arguments of the networks at `PATCH`: nnU-Net's default and residual encoder, and ours."""
    stages = len(FEATURES)
    shared = {"n_stages": stages, "features_per_stage": FEATURES, "conv_op": nn.Conv3d}
    shared["strides"] = [1] + [2] * (stages - 1)
    own = {
        "kernel_sizes": 3,
        "conv_bias": True,
        "norm_op": nn.InstanceNorm3d,
        "norm_op_kwargs": {"affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
    }
    plain = {**own, "n_conv_per_stage": 2, "n_conv_per_stage_decoder": 2}
    residual = {**own, "n_blocks_per_stage": [1, 3, 4, 6, 6, 6], "n_conv_per_stage_decoder": 1}
    package = "dynamic_network_architectures.architectures.unet"
    ours = {f"NnunetIUNet, {n} couplings": {"num_couplings": n} for n in (2, 4)}
    return {
        "PlainConvUNet": (f"{package}.PlainConvUNet", shared | plain),
        "ResidualEncoderUNet": (f"{package}.ResidualEncoderUNet", shared | residual),
        **{name: ("src.models.nnunet.NnunetIUNet", shared | options) for name, options in ours.items()},
    }


def count(name: str, deep_supervision: bool, patch: Sequence[int] = PATCH, batch_size: int = 2) -> dict[str, Any]:
    """Bytes of a step under autocast, as on a GPU, without the weights, the loss's own and kernels' scratch memory."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    path, arguments = architectures()[name]
    net = get_network_from_plans(path, arguments, [], 1, 3, deep_supervision=deep_supervision)
    num_parameters = sum(p.numel() for p in net.parameters())

    def loss(image: Tensor) -> Tensor:
        with torch.autocast(DEVICE.type, torch.float16):
            logits = net(image)
        return sum((y.float().square().mean() for y in (logits if deep_supervision else [logits])), torch.zeros(()))

    kept, peak = bytes_of_a_fake_step(net, (batch_size, 1, *patch), loss)
    return {"network": name, "deep_supervision": deep_supervision, "num_parameters": num_parameters} | {
        "kept_gib": kept / GIB,
        "peak_gib": peak / GIB,
    }


def as_markdown(result: dict[str, Any]) -> str:
    """Two tables: epochs that ran, and steps that were counted."""
    lines = ["| plans | parameters | losses | peak of a step | Dice |", "|---|---|---|---|---|"]
    for row in result["epochs"]:
        losses = ", ".join(f"{loss:.3f}" for loss in row["losses"])
        parameters, peak = row["num_parameters"] / 1e6, row["peak_mib"]
        lines.append(
            f"| {row['plans']} | {parameters:.1f} M | {losses} | {peak:.0f} MiB | {row['validation_dice']:.2f} |"
        )
    lines += ["", "| network | deep supervision | parameters | kept | peak of a step |", "|---|---|---|---|---|"]
    for row in result["counted"]:
        deep, parameters = "on" if row["deep_supervision"] else "off", row["num_parameters"] / 1e6
        sizes = f"{row['kept_gib']:.2f} GiB | {row['peak_gib']:.2f} GiB"
        lines.append(f"| {row['network']} | {deep} | {parameters:.1f} M | {sizes} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    parser.add_argument("--iterations", type=int, default=4, help="of the epoch")
    parser.add_argument("--no-count", action="store_true", help="leave out the steps that are counted")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        set_folders(Path(folder))
        epochs = [train(plans, arguments.iterations) for plans in prepare(Path(folder))]
    names = [] if arguments.no_count else architectures()
    counted = [count(name, deep) for name in names for deep in (True, False)]
    result = {"epochs": epochs, "counted": counted, "patch": PATCH, **provenance(ROOT)}
    write_json(arguments.output, result)
    print(as_markdown(result))


if __name__ == "__main__":
    main()
