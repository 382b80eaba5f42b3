"""The first singular vector of a linear map A, which is given as a function of batches of inputs."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

LinearMap = Callable[[Tensor], Tensor]

_SWEEP = 16  # vectors of one sweep of Lanczos' method
_SETTLED = 12  # if the vectors after these no longer enlarge σ, the search ends
_DENSE = 64  # a map with at most so many inputs is decomposed


def first_singular_vector(linear_map: LinearMap, start: Tensor, *, tolerance: float, max_iterations: int) -> Tensor:
    """The unit vector v, of the shape (1, …) of ``start``, for which ``σ = |A v|`` is largest.

    Lanczos' method on ``AᵀA`` with restarts; a map of few inputs is decomposed as a matrix.

    Args:
        linear_map: A, without bias.
        start: where the search starts.
        tolerance: relative growth of σ over the last quarter of a sweep at which the search ends.
        max_iterations: about the largest number of products with ``AᵀA``.
    """
    if start.numel() <= _DENSE:
        units = torch.eye(start.numel(), dtype=start.dtype, device=start.device).reshape(-1, *start.shape[1:])
        with torch.no_grad():
            return _largest(_gram(linear_map(units).flatten(1)))[0].to(start).reshape(start.shape)
    vector = start
    for _ in range(max(max_iterations // _SWEEP, 1)):
        basis, images = _sweep(linear_map, vector)
        gram = _gram(images)
        combination, norm = _largest(gram)
        vector = (combination.to(basis) @ basis).reshape(start.shape)
        if norm <= _largest(gram[:_SETTLED, :_SETTLED])[1] * (1 + tolerance):
            break
    return _unit(vector)


def random_unit_vector(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """A fixed vector (1, *shape) of norm 1, drawn without the global generators."""
    generator = torch.Generator(like.device).manual_seed(0)
    return _unit(torch.randn(1, *shape, generator=generator, dtype=like.dtype, device=like.device))


def _sweep(linear_map: LinearMap, vector: Tensor) -> tuple[Tensor, Tensor]:
    """An orthonormal basis of the span of ``(AᵀA)ᵏ v``, k < n, and its images under A: (n, numbers) each."""
    vector = _unit(vector).requires_grad_()
    with torch.enable_grad():
        image = linear_map(vector)
    basis = vector.new_zeros(_SWEEP, vector.numel())
    images = vector.new_zeros(_SWEEP, image.numel())
    basis[0], images[0] = vector.detach().flatten(), image.detach().flatten()
    for k in range(1, _SWEEP):
        # A is linear: the graph of one product transposes A for all others.
        last = images[k - 1].reshape(image.shape)
        product = torch.autograd.grad(image, vector, last, retain_graph=True)[0].flatten()
        following = product
        for _ in range(2):  # the second pass removes rounding errors of the first
            following = torch.addmv(following, basis.mT, basis @ following, alpha=-1)
        # If only rounding errors are left, the basis spans all that v can reach, and is filled up with zeros.
        length = following.norm()
        is_new = length > 16 * torch.finfo(product.dtype).eps * product.norm()
        torch.mul(following, is_new / length.clamp(min=torch.finfo(product.dtype).tiny), out=basis[k])
        with torch.no_grad():
            images[k] = linear_map(basis[k].reshape(vector.shape)).flatten()
    return basis, images


def _unit(vector: Tensor) -> Tensor:
    """The vector with norm 1, or zero if it is zero."""
    return vector.detach() / vector.detach().norm().clamp(min=torch.finfo(vector.dtype).tiny)


def _gram(images: Tensor) -> Tensor:
    """The products of the rows with each other, on the host: its LAPACK is faster than a GPU for so few numbers."""
    return (images @ images.mT).cpu()


def _largest(gram: Tensor) -> tuple[Tensor, float]:
    """The unit combination (n,) of the rows (n, numbers) that is longest, and its length, from their products."""
    squares, rotation = torch.linalg.eigh(gram)  # ascending
    return rotation[:, -1], math.sqrt(max(squares[-1].item(), 0.0))
