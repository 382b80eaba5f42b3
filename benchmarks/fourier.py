"""CPU time of the Fourier, plain and periodic convolution over channels, image sizes and batch sizes.

    python -m benchmarks.fourier [FOLDER] [--quick]

Writes ``fourier.txt``, ``fourier.json`` and ``fourier.png`` to the folder, if one is given. Channels and sizes vary as
in Figure 2 of the i-ConvNet poster (Finzi et al., 2019): batch 32, 3×3 kernel, 64 channels, 8×8 pixels, of which one
changes at a time.

*plain* is `torch.nn.Conv2d`, which has neither inverse nor log-determinant. *periodic* is the periodic convolution of
Hoogeboom et al. (2019), which follows its equations: one product, solve and determinant per frequency. It computes the
same as ours, which is checked first. *naive* is the poster's "intractable O(h³w³c³)": the whole chw × chw matrix, its
LU decomposition and determinant, up to 2,048 rows. A *step* is forward, log-determinant and backward. Candidates take
turns in one thread; ratios are medians over rounds. Emerging convolutions (same paper) are not included, because they
only exist as their authors' TensorFlow 1 code.

`benchmarks.fourier_run` measures one setting as a run of ``experiments/iconvnet_figure2``.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.progress import track
from torch import Tensor

from benchmarks.fourier_report import as_text, plot
from benchmarks.measure import device_clock, median_ratio, times_in_turns
from benchmarks.results_folder import folder_and_quick, write_results
from benchmarks.threads import threads
from src.invertible import FourierConvolution, logabsdet, spectrum
from src.runs.provenance import provenance

ROOT = Path(__file__).resolve().parents[1]
KERNEL_SIZE = 3
# As in Figure 2 of the poster.
BATCH, CHANNELS, SIZE = 32, 64, 8
# Rows of the naive matrix: 16 MiB, and seconds per decomposition.
LARGEST_MATRIX = 2048


@dataclass(frozen=True)
class Plan:
    """The values of the figure, and the setting and batch sizes of the comparison."""

    channels: tuple[int, ...]
    sizes: tuple[int, ...]
    compared: tuple[int, int]  # channels, size
    batches: tuple[int, ...]
    rounds: int


FULL = Plan((4, 8, 16, 32, 64, 128), (4, 8, 16, 32), (64, 32), (4, 16, 32, 64), rounds=5)
QUICK = Plan((2, 4), (4, 6), (4, 6), (1, 2), rounds=1)


class Candidate(Protocol):
    """A convolution and the operations it supports."""

    def operations(self) -> dict[str, Callable[[], Any]]: ...


class Ours:
    """Our layer, unchanged."""

    def __init__(self, layer: FourierConvolution, x: Tensor) -> None:
        self.layer, self.x = layer, x

    def forward(self) -> Tensor:
        return self.layer(self.x)

    def inverse(self) -> Tensor:
        return self.layer.inverse(self.x)

    def logdet(self) -> Tensor:
        spatial = self.x.shape[2:]
        return logabsdet(spectrum(self.layer.weight, spatial), spatial[-1])

    def forward_and_logdet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer.forward_and_logdet(x)

    def step(self) -> list[Tensor]:
        """Compute output, log-determinant, and the gradients of a loss of both."""
        x = self.x.detach().requires_grad_()
        y, logdet = self.forward_and_logdet(x)
        gradients = torch.autograd.grad(0.5 * (y * y).sum() - logdet.sum(), [x, *self.layer.parameters()])
        return [y.detach(), logdet.detach(), *gradients]

    def operations(self) -> dict[str, Callable[[], Any]]:
        no_grad = torch.no_grad()
        values = {"forward": self.forward, "inverse": self.inverse, "log-det": self.logdet}
        return {**{name: no_grad(operation) for name, operation in values.items()}, "step": self.step}


class Periodic(Ours):
    """The same map with a loop over all h·w frequencies."""

    def _matrices(self) -> tuple[Tensor, ...]:
        spatial, kernel_size = self.x.shape[2:], self.layer.kernel_size
        padding = (0, spatial[1] - kernel_size[1], 0, spatial[0] - kernel_size[0])
        grid = torch.nn.functional.pad(self.layer.weight, padding)
        grid = grid.roll([-((k - 1) // 2) for k in kernel_size], dims=(2, 3))
        return torch.fft.fft2(grid).conj().permute(2, 3, 0, 1).flatten(0, 1).unbind()  # h·w times (C, C)

    def _at_each(
        self, operation: Callable[[Tensor, Tensor], Tensor], x: Tensor, matrices: tuple[Tensor, ...]
    ) -> Tensor:
        columns = torch.fft.fft2(x).permute(2, 3, 1, 0).flatten(0, 1).unbind()  # h·w times (C, B)
        results = torch.stack([operation(m, c) for m, c in zip(matrices, columns, strict=True)])
        return torch.fft.ifft2(results.unflatten(0, x.shape[2:]).permute(3, 2, 0, 1)).real

    def _bias(self) -> Tensor:
        assert self.layer.bias is not None
        return self.layer.bias[:, None, None]

    def forward(self) -> Tensor:
        return self._at_each(torch.matmul, self.x, self._matrices()) + self._bias()

    def inverse(self) -> Tensor:
        return self._at_each(torch.linalg.solve, self.x - self._bias(), self._matrices())

    def logdet(self) -> Tensor:
        return torch.stack([torch.linalg.slogdet(matrix).logabsdet for matrix in self._matrices()]).sum()

    def forward_and_logdet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        matrices = self._matrices()
        y = self._at_each(torch.matmul, x, matrices) + self._bias()
        logdet = torch.stack([torch.linalg.slogdet(matrix).logabsdet for matrix in matrices]).sum()
        return y, logdet.expand(len(x))


class Naive:
    """The same map as one matrix of chw rows and columns."""

    def __init__(self, layer: FourierConvolution, x: Tensor) -> None:
        self.layer, self.x = layer, x

    def _matrix(self) -> Tensor:
        shape = self.x.shape[1:]
        unit_images = torch.eye(shape.numel(), dtype=self.x.dtype, device=self.x.device).unflatten(1, shape)
        return (self.layer(unit_images) - self._bias()).flatten(1).T  # (chw, chw)

    def _bias(self) -> Tensor:
        assert self.layer.bias is not None
        return self.layer.bias[:, None, None]

    def inverse(self) -> Tensor:
        columns = (self.x - self._bias()).flatten(1).T  # (chw, B)
        return torch.linalg.solve(self._matrix(), columns).T.unflatten(1, self.x.shape[1:])

    def logdet(self) -> Tensor:
        return torch.linalg.slogdet(self._matrix()).logabsdet

    def operations(self) -> dict[str, Callable[[], Any]]:
        no_grad = torch.no_grad()
        return {"inverse": no_grad(self.inverse), "log-det": no_grad(self.logdet)}


class Plain:
    """A convolution without an inverse."""

    def __init__(self, channels: int, x: Tensor) -> None:
        self.layer, self.x = torch.nn.Conv2d(channels, channels, KERNEL_SIZE, padding="same").to(x.device), x

    def step(self) -> None:
        x = self.x.detach().requires_grad_()
        y = self.layer(x)
        torch.autograd.grad(0.5 * (y * y).sum(), [x, *self.layer.parameters()])

    def operations(self) -> dict[str, Callable[[], Any]]:
        return {"forward": torch.no_grad()(lambda: self.layer(self.x)), "step": self.step}


def candidates(channels: int, size: int, batch: int, device: str = "cpu") -> dict[str, Candidate]:
    """Return the convolutions of one setting; all but the plain one share their weights."""
    torch.manual_seed(0)
    layer = FourierConvolution(channels, KERNEL_SIZE, spatial_dims=2).to(device)
    x = torch.randn(batch, channels, size, size).to(device)
    found: dict[str, Candidate] = {"plain": Plain(channels, x), "ours": Ours(layer, x), "periodic": Periodic(layer, x)}
    if channels * size**2 <= LARGEST_MATRIX:
        found["naive"] = Naive(layer, x)
    return found


def check_agreement(channels: int, size: int, batch: int) -> float:
    """Return the largest relative difference between ours and the other candidates, and assert that it is small."""
    found = candidates(channels, size, batch)
    ours, periodic = found["ours"], found["periodic"]
    assert isinstance(ours, Ours) and isinstance(periodic, Periodic)
    pairs = [*zip(periodic.step(), ours.step(), strict=True), (periodic.inverse(), ours.inverse())]
    if "naive" in found:
        operations = found["naive"].operations()
        pairs += [(operations["inverse"](), ours.inverse()), (operations["log-det"](), ours.logdet())]
    error = max(((a - b).detach().abs().max() / b.detach().abs().max()).item() for a, b in pairs)
    assert error < 1e-4, f"expected equal results, got a relative difference of {error:.1e}"
    return error


def runtimes(
    channels: int, size: int, batch: int, rounds: int, device: str = "cpu"
) -> dict[str, dict[str, dict[str, float]]]:
    """Return the median seconds by operation and candidate, and their ratio to the reference.

    The reference is the plain convolution if it has the operation, otherwise ours. On a CPU, seconds are CPU time.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    by_name = {name: candidate.operations() for name, candidate in candidates(channels, size, batch, device).items()}
    for operation in by_name["ours"]:
        steps = {name: done[operation] for name, done in by_name.items() if operation in done}
        seconds = times_in_turns(steps, rounds, device_clock(device))
        reference = "plain" if "plain" in seconds else "ours"
        found[operation] = {
            name: {"seconds": statistics.median(s), f"over_{reference}": median_ratio(s, seconds[reference])}
            for name, s in seconds.items()
        }
    return found


def measure(plan: Plan) -> dict[str, Any]:
    """Measure everything in the plan."""
    channels, size = plan.compared
    settings = {
        "channels": [(c, SIZE, BATCH) for c in plan.channels],
        "size": [(CHANNELS, s, BATCH) for s in plan.sizes],
        "batch": [(channels, size, b) for b in plan.batches],
    }
    result: dict[str, Any] = {"agreement": check_agreement(channels, size, min(plan.batches)), "over": {}}
    for quantity, cases in settings.items():
        result["over"][quantity] = [
            {"channels": c, "size": s, "batch": b, "operations": runtimes(c, s, b, plan.rounds)}
            for c, s, b in track(cases, description=f"Over {quantity}")
        ]
    return result


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    folder, quick = folder_and_quick(__doc__, argv)
    with threads(1):
        result = {**provenance(ROOT), **measure(QUICK if quick else FULL)}
    write_results(folder, "fourier", result, as_text(result), plot)


if __name__ == "__main__":
    main()
