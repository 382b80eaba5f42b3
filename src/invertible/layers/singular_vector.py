"""The first singular vectors of linear maps A, which are given as a function of batches of inputs."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

SWEEP = 16  # vectors of one sweep of Lanczos' method
_SETTLED = 12  # if the vectors after these no longer enlarge σ, the search ends
_DENSE = 64  # a map with at most so many inputs is decomposed


class LinearMaps(Protocol):
    """L linear maps of one shape, which are evaluated together."""

    def __call__(self, x: Tensor) -> Tensor:
        """The outputs (L, B, …) of the maps, without bias, for B inputs of each: (L, B, …)."""
        ...

    def __getitem__(self, chosen: Tensor) -> LinearMaps:
        """Those of the maps that a mask (L,) chooses."""
        ...


def first_singular_vectors(maps: LinearMaps, starts: Tensor, *, tolerance: float, max_iterations: int) -> Tensor:
    """The unit vector v of each map for which ``σ = |A v|`` is largest: of the shape (L, …) of ``starts``.

    Lanczos' method on ``AᵀA`` with restarts; maps of few inputs are decomposed as matrices. All maps take part in each
    operation until their own search ends, so that a GPU is given as many operations as for one.

    Args:
        maps: the maps A.
        starts: where the searches start.
        tolerance: relative growth of σ over the last quarter of a sweep at which a search ends.
        max_iterations: about the largest number of products with ``AᵀA``.
    """
    shape = starts.shape[1:]
    if shape.numel() <= _DENSE:
        units = torch.eye(shape.numel(), dtype=starts.dtype, device=starts.device).reshape(-1, *shape)
        with torch.no_grad():
            images = maps(units.expand(len(starts), *units.shape))
        return _largest(_gram(images.flatten(2)))[0].to(starts).reshape(starts.shape)
    found, moving, vectors = torch.zeros_like(starts), torch.ones(len(starts), dtype=torch.bool), starts
    for _ in range(max(max_iterations // SWEEP, 1)):
        basis, images = _sweep(maps, vectors)
        gram = _gram(images)
        combinations, norms = _largest(gram)
        vectors = (combinations.to(basis)[:, None] @ basis).reshape(vectors.shape)
        moves = ~(norms <= _largest(gram[:, :_SETTLED, :_SETTLED])[1] * (1 + tolerance))
        if moving.all():
            found = vectors
        else:
            found[moving.to(found.device)] = vectors
        if not moves.any():
            break
        if not moves.all():
            moving[moving.clone()] = moves
            maps, vectors = maps[moves], vectors[moves.to(vectors.device)]
    return _unit(found)


def random_unit_vector(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """A fixed vector (*shape) of norm 1, the same on every device, drawn without the global generators."""
    vector = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=like.dtype)
    return _unit(vector[None].to(like.device))[0]


def _sweep(maps: LinearMaps, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """An orthonormal basis of the span of ``(AᵀA)ᵏ v``, k < n, and its images under A: (L, n, numbers) each."""
    vectors = _unit(vectors).requires_grad_()
    with torch.enable_grad():
        image = maps(vectors[:, None])
    number = len(vectors)
    # In memory the vectors of one step lie side by side, since convolutions take them without a copy then.
    basis = vectors.new_zeros(SWEEP, number, vectors[0].numel()).transpose(0, 1)
    images = vectors.new_zeros(SWEEP, number, image[0].numel()).transpose(0, 1)
    basis[:, 0], images[:, 0] = vectors.detach().flatten(1), image.detach().flatten(1)
    for k in range(1, SWEEP):
        # A is linear: the graph of one product transposes A for all others.
        last = images[:, k - 1].reshape(image.shape)
        product = torch.autograd.grad(image, vectors, last, retain_graph=True)[0].flatten(1)
        following = product
        for _ in range(2):  # the second pass removes rounding errors of the first
            following = _without(basis, following)
        # If only rounding errors are left, the basis spans all that v can reach, and is filled up with zeros.
        length = following.norm(dim=1, keepdim=True)
        is_new = length > 16 * torch.finfo(product.dtype).eps * product.norm(dim=1, keepdim=True)
        torch.mul(following, is_new / length.clamp(min=torch.finfo(product.dtype).tiny), out=basis[:, k])
        with torch.no_grad():
            images[:, k] = maps(basis[:, k].reshape(vectors[:, None].shape)).flatten(1)
    return basis, images


def _without(basis: Tensor, vectors: Tensor) -> Tensor:
    """The vectors (L, numbers) without their components along the orthonormal bases (L, n, numbers)."""
    if len(basis) == 1:  # products of matrix and vector, which a CPU computes faster than batches of them
        return torch.addmv(vectors[0], basis[0].mT, basis[0] @ vectors[0], alpha=-1)[None]
    columns = vectors[:, :, None]
    return torch.baddbmm(columns, basis.mT, basis @ columns, alpha=-1).squeeze(2)


def _unit(vectors: Tensor) -> Tensor:
    """Each vector with norm 1, or zero if it is zero."""
    norms = vectors.detach().flatten(1).norm(dim=1).clamp(min=torch.finfo(vectors.dtype).tiny)
    return vectors.detach() / norms.reshape(-1, *[1] * (vectors.ndim - 1))


def _gram(images: Tensor) -> Tensor:
    """The products of the rows with each other, on the host: its LAPACK is faster than a GPU for so few numbers."""
    return (images @ images.mT).cpu()


def _largest(gram: Tensor) -> tuple[Tensor, Tensor]:
    """The unit combinations (L, n) of the rows (L, n, numbers) that are longest, and their lengths, from the products
    of the rows (L, n, n)."""
    squares, rotation = torch.linalg.eigh(gram)  # ascending
    return rotation[:, :, -1], squares[:, -1].double().clamp(min=0).sqrt()
