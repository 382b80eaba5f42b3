"""Our networks in MONAI's engines and bundles: docs/monai_and_nnunet.md."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, create_test_image_3d
from monai.inferers import SlidingWindowInferer
from monai.losses import DiceCELoss
from monai.transforms import EnsureChannelFirstd
from torch import nn

from benchmarks.live_bytes import LiveBytes
from src.invertible import set_backprop
from src.models import IUNet, Lifted, NnunetIUNet

pytest.importorskip("ignite", reason="needs pytorch-ignite: requirements-hosts.txt")
pytestmark = pytest.mark.slow

BUNDLE = Path(__file__).parents[2] / "docs" / "monai_bundle" / "configs" / "train.yaml"


def loader(count: int, size: int) -> DataLoader:
    """Volumes with spheres, and their labels."""
    random = np.random.RandomState(0)
    spheres = {"num_objs": 2, "rad_max": 4, "rad_min": 2, "num_seg_classes": 1, "random_state": random}
    pairs = [create_test_image_3d(size, size, size, **spheres) for _ in range(count)]
    volumes = [{"image": image, "label": label} for image, label in pairs]
    return DataLoader(Dataset(volumes, EnsureChannelFirstd(["image", "label"], channel_dim="no_channel")), batch_size=1)


def train_one_epoch(net: nn.Module, policy: str) -> tuple[list[float], int, torch.Tensor]:
    """Losses of one epoch of MONAI's trainer, the peak of live bytes, and a volume predicted by its evaluator."""
    from monai.engines import SupervisedEvaluator, SupervisedTrainer
    from monai.handlers import ValidationHandler

    net = copy.deepcopy(net)
    set_backprop(net, policy)
    torch.manual_seed(0)
    losses: list[float] = []
    predictions: list[torch.Tensor] = []
    device = torch.device("cpu")
    evaluator = SupervisedEvaluator(
        device=device,
        val_data_loader=loader(1, 24),
        network=net,
        inferer=SlidingWindowInferer(roi_size=(16, 16, 16), overlap=0.25),
        decollate=False,
        postprocessing=lambda output: predictions.append(output["pred"]) or output,
    )
    trainer = SupervisedTrainer(
        device=device,
        max_epochs=1,
        train_data_loader=loader(3, 16),
        network=net,
        optimizer=torch.optim.Adam(net.parameters(), 1e-2),
        loss_function=DiceCELoss(to_onehot_y=True, softmax=True),
        train_handlers=[ValidationHandler(interval=1, validator=evaluator)],
        decollate=False,
        postprocessing=lambda output: losses.append(output["loss"].item()) or output,
    )
    with LiveBytes() as live:
        trainer.run()
    (prediction,) = predictions
    return losses, live.peak, prediction


@pytest.mark.parametrize("name", ["lifted", "nnunet"])
def test_monais_trainer_gets_the_same_losses_and_predictions_with_less_memory(name: str) -> None:
    torch.manual_seed(0)
    net: nn.Module
    if name == "lifted":
        net = Lifted(1, 2, IUNet((8, 16, 32), 3, 3))
    else:
        net = NnunetIUNet(1, 2, 3, (8, 16, 32), ((1, 1, 1), (1, 2, 2), (2, 2, 2)), nn.Conv3d, num_couplings=3)
    stored, reversible = train_one_epoch(net, "stored"), train_one_epoch(net, "reversible")
    assert len(stored[0]) == 3
    assert reversible[0] == pytest.approx(stored[0], rel=1e-4)
    assert reversible[2].shape == (1, 2, 24, 24, 24)
    torch.testing.assert_close(reversible[2], stored[2], rtol=1e-2, atol=1e-2)
    assert reversible[1] < stored[1] / 2


@pytest.mark.parametrize("policy", ["reversible", "stored"])
def test_the_documented_bundle_trains_an_epoch(policy: str) -> None:
    # The checkout is not installed under the library's name.
    parser = ConfigParser(ConfigParser.load_config_file(BUNDLE))
    parser.config = _renamed(parser.config)
    parser["backprop"] = policy
    parser["device"] = "$torch.device('cpu')"
    parser.get_parsed_content("initialize")
    net = parser.get_parsed_content("net")
    before = [p.detach().clone() for p in net.parameters()]
    parser.get_parsed_content("run")
    trainer, evaluator = parser.get_parsed_content("train#trainer"), parser.get_parsed_content("validate#evaluator")
    assert trainer.network is net
    assert trainer.state.iteration == 2
    assert (net.body.bijection.backprop_policy is None) == (policy == "stored")
    assert all(p.isfinite().all() for p in net.parameters())
    assert any((p != old).any() for p, old in zip(net.parameters(), before, strict=True))
    assert 0 <= evaluator.state.metrics["dice"] <= 1


def _renamed(config: Any) -> Any:
    if isinstance(config, dict):
        return {key: _renamed(value) for key, value in config.items()}
    if isinstance(config, list):
        return [_renamed(value) for value in config]
    return config.replace("invertible_imaging.", "src.") if isinstance(config, str) else config
