"""The losses that a configuration names, against their formulas."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor, nn

from src.config.composition import choices_of, compose_config
from src.tasks.losses import SSIMMix
from src.tasks.reconstruction import Reconstruction
from src.tasks.segmentation_heads import HEADS, SigmoidRegions, SoftmaxClasses
from tests.fake_segmentation import REGIONS
from tests.tasks.test_image_quality import scikit_images_ssim, volumes
from tests.tasks.test_segmentation_heads import EPSILON, labels, random_logits, soft_dice_loss

RECONSTRUCTION = ("l2", "l1", "huber", "l2_ssim", "l1_ssim")
SEGMENTATION = sorted(set(choices_of("task/loss")) - set(RECONSTRUCTION))


def made(name: str, *more: str) -> Any:
    experiment = "ct_postproc" if name in RECONSTRUCTION else "brats"
    return instantiate(compose_config([f"experiment={experiment}", f"task/loss={name}", *more]).task.criterion)


@pytest.mark.parametrize("name", RECONSTRUCTION)
def test_losses_of_images_are_their_formulas(name: str) -> None:
    output, target = (volume.double() for volume in volumes(3, 1, 20, 24))
    error = (output - target).abs()
    dissimilarity = 1 - sum(scikit_images_ssim(output, target, 1.0)) / 3
    expected = {
        "l1": error.mean(),
        "l2": error.square().mean(),
        "huber": torch.where(error < 0.1, error.square() / 2, 0.1 * (error - 0.05)).mean(),
        "l1_ssim": 0.16 * error.mean() + 0.84 * dissimilarity,
        "l2_ssim": 0.9 * error.square().mean() + 0.1 * dissimilarity,
    }[name]
    torch.testing.assert_close(made(name)(output, target), expected, atol=1e-6, rtol=1e-6)


def test_a_reconstruction_is_trained_and_judged_by_its_loss() -> None:
    net = nn.Conv2d(1, 1, 1)
    output, target = volumes(3, 1, 20, 24)
    task = Reconstruction(net, partial(torch.optim.SGD, lr=0.1), criterion=made("l1_ssim"))
    batch = {"input": output, "target": target, "index": torch.arange(3)}
    values, _ = task.judge(batch, "val")
    torch.testing.assert_close(task.losses(batch)["loss"], values["loss"].mean())
    task.losses(batch)["loss"].backward()
    assert net.weight.grad is not None and torch.isfinite(net.weight.grad).all()


@pytest.mark.parametrize("weight", [-0.1, 1.1])
def test_a_weight_outside_of_0_to_1_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=r"expected task\.criterion\.weight from 0 to 1"):
        SSIMMix(nn.L1Loss(), weight)


def targets(label: Tensor) -> tuple[Tensor, Tensor]:
    """Classes without the background, and regions."""
    classes = torch.stack([label == k for k in range(1, 4)], dim=1).double()
    return classes, torch.stack([label == 3, label > 0, (label == 1) | (label == 3)], dim=1).double()


def tversky(p: Tensor, t: Tensor) -> Tensor:
    hits, false, missed = ((x * y).sum((2, 3, 4)) for x, y in ((p, t), (p, 1 - t), (1 - p, t)))
    return (1 - (hits + EPSILON) / (hits + 0.3 * false + 0.7 * missed + EPSILON)).mean()


def generalized_dice(p: Tensor, t: Tensor) -> Tensor:
    volumes = t.sum((2, 3, 4))
    # A class that a case lacks weighs as much as its rarest one.
    rarest = volumes.masked_fill(volumes == 0, torch.inf).amin(dim=1, keepdim=True)
    weights = 1 / torch.maximum(volumes, rarest).square()
    both, either = (p * t).sum((2, 3, 4)), (p + t).sum((2, 3, 4))
    return (1 - (2 * (weights * both).sum(1) + EPSILON) / ((weights * either).sum(1) + EPSILON)).mean()


@pytest.mark.parametrize(
    ("name", "formula"), [("dice", soft_dice_loss), ("tversky", tversky), ("generalized_dice", generalized_dice)]
)
def test_overlaps_are_their_formulas_for_classes_and_for_regions(name: str, formula: Any) -> None:
    label = labels()
    classes, regions = targets(label)
    softmax, sigmoid = SoftmaxClasses(4, REGIONS, made(name)), SigmoidRegions(4, REGIONS, made(name))
    logits = random_logits(4)
    torch.testing.assert_close(softmax.loss(logits, label), formula(logits.softmax(dim=1)[:, 1:], classes))
    logits = random_logits(3)
    torch.testing.assert_close(sigmoid.loss(logits, label), formula(logits.sigmoid(), regions))


def test_focal_loss_adds_what_is_hard() -> None:
    label, logits = labels(), random_logits(3)
    p, t = logits.sigmoid(), targets(label)[1]
    entropy = -(t * p.log() + (1 - t) * (1 - p).log())
    expected = soft_dice_loss(p, t) + ((p - t).abs().square() * entropy).mean()
    torch.testing.assert_close(SigmoidRegions(4, REGIONS, made("dice_focal")).loss(logits, label), expected)


@pytest.mark.parametrize("head", HEADS)
def test_the_named_default_is_the_default(head: str) -> None:
    named, default = HEADS[head](4, REGIONS, made("dice_ce")), HEADS[head](4, REGIONS)  # type: ignore[call-arg]
    logits = random_logits(named.num_outputs)
    assert torch.equal(named.loss(logits, labels()), default.loss(logits, labels()))


@pytest.mark.parametrize("name", SEGMENTATION)
def test_every_loss_of_segmentation_falls_towards_the_truth(name: str) -> None:
    label = labels()
    for head in (SoftmaxClasses(4, REGIONS, made(name)), SigmoidRegions(4, REGIONS, made(name))):
        wrong = random_logits(head.num_outputs).requires_grad_()
        loss = head.loss(wrong, label)
        (gradient,) = torch.autograd.grad(loss, wrong)
        assert head.loss(wrong - gradient / gradient.norm(), label) < loss
