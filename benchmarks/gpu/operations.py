"""Single operations that decide how long a step takes on a GPU, alone."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.gpu.recording import Recorder
from src.invertible.layers.orthogonal import sum_in_parts
from src.invertible.layers.orthogonal_matrices import matrix_exponential
from src.models.norms import volume_norm


def run(recorder: Recorder) -> None:
    """Record norms, convolutions, a mixing's gradient, matrix exponentials, and a convolution of 2³¹ numbers."""
    measurements = itertools.chain(
        _norms(recorder), _mixing(recorder), _exponentials(recorder), _convolutions(recorder), _largest(recorder)
    )
    for what, about, measure in measurements:
        if recorder.late:
            return
        with recorder.measurement(what, **about) as numbers:
            numbers |= measure()


Measurement = tuple[str, dict[str, Any], Callable[[], dict[str, Any]]]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _forward_and_backward(recorder: Recorder, call: Callable[[], Tensor], inputs: list[Tensor]) -> dict[str, float]:
    with torch.no_grad():
        forward = recorder.milliseconds(call, 0.5)
    y = call()
    g = torch.randn_like(y)
    backward = recorder.milliseconds(lambda: torch.autograd.grad(y, inputs, g, retain_graph=True), 0.5)
    return {"forward_ms": forward, "backward_ms": backward}


NORMS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "layer": lambda x, w, b: F.group_norm(x, 1, w, b),
    "instance": lambda x, w, b: F.instance_norm(x, weight=w, bias=b),
    "layer, by volume_norm": lambda x, w, b: volume_norm(x, w, b, 1, 1e-5),
    "instance, by volume_norm": lambda x, w, b: volume_norm(x, w, b, x.shape[1], 1e-5),
}


def _norms(recorder: Recorder) -> Iterator[Measurement]:
    sizes = (16,) if recorder.quick else (256, 64, 128)
    for size, dtype, name in itertools.product(sizes, (torch.float32, torch.bfloat16), NORMS):

        def measure(size: int = size, dtype: torch.dtype = dtype, name: str = name) -> dict[str, Any]:
            x = torch.randn(1, 8, *[size] * 3, device=recorder.device, dtype=dtype, requires_grad=True)
            w, b = (torch.ones(8, device=recorder.device, dtype=dtype, requires_grad=True) for _ in range(2))
            return _forward_and_backward(recorder, lambda: NORMS[name](x, w, b), [x, w, b])

        yield "norm", {"name": name, "size": size, "dtype": _name(dtype)}, measure


def _mixing(recorder: Recorder) -> Iterator[Measurement]:
    count = 8**3 if recorder.quick else 256**3

    def measure() -> dict[str, Any]:
        a, b = torch.randn(2, 16, count, device=recorder.device)

        def in_parts() -> Tensor:
            return sum_in_parts(a[None, None], b[None, None], 256)[0]

        whole = a @ b.T
        return {
            "whole_ms": recorder.milliseconds(lambda: a @ b.T),
            "in_256_parts_ms": recorder.milliseconds(in_parts),
            "difference": float((in_parts() - whole).norm() / whole.norm()),
        }

    yield "gradient of a mixing", {"channels": 16, "voxels": count}, measure


EXPONENTIALS: dict[str, Callable[[Tensor], Tensor]] = {
    "fixed degree": matrix_exponential,
    "torch": lambda theta: torch.linalg.matrix_exp(theta - theta.mT),
}


def _exponentials(recorder: Recorder) -> Iterator[Measurement]:
    sizes = ((2, 8),) if recorder.quick else ((2, 16), (2, 256), (2, 1024), (504, 8))
    for (number, side), name in itertools.product(sizes, EXPONENTIALS):

        def measure(number: int = number, side: int = side, name: str = name) -> dict[str, Any]:
            theta = (0.02 * torch.randn(number, side, side, device=recorder.device)).requires_grad_()
            return _forward_and_backward(recorder, lambda: EXPONENTIALS[name](theta), [theta])

        yield "matrix exponential", {"name": name, "number": number, "side": side}, measure


def _convolutions(recorder: Recorder) -> Iterator[Measurement]:
    shapes = ((256, 8, 8), (128, 8, 8), (256, 1, 16), (256, 16, 1), (32, 64, 64), (8, 512, 512))
    kinds = ((torch.bfloat16, True), (torch.float32, False), (torch.float32, True))
    for (size, wide, out), (dtype, tf32), last, search in itertools.product(
        ((8, 4, 4),) if recorder.quick else shapes, kinds, (False, True), (False, True)
    ):

        def measure(
            size: int = size,
            wide: int = wide,
            out: int = out,
            dtype: torch.dtype = dtype,
            tf32: bool = tf32,
            last: bool = last,
            search: bool = search,
        ) -> dict[str, Any]:
            layout = torch.channels_last_3d if last else torch.contiguous_format
            x = torch.randn(1, wide, *[size] * 3, device=recorder.device, dtype=dtype)
            w = 0.05 * torch.randn(out, wide, 3, 3, 3, device=recorder.device, dtype=dtype)
            x, w = (one.contiguous(memory_format=layout).requires_grad_() for one in (x, w))
            with torch.backends.cudnn.flags(enabled=True, benchmark=search, allow_tf32=tf32):
                found = _forward_and_backward(recorder, lambda: F.conv3d(x, w, padding=1), [x, w])
            return found | {"tflops": 2 * 27 * wide * out * size**3 / found["forward_ms"] / 1e9}

        about = {"size": size, "channels": f"{wide}→{out}", "dtype": _name(dtype), "tf32": tf32}
        yield "convolution", {**about, "channels_last": last, "search": search}, measure


def _largest(recorder: Recorder) -> Iterator[Measurement]:
    """Yield convolutions whose input or output has 2³¹ numbers, where 32-bit indices would overflow."""
    side, part = (16, 6) if recorder.quick else (512, 34)
    for (wide, out), dtype in itertools.product(((1, 16), (16, 1)), (torch.bfloat16, torch.float32)):

        def measure(wide: int = wide, out: int = out, dtype: torch.dtype = dtype) -> dict[str, Any]:
            x = torch.randn(1, wide, side, side, side, device=recorder.device, dtype=dtype).requires_grad_()
            w = (0.05 * torch.randn(out, wide, 3, 3, 3, device=recorder.device, dtype=dtype)).requires_grad_()
            y = F.conv3d(x, w, padding=1)
            corner = F.conv3d(x.detach()[..., -part:, -part:, -part:], w.detach(), padding=1)
            inner, whole = (slice(1, -1),) * 3, (slice(1 - part, -1),) * 3
            error = float((y.detach()[(..., *whole)] - corner[(..., *inner)]).abs().max())
            gradients: list[Tensor] = []
            seconds = recorder.seconds(lambda: gradients.extend(torch.autograd.grad(y.float().sum(), (x, w))))
            finite = bool(gradients[1].isfinite().all())
            return {"error_at_the_end": error, "backward_s": seconds, "finite": finite, "peak_gib": recorder.peak_gib()}

        yield "convolution of 2³¹", {"channels": f"{wide}→{out}", "dtype": _name(dtype)}, measure
