"""Foam phantoms: a cylinder of attenuation 1 with many non-overlapping balls of air in it.

Lengths are in half-widths of the scan's cube [−1, 1]³; the cylinder is centred, with its axis along z.
Source: D.M. Pelt, K.J. Batenburg, J.A. Sethian, J. Imaging 4 (2018) 128; D.M. Pelt, A.A. Hendriksen,
K.J. Batenburg, J. Synchrotron Rad. 29 (2022) 254.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..invertible.arguments import check_positive
from .geometry import Array
from .placement import place_balls


@dataclass(frozen=True, eq=False)
class FoamPhantom:
    """A cylinder {x² + y² ≤ radius², |z| ≤ half_height} of attenuation 1 with balls of attenuation 0 in it.

    Attributes:
        radius, half_height: of the cylinder, in half-widths of the cube.
        centres: of the balls as (x, y, z), (n, 3).
        radii: of the balls, (n,).

    Example:
        >>> phantom = FoamPhantom(0.8, 0.8, np.array([[0.0, 0.0, 0.2]]), np.array([0.4]))
        >>> round(phantom.porosity, 3)
        0.083
    """

    radius: float
    half_height: float
    centres: Array
    radii: Array

    @property
    def porosity(self) -> float:
        """The balls' share of the cylinder's volume, Σ 4/3 π r³ / (2 π R² H)."""
        return float(4 / 3 * (self.radii**3).sum() / (2 * self.radius**2 * self.half_height))

    def to_arrays(self) -> dict[str, Array]:
        """Return the phantom as named arrays, for a file."""
        return {"cylinder": np.array([self.radius, self.half_height]), "centres": self.centres, "radii": self.radii}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> FoamPhantom:
        """Return the phantom of `to_arrays`, from a mapping such as an open .npz file."""
        radius, half_height = arrays["cylinder"].tolist()
        return cls(radius, half_height, arrays["centres"], arrays["radii"])

    def batches(
        self, widths: NDArray[np.int_], batch_size: Callable[[int], int], device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Yield centres (m, 3), radii (m,) and width of balls of equal width, m at most batch_size(width) or 1.

        Args:
            widths: of each ball's bounding box, in pixels or samples: (n,).
        """
        for width in np.unique(widths).tolist():
            arrays = (torch.from_numpy(array[widths == width]).to(device) for array in (self.centres, self.radii))
            batches = (array.split(max(1, batch_size(width))) for array in arrays)
            yield from ((centres, radii, width) for centres, radii in zip(*batches, strict=True))


@dataclass(frozen=True)
class FoamSpec:
    """The distribution of foam phantoms. A range is (lowest, highest), drawn from uniformly, or one number.

    Attributes:
        num_balls, radius, half_height: ranges of the number of balls and of the cylinder's size.
        max_radius, min_radius: bounds of the balls' radii; a full cylinder holds fewer balls than asked for.
        num_trial_points: points that placement starts from; see `placement`.

    Raises:
        ValueError: a range is inverted or not positive, the cylinder does not fit into the cube, or min_radius is not
            below max_radius.

    Example:
        >>> FoamSpec(num_balls=(2, 3), num_trial_points=1000).radius
        (0.6, 0.9)
    """

    num_balls: tuple[int, int] = (80, 160)
    radius: tuple[float, float] = (0.6, 0.9)
    half_height: tuple[float, float] = (0.6, 0.9)
    max_radius: float = 0.22
    min_radius: float = 0.08
    num_trial_points: int = 100_000

    def __post_init__(self) -> None:
        # The same values in other types are the same phantoms, and have the same name in a cache.
        for name in ("max_radius", "min_radius"):
            object.__setattr__(self, name, float(getattr(self, name)))
        for name, kind in (("num_balls", int), ("radius", float), ("half_height", float)):
            value = getattr(self, name)
            low_high = value if isinstance(value, Sequence) else (value, value)
            if len(low_high) != 2:
                raise ValueError(f"expected {name} to be one number or a pair [low, high], got {value}")
            low, high = low_high
            object.__setattr__(self, name, (kind(low), kind(high)))
            if not 0 < low <= high:
                raise ValueError(f"expected {name} to be a range with 0 < low <= high, got [{low}, {high}]")
            if name != "num_balls" and high > 1:
                raise ValueError(
                    f"expected {name} to be at most 1, so that the cylinder fits into the cube [-1, 1]^3, got {high}"
                )
        if not 0 <= self.min_radius < self.max_radius:
            raise ValueError(
                f"expected 0 <= min_radius < max_radius, got min_radius={self.min_radius}, max_radius={self.max_radius}"
            )
        check_positive(num_trial_points=self.num_trial_points)


def draw_foam(spec: FoamSpec, rng: np.random.Generator) -> FoamPhantom:
    """Draw a cylinder and fill it with balls, largest first.

    The phantom has fewer balls than drawn if there is no room left for one with a radius above `spec.min_radius`.

    Args:
        spec: ranges to draw from.
        rng: source of the draws.

    Example:
        >>> phantom = draw_foam(FoamSpec(num_balls=(2, 3), num_trial_points=1000), np.random.default_rng(0))
        >>> phantom.centres.shape[1]
        3
    """
    radius = rng.uniform(*spec.radius)
    half_height = rng.uniform(*spec.half_height)
    num_balls = int(rng.integers(spec.num_balls[0], spec.num_balls[1] + 1))
    centres, radii = place_balls(
        rng, radius, half_height, num_balls, spec.max_radius, spec.min_radius, spec.num_trial_points
    )
    return FoamPhantom(radius, half_height, centres, radii)
