"""CPU time of the Fourier convolution: beside a loop over frequencies, and over channels and image sizes.

    python -m benchmarks.fourier FOLDER [--rounds 7] [--batch 4] [--threads 1]

Writes ``fourier.txt``, ``fourier.json`` and ``fourier.png``, the runtimes drawn as in Figure 2 of the i-ConvNet poster
(Finzi et al., 2019): batch 32, 3×3 kernel, 64 channels at 8×8, of which one is varied.

The comparison is forward, log-determinant and backward at 64 channels, 32×32. All methods compute the same numbers,
which is checked first; they take turns within each round, and ratios are medians over rounds.
"""

from __future__ import annotations

import argparse
import functools
import json
import platform
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.measure import timed
from src.invertible.fourier import FourierConvolution, logabsdet, spectrum

CHANNELS = (4, 8, 16, 32, 64, 128)
SIZES = (2, 4, 8, 16, 32)
OPERATIONS = ("forward", "inverse", "log-det")

Method = Callable[[FourierConvolution, Tensor], tuple[Tensor, Tensor]]


def batched(layer: FourierConvolution, x: Tensor) -> tuple[Tensor, Tensor]:
    return layer.forward_and_logdet(x)


def frequency_loop(layer: FourierConvolution, x: Tensor) -> tuple[Tensor, Tensor]:
    """The poster's equations as they stand: one product and one slogdet for each of the h·w frequencies."""
    spatial, kernel_size = x.shape[2:], layer.kernel_size
    grid = torch.nn.functional.pad(layer.weight, (0, spatial[1] - kernel_size[1], 0, spatial[0] - kernel_size[0]))
    grid = grid.roll([-((k - 1) // 2) for k in kernel_size], dims=(2, 3))
    matrices = torch.fft.fft2(grid).conj().permute(2, 3, 0, 1).flatten(0, 1)  # (h·w, C, C)
    columns = torch.fft.fft2(x).permute(2, 3, 1, 0).flatten(0, 1)  # (h·w, C, B)
    products, logdet = [], x.new_zeros(())
    for matrix, column in zip(matrices.unbind(), columns.unbind(), strict=True):
        products.append(matrix @ column)
        logdet = logdet + torch.linalg.slogdet(matrix).logabsdet
    y = torch.fft.ifft2(torch.stack(products).unflatten(0, spatial).permute(3, 2, 0, 1)).real
    assert layer.bias is not None
    return y + layer.bias[:, None, None], logdet.expand(x.shape[0])


def half_loop(layer: FourierConvolution, x: Tensor) -> tuple[Tensor, Tensor]:
    """The batched layer in all but one thing: one slogdet call per frequency of the Hermitian half."""
    spatial = x.shape[2:]
    logdet = x.new_zeros(())
    for column, matrices in enumerate(spectrum(layer.weight, spatial).unbind(1)):
        weight = 1 if 2 * column in (0, spatial[-1]) else 2
        for matrix in matrices.unbind():
            logdet = logdet + weight * torch.linalg.slogdet(matrix).logabsdet
    return layer(x), logdet.expand(x.shape[0])


METHODS: dict[str, Method] = {"batched": batched, "frequency loop": frequency_loop, "half loop": half_loop}


def evaluate(method: Method, layer: FourierConvolution, x: Tensor) -> list[Tensor]:
    """Forward, log-determinant and backward; everything that the methods must agree on."""
    layer.zero_grad(set_to_none=True)
    x = x.detach().requires_grad_()
    y, logdet = method(layer, x)
    (0.5 * (y * y).sum() - logdet.sum()).backward()
    gradients = [tensor.grad for tensor in (x, *layer.parameters())]
    return [y.detach(), logdet.detach(), *(g for g in gradients if g is not None)]


def cpu_seconds(operation: Callable[[], object]) -> float:
    def step() -> None:
        operation()

    return timed(step)


def compare(channels: int, size: int, batch: int, rounds: int) -> dict[str, dict[str, float]]:
    """CPU seconds of each method, and how often they contain those of the batched layer."""
    torch.manual_seed(0)
    layer, x = FourierConvolution(channels, 3, spatial_dims=2), torch.randn(batch, channels, size, size)
    expected = evaluate(batched, layer, x)
    for method in METHODS.values():
        for found, wanted in zip(evaluate(method, layer, x), expected, strict=True):
            error = (found - wanted).abs().max() / wanted.abs().max()
            assert error < 1e-4, f"expected equal results, got a relative difference of {error:.1e}"
    seconds: dict[str, list[float]] = {name: [] for name in METHODS}
    for _ in range(rounds):
        for name, method in METHODS.items():
            seconds[name].append(cpu_seconds(functools.partial(evaluate, method, layer, x)))
    return {
        name: {
            "cpu_seconds": statistics.median(values),
            "over_batched": statistics.median(a / b for a, b in zip(values, seconds["batched"], strict=True)),
        }
        for name, values in seconds.items()
    }


@torch.no_grad()
def runtimes(channels: int, size: int, batch: int, rounds: int) -> dict[str, float]:
    """Median CPU seconds of the three operations of Figure 2."""
    torch.manual_seed(0)
    layer, x = FourierConvolution(channels, 3, spatial_dims=2), torch.randn(batch, channels, size, size)
    calls: tuple[Callable[[], object], ...] = (
        lambda: layer(x),
        lambda: layer.inverse(x),
        lambda: logabsdet(spectrum(layer.weight, (size, size)), size),
    )
    for call in calls:
        call()
    return {
        name: statistics.median(cpu_seconds(call) for _ in range(rounds))
        for name, call in zip(OPERATIONS, calls, strict=True)
    }


def plot(over: dict[str, dict[int, dict[str, float]]], path: Path) -> None:
    """One panel per varied quantity, one line per operation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(over), figsize=(10, 4), sharey=True, layout="constrained")
    for panel, (quantity, rows) in zip(panels, over.items(), strict=True):
        for operation in OPERATIONS:
            panel.loglog(list(rows), [1e3 * row[operation] for row in rows.values()], marker="o", label=operation)
        panel.set_xlabel(quantity)
        panel.set_xticks(list(rows), [str(value) for value in rows])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("CPU time (ms)")
    panels[0].legend()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def report(comparison: dict[str, dict[str, float]], over: dict[str, dict[int, dict[str, float]]], title: str) -> str:
    lines = [title, "", f"{'method':>16}  {'CPU ms':>8}  {'over batched':>12}"]
    for name, row in comparison.items():
        lines.append(f"{name:>16}  {1e3 * row['cpu_seconds']:8.1f}  {row['over_batched']:12.2f}")
    for quantity, rows in over.items():
        lines += ["", f"{quantity:>16}  " + "  ".join(f"{name + ' ms':>11}" for name in OPERATIONS)]
        lines += [
            f"{value:>16}  " + "  ".join(f"{1e3 * row[o]:11.3f}" for o in OPERATIONS) for value, row in rows.items()
        ]
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the results go")
    parser.add_argument("--channels", type=int, default=64, help="channels of the comparison")
    parser.add_argument("--size", type=int, default=32, help="pixels per side of the comparison")
    parser.add_argument("--batch", type=int, default=4, help="images per batch of the comparison")
    parser.add_argument("--rounds", type=int, default=7, help="repetitions of each measurement")
    parser.add_argument("--max-channels", type=int, default=max(CHANNELS), help="largest number of channels drawn")
    parser.add_argument("--max-size", type=int, default=max(SIZES), help="largest image size drawn")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch; CPU time adds them up")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    comparison = compare(arguments.channels, arguments.size, arguments.batch, arguments.rounds)
    over = {
        "channels (8×8)": {c: runtimes(c, 8, 32, arguments.rounds) for c in CHANNELS if c <= arguments.max_channels},
        "size (64 channels)": {m: runtimes(64, m, 32, arguments.rounds) for m in SIZES if m <= arguments.max_size},
    }
    setting = f"{arguments.channels} channels, {arguments.size}×{arguments.size}, batch {arguments.batch}"
    title = f"torch {torch.__version__}, {platform.machine()}, {arguments.threads} thread(s): {setting}"
    text = report(comparison, over, title)
    print(text)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    (arguments.folder / "fourier.txt").write_text(text, encoding="utf-8")
    results = {"setting": title, "comparison": comparison, "cpu_seconds_over": over}
    (arguments.folder / "fourier.json").write_text(json.dumps(results, indent=2, ensure_ascii=False), encoding="utf-8")
    plot(over, arguments.folder / "fourier.png")


if __name__ == "__main__":
    main()
