"""How estimators are named and chosen, and what they keep for the backward pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from src.invertible import ExactLogDet, LogDetEstimator, ResidualBlock, RussianRouletteLogDet, TruncatedLogDet
from src.invertible.layers import logdet as logdet_module
from src.invertible.layers.logdet import _transposed_product, logdet_estimator


def dense(dims_in: int, dims_out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(dims_in, 7), nn.Tanh(), nn.Linear(7, dims_out))


@pytest.mark.parametrize(
    ("name", "num_terms", "expected"),
    [
        ("exact", None, "ExactLogDet()"),
        ("exact", 3, "ExactLogDet()"),
        ("truncated", None, "TruncatedLogDet(num_terms=10)"),
        ("truncated", 3, "TruncatedLogDet(num_terms=3)"),
        ("roulette", None, "RussianRouletteLogDet(num_exact_terms=2, stop_probability=0.5)"),
        ("roulette", 3, "RussianRouletteLogDet(num_exact_terms=3, stop_probability=0.5)"),
    ],
)
def test_estimators_by_name(name: str, num_terms: int | None, expected: str) -> None:
    assert repr(logdet_estimator(name, num_terms)) == expected


def test_an_estimator_is_taken_as_it_is_and_other_names_are_refused() -> None:
    estimator = RussianRouletteLogDet(4, 0.1)
    assert logdet_estimator(estimator, 7) is estimator
    with pytest.raises(ValueError, match="expected logdet to be one of exact, truncated, roulette, got 'magic'"):
        logdet_estimator("magic")


def test_a_block_may_estimate_otherwise_in_evaluation_mode() -> None:
    torch.manual_seed(0)
    block = ResidualBlock(3, dense, logdet=TruncatedLogDet(1), eval_logdet="exact").double()
    x = torch.randn(4, 3, dtype=torch.float64)
    reference = ResidualBlock(3, dense).double()
    reference.load_state_dict(block.state_dict())
    exact = reference.forward_and_logdet(x)[1]
    torch.testing.assert_close(block.eval().forward_and_logdet(x)[1], exact, rtol=0, atol=1e-14)
    assert (block.train().forward_and_logdet(x)[1] - exact).abs().max() > 1e-3
    assert "eval_logdet=ExactLogDet()" in repr(block)
    reference.logdet = TruncatedLogDet(1)
    assert reference.eval().estimator is reference.logdet and "eval_logdet" not in repr(reference)


def kept_bytes(estimator: LogDetEstimator) -> int:
    """Bytes that one log-determinant leaves behind for its gradient."""
    torch.manual_seed(0)
    block = ResidualBlock(3, dense, logdet=estimator)
    x = torch.randn(5, 3)
    block(x)  # finds the singular vectors
    kept: dict[int, Tensor] = {}  # the tensors themselves: their addresses stay taken

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _, logdet = block.forward_and_logdet(x)
    assert logdet.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_more_terms_take_no_more_memory() -> None:
    assert kept_bytes(TruncatedLogDet(30)) == kept_bytes(TruncatedLogDet(2)) < kept_bytes(ExactLogDet())


@pytest.mark.parametrize("estimator", [*map(TruncatedLogDet, (1, 2, 5)), RussianRouletteLogDet(3)], ids=repr)
def test_an_estimate_with_a_graph_has_the_same_value_for_as_many_products(
    estimator: LogDetEstimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    block = ResidualBlock(3, dense, logdet=estimator).double()
    x = torch.randn(5, 3, dtype=torch.float64)
    block(x)  # finds the singular vectors
    products: list[bool] = []

    def counted(*args: Tensor, create_graph: bool) -> Tensor:
        products.append(create_graph)
        return _transposed_product(*args, create_graph=create_graph)

    monkeypatch.setattr(logdet_module, "_transposed_product", counted)
    values, counts = [], []
    for context in (torch.no_grad(), torch.enable_grad()):
        torch.manual_seed(1)
        products.clear()
        with context:
            values.append(block.forward_and_logdet(x)[1].detach())
        counts.append(len(products))
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=1e-14)
    assert counts[0] == counts[1] and products == [False] * (counts[1] - 1) + [True]


@pytest.mark.parametrize("estimator", [ExactLogDet(), TruncatedLogDet(4), RussianRouletteLogDet(0, 0.9)])
def test_a_loss_of_the_logdet_alone_can_always_be_differentiated(estimator: LogDetEstimator) -> None:
    """Also where Russian roulette computes no term at all."""
    torch.manual_seed(0)
    block = ResidualBlock(3, dense, logdet=estimator)
    for _ in range(8):
        block.zero_grad()
        block.forward_and_logdet(torch.randn(5, 3))[1].sum().backward()
        assert all(p.grad is not None for name, p in block.named_parameters() if name.endswith("weight"))


@pytest.mark.parametrize("estimator", [ExactLogDet(), TruncatedLogDet(20), RussianRouletteLogDet(10, 0.1)])
def test_half_precision_states_have_logdets_in_single_precision(estimator: LogDetEstimator) -> None:
    torch.manual_seed(0)
    block, x = ResidualBlock(64, lambda a, b: nn.Linear(a, b), logdet=estimator), torch.randn(5, 64)
    expected = ResidualBlock.forward_and_logdet(block, x)[1].detach()
    torch.manual_seed(1)
    wide = block.forward_and_logdet(x)[1].detach()
    torch.manual_seed(1)
    half = block.to(torch.bfloat16).forward_and_logdet(x.bfloat16())[1].detach()
    assert half.dtype == torch.float32 and torch.isfinite(expected).all()
    # The weights have 8 bits; sums of the terms in 8 bits would be off by several per cent.
    torch.testing.assert_close(half, wide, rtol=2e-2, atol=2e-2)
