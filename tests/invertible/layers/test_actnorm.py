"""ActNorm is started from the first training batch, once, and alike in all processes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from src.invertible import POLICIES, Inverse, Sequential, set_backprop
from src.invertible.layers.actnorm import ActNorm


def batch(seed: int, size: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([0.1, 1.0, 30.0], dtype=torch.float64)[:, None, None]
    return torch.randn(size, 3, 4, 5, dtype=torch.float64, generator=generator) * scale + scale + seed


def parameters(layer: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in layer.parameters()])


def assert_normalised(y: Tensor) -> None:
    columns = y.transpose(0, 1).flatten(1)
    torch.testing.assert_close(columns.mean(1), torch.zeros_like(columns[:, 0]), rtol=0, atol=1e-10)
    torch.testing.assert_close(columns.var(1, unbiased=False), torch.ones_like(columns[:, 0]), rtol=0, atol=1e-10)


def test_the_first_training_batch_comes_out_normalised_and_the_next_changes_nothing() -> None:
    layer = ActNorm(3).double()
    assert_normalised(layer(batch(1)))
    start = parameters(layer)
    layer(batch(2))
    layer.inverse(batch(2))
    torch.testing.assert_close(parameters(layer), start, rtol=0, atol=0)


def test_a_sanity_check_batch_does_not_start_it() -> None:
    layer = ActNorm(3).double().eval()
    y, logdet = layer.forward_and_logdet(batch(1))
    torch.testing.assert_close(y, batch(1), rtol=0, atol=0)
    torch.testing.assert_close(layer.inverse(y), batch(1), rtol=0, atol=0)
    assert not layer.initialized
    assert logdet.tolist() == [0, 0, 0, 0]
    assert_normalised(layer.train()(batch(2)))


def test_an_inverse_is_started_by_its_own_first_batch() -> None:
    layer = Inverse(ActNorm(3).double())
    y, logdet = layer.forward_and_logdet(batch(1))
    assert_normalised(y)
    expected = -20 * batch(1).transpose(0, 1).flatten(1).std(1, unbiased=False).log().sum()
    torch.testing.assert_close(logdet, expected.expand(4), rtol=0, atol=1e-10)


@pytest.mark.parametrize("policy", POLICIES)
def test_recomputation_does_not_start_it_again(policy: str) -> None:
    net = Sequential(ActNorm(3), ActNorm(3)).double()
    set_backprop(net, policy)
    y, logdet = net.forward_and_logdet(batch(1).requires_grad_())
    start = parameters(net)
    ((y**3).sum() + logdet.sum()).backward()
    torch.testing.assert_close(parameters(net), start, rtol=0, atol=0)
    assert all(bool(part.initialized) for part in net)
    assert_normalised(y.detach())


def test_a_resumed_layer_is_not_started_again() -> None:
    layer = ActNorm(3).double()
    layer(batch(1))
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    resumed = ActNorm(3).double()
    resumed.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(resumed(batch(2)), layer(batch(2)), rtol=0, atol=0)
    torch.testing.assert_close(parameters(resumed), parameters(layer), rtol=0, atol=0)


def test_a_state_with_a_flag_as_earlier_versions_have_it_is_loaded() -> None:
    layer, resumed = ActNorm(3).double(), ActNorm(3).double()
    layer(batch(1))
    resumed.load_state_dict(layer.state_dict() | {"initialized": torch.tensor(True)})
    torch.testing.assert_close(resumed(batch(2)), layer(batch(2)), rtol=0, atol=0)


@pytest.mark.parametrize("average", [None, get_ema_avg_fn(0.9999)])
def test_torchs_averages_of_the_weights_are_started_too(average: Any) -> None:
    layer = ActNorm(3).double()
    averaged = AveragedModel(layer, avg_fn=average, use_buffers=True)
    layer(batch(1))
    for _ in range(3):
        averaged.update_parameters(layer)
    torch.testing.assert_close(averaged(batch(2)), layer(batch(2)))


def test_a_layer_put_back_to_its_start_awaits_data_again() -> None:
    layer = ActNorm(3).double()
    start = {name: value.clone() for name, value in layer.state_dict().items()}
    layer(batch(1))
    layer.load_state_dict(start)
    assert_normalised(layer(batch(2)))


def test_a_constant_channel_is_centred_and_not_scaled() -> None:
    x = batch(1)
    x[:, 1] = 7.0
    layer = ActNorm(3).double()
    y = layer(x)
    assert y[:, 1].abs().max() == 0
    assert layer.log_scale[1] == 0


@pytest.mark.parametrize("value", [100.3, -1000.7, 37e3])
def test_a_constant_of_any_size_is_not_scaled(value: float) -> None:
    """In float32, the sum of equal numbers, divided by their number, differs from them."""
    layer = ActNorm(3)
    x = torch.full((8, 3, 17, 19), value)
    x[:, 1, ::2] = torch.nextafter(x[:, 1, ::2], torch.tensor(0.0))
    x[:, 2] = 2 * torch.randn(8, 17, 19, generator=torch.Generator().manual_seed(0)) + 3
    y = layer(x)
    assert layer.log_scale[:2].tolist() == [0, 0]
    assert y[:, :2].abs().max() < 1e-6 * abs(value)
    torch.testing.assert_close(-layer.log_scale[2].double(), x[:, 2].double().std(unbiased=False).log())


def test_a_small_deviation_from_a_large_mean_is_scaled() -> None:
    x = 1000 + 0.01 * batch(1, size=64)
    layer = ActNorm(3)
    layer(x.float())
    expected = x.float().double().transpose(0, 1).flatten(1).std(1, unbiased=False).log()
    torch.testing.assert_close(-layer.log_scale.double(), expected, rtol=0, atol=1e-3)


def test_what_cannot_start_it_is_refused() -> None:
    layer = ActNorm(3)
    with pytest.raises(ValueError, match="expected a finite first batch"):
        layer(torch.full((2, 3), torch.inf))
    assert not layer.initialized
    for shape in [(2, 4), (3,)]:
        with pytest.raises(ValueError, match="expected 3 channels, got"):
            layer(torch.zeros(shape))


# Batches of unequal size: the statistics are those of the voxels, not the mean of two means.
RANK_SIZES = (3, 1)


def worker(rank: int, rendezvous: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    layer = ActNorm(3).double()
    set_backprop(layer, "reversible")
    net = DistributedDataParallel(layer)
    for _ in range(2):
        net(batch(1).split(RANK_SIZES)[rank]).square().mean().backward()
    torch.save(parameters(layer), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_all_ranks_start_alike_from_all_their_batches(tmp_path: Path) -> None:
    mp.spawn(worker, args=(str(tmp_path / "rendezvous"), str(tmp_path)), nprocs=2)
    single = ActNorm(3).double()
    single(batch(1))
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    torch.testing.assert_close(first, parameters(single), rtol=0, atol=1e-12)
