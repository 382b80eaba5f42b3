"""Monotone splines of each number: linear and rational-quadratic, with linear tails."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..arguments import check_positive
from .elementwise import MapFamily

# Of the smallest domain of identity tails in that of a coefficient of zero: with an empty one, the map is undefined.
MIN_DOMAIN_FRACTION = 1e-6


class SplineMap:
    """A line through knots ``(x_0, y_0), …, (x_K, y_K)``, continued by that through the first and the last one.

    Args:
        x, y: increasing (B, C, K + 1, *spatial), with sizes of 1 where the states' are larger.
    """

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._evaluate(x, self.x, self.y, inverse=False)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self._evaluate(y, self.y, self.x, inverse=True)

    def _evaluate(self, u: Tensor, us: Tensor, vs: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        """The function through the knots ``(u_k, v_k)``, and the logarithm of its derivative."""
        first_u, last_u, first_v, last_v = us[:, :, 0], us[:, :, -1], vs[:, :, 0], vs[:, :, -1]
        slope = (last_v - first_v) / (last_u - first_u)
        inside = (first_u < u) & (u <= last_u)
        # Outside, the first knot stands in for u, so that the branch that is not taken stays finite with its gradient.
        within = torch.where(inside, u, first_u)
        index = (within.unsqueeze(2) > us[:, :, 1:-1]).sum(2, keepdim=True)
        value, log_derivative = self.in_bins(within, index, inverse)
        tail = slope * u + (first_v - slope * first_u)  # exactly u for the identity
        return torch.where(inside, value, tail).to(u.dtype), torch.where(inside, log_derivative, slope.log())

    def in_bins(self, u: Tensor, index: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        """Value and logarithm of the derivative of the function, or its inverse, at u between the knots.

        Args:
            index: of the knot to the left of each number (B, C, *spatial), of shape (B, C, 1, *spatial).
        """
        (x0, x1), (y0, y1) = at_both_ends(self.x, index), at_both_ends(self.y, index)
        if inverse:
            x0, x1, y0, y1 = y0, y1, x0, x1
        slope = (y1 - y0) / (x1 - x0)
        return y0 + slope * (u - x0), slope.log()


class RationalQuadraticMap(SplineMap):
    """A quotient of quadratic polynomials between each two knots, with given derivatives at the knots.

    With ``ξ = (x − x_k)/(x_{k+1} − x_k)``, ``s = (y_{k+1} − y_k)/(x_{k+1} − x_k)`` and ``r = δ_k + δ_{k+1} − 2s``:
    ``y = y_k + (y_{k+1} − y_k) (s ξ² + δ_k ξ (1 − ξ)) / (s + r ξ (1 − ξ))`` (Durkan et al., 2019, equation 4). The
    inverse solves a quadratic equation.

    Args:
        x, y: see `SplineMap`.
        derivatives: δ > 0, of the same shape.
    """

    def __init__(self, x: Tensor, y: Tensor, derivatives: Tensor) -> None:
        super().__init__(x, y)
        self.derivatives = derivatives

    def in_bins(self, u: Tensor, index: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        ends = (at_both_ends(values, index) for values in (self.x, self.y, self.derivatives))
        (x0, x1), (y0, y1), (d0, d1) = ends
        width, height = x1 - x0, y1 - y0
        s = height / width
        r = d0 + d1 - 2 * s
        xi = _solved(u - y0, height, s, d0, r) if inverse else (u - x0) / width
        both = xi * (1 - xi)
        denominator = s + r * both
        log_derivative = 2 * s.log() - 2 * denominator.log()
        log_derivative = log_derivative + (d1 * xi.square() + 2 * s * both + d0 * (1 - xi).square()).log()
        if inverse:
            return x0 + xi * width, -log_derivative
        return y0 + height * (s * xi.square() + d0 * both) / denominator, log_derivative


def _solved(rise: Tensor, height: Tensor, s: Tensor, d0: Tensor, r: Tensor) -> Tensor:
    """ξ for ``y − y_k``: the root of ``a ξ² + b ξ + c`` in [0, 1], as a quotient that does not cancel (appendix A)."""
    a = height * (s - d0) + rise * r
    b = height * d0 - rise * r
    c = -s * rise
    discriminant = b.square() - 4 * a * c
    # Not positive for rounding errors alone. The gradient of a root at zero would not be finite.
    is_positive = discriminant > 0
    root = is_positive * torch.where(is_positive, discriminant, 1.0).sqrt()
    xi = 2 * c / (-b - root)
    # Outside the bin for rounding errors alone. There, the derivative would not be positive; a clamp has no gradient.
    return xi + (xi.clamp(0, 1) - xi).detach()


def at_both_ends(values: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """The values (B, C, K + 1, *spatial) at the left and right end of the bins of index (B, C, 1, *spatial)."""
    values = values.expand(*index.shape[:2], -1, *index.shape[3:])
    left, right = values.gather(2, torch.cat((index, index + 1), dim=2)).unbind(2)
    return left, right


class LinearSpline(MapFamily):
    """Piecewise linear maps with K bins, whose knots are coefficients; linear tails through the outer knots.

    Coefficients of zero give equal bins from the corner (left, bottom) to (right, top) of the domain. Widths and
    heights of the bins are shifted softplus functions of their coefficients, no smaller than a minimum; the corner
    (left, bottom) moves with its own. With ``identity_tails`` the domain is a square around the origin, which is cut
    into bins by softmax functions, and the map is the identity outside. Its width is at least 1e-6 of that which a
    coefficient of zero gives, as for a coefficient of −14.4. The form is FrEIA's, so that its weights give the
    same maps; for ``identity_tails`` with ``min_bin_fraction=0``, and domains of that width.

    Args:
        num_bins: K.
        min_bin_sizes: of widths and heights; not for ``identity_tails``.
        min_bin_fraction: for ``identity_tails``: of the smallest bin in the domain. With 0, bins may become empty, and
            the map undefined.
        domain: left, right, bottom, top of the domain that coefficients of zero give; ``identity_tails`` takes its
            width alone.
        identity_tails: continue by the identity instead of the line through the outer knots.
        domain_clamp: width and height of the domain are clamped softly to this.

    Raises:
        ValueError: for a domain that is empty, clamped to nothing or too small for the bins.

    Example:
        >>> layer = LearnedElementwise((4,), LinearSpline(5, identity_tails=True))
        >>> y, logdet = layer.forward_and_logdet(torch.randn(8, 4))  # (8, 4), (8,)
    """

    def __init__(
        self,
        num_bins: int = 10,
        *,
        min_bin_sizes: tuple[float, float] = (0.1, 0.1),
        min_bin_fraction: float = 1e-3,
        domain: tuple[float, float, float, float] = (-3.0, 3.0, -3.0, 3.0),
        identity_tails: bool = False,
        domain_clamp: float | None = None,
    ) -> None:
        super().__init__()
        check_positive(num_bins=num_bins)
        left, right, bottom, top = domain
        smallest = (0.0,) if identity_tails else min_bin_sizes
        for size, minimum in zip((right - left, top - bottom), smallest, strict=not identity_tails):
            if minimum < 0 or not size > num_bins * minimum:
                raise ValueError(
                    f"expected a domain wider than num_bins * min_bin_sizes >= 0, got domain={domain}, "
                    f"num_bins={num_bins}, min_bin_sizes={smallest}"
                )
        if identity_tails and not 0 <= num_bins * min_bin_fraction < 1:
            raise ValueError(f"expected 0 <= num_bins * min_bin_fraction < 1, got {num_bins} * {min_bin_fraction}")
        if domain_clamp is not None and not domain_clamp > 0:
            raise ValueError(f"expected a positive domain_clamp or None, got {domain_clamp}")
        self.num_bins = num_bins
        self.min_bin_fraction = min_bin_fraction
        self.min_bin_sizes = min_bin_sizes
        self.domain = domain
        self.identity_tails = identity_tails
        self.domain_clamp = domain_clamp
        self.num_coefficients = 2 * num_bins + (1 if identity_tails else 2)

    def forward(self, coefficients: Tensor) -> SplineMap:
        x, y, _ = self.knots(coefficients)
        return SplineMap(x, y)

    def knots(self, coefficients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x and y of the knots, (B, C, K + 1, *spatial), and the coefficients that remain.

        The coefficients of each number lie side by side: K of widths, K of heights, then those of the domain.
        """
        # In half precision, neighbouring knots would round to the same number.
        values = coefficients.to(torch.promote_types(coefficients.dtype, torch.float32))
        values = values.unflatten(1, (-1, self.num_coefficients))
        widths, heights, rest = values.tensor_split((self.num_bins, 2 * self.num_bins), dim=2)
        if self.identity_tails:
            size, rest = rest.tensor_split((1,), dim=2)
            size = self._clamped((self.domain[1] - self.domain[0]) * _positive(size).clamp(min=MIN_DOMAIN_FRACTION))
            inner = (_cumulated(-size / 2, size * self._fractions(part)) for part in (widths, heights))
            x, y = (torch.cat((knots[:, :, :-1], size / 2), dim=2) for knots in inner)  # both end at the same number
            return x, y, rest
        bottom, left, rest = rest.tensor_split((1, 2), dim=2)
        return self._axis(left, widths, 0), self._axis(bottom, heights, 1), rest

    def _fractions(self, sizes: Tensor) -> Tensor:
        """Those of the bins in a domain of given size."""
        return self.min_bin_fraction + (1 - self.num_bins * self.min_bin_fraction) * sizes.softmax(dim=2)

    def _axis(self, first: Tensor, sizes: Tensor, axis: int) -> Tensor:
        """The knots on one axis."""
        low, high = self.domain[2 * axis : 2 * axis + 2]
        minimum = self.min_bin_sizes[axis]
        sizes = minimum + F.softplus(sizes + _before_softplus((high - low) / self.num_bins - minimum))
        total = sizes.sum(2, keepdim=True)
        return _cumulated(first + low, sizes) * (self._clamped(total) / total)

    def _clamped(self, size: Tensor) -> Tensor:
        return size if self.domain_clamp is None else self.domain_clamp * torch.tanh(size / self.domain_clamp)

    def extra_repr(self) -> str:
        tails = ", identity_tails=True" if self.identity_tails else ""
        return f"num_bins={self.num_bins}, domain={self.domain}{tails}"


class RationalQuadraticSpline(LinearSpline):
    """Rational-quadratic splines with K bins (Neural Spline Flows; Durkan et al., 2019).

    Smoother than linear ones: the derivative is continuous. Its values at the K − 1 inner knots are shifted softplus
    functions of coefficients too, 1 for zero; at the outer ones it is the slope of the tails.

    Coefficients without a bound, such as those of a linear subnet, make the map so steep or flat that its inverse is
    ill-conditioned. ``reversible`` then needs `keep_input`.

    Args:
        num_bins, options: see `LinearSpline`.
        min_derivative: of the derivatives at the inner knots, in [0, 1).

    Raises:
        ValueError: as `LinearSpline`, and for a smallest derivative out of its range.

    Example:
        >>> layer = LearnedElementwise((4,), RationalQuadraticSpline(5))
        >>> y, logdet = layer.forward_and_logdet(torch.randn(8, 4))  # (8, 4), (8,)
    """

    def __init__(self, num_bins: int = 10, *, min_derivative: float = 0.0, **options: object) -> None:
        super().__init__(num_bins, **options)  # type: ignore[arg-type]
        if not 0 <= min_derivative < 1:
            raise ValueError(f"expected min_derivative in [0, 1), got {min_derivative}")
        self.min_derivative = min_derivative
        self.num_coefficients += num_bins - 1

    def forward(self, coefficients: Tensor) -> RationalQuadraticMap:
        x, y, rest = self.knots(coefficients)
        slope = ((y[:, :, -1] - y[:, :, 0]) / (x[:, :, -1] - x[:, :, 0])).unsqueeze(2)
        return RationalQuadraticMap(x, y, torch.cat((slope, _positive(rest, self.min_derivative), slope), dim=2))


def _before_softplus(value: float) -> float:
    """The u with ``softplus(u) = value``."""
    return math.log(math.expm1(value))


def _positive(u: Tensor, minimum: float = 0.0) -> Tensor:
    """A number above the minimum, 1 for zero."""
    return minimum + F.softplus(u + _before_softplus(1.0 - minimum))


def _cumulated(first: Tensor, sizes: Tensor) -> Tensor:
    """``first`` (B, C, 1, …) and the sums of it and the sizes (B, C, K, …) up to each.

    One after the other: a `cumsum` along a dimension that is not the last takes nearly twice as long on a CPU.
    """
    return torch.stack(list(itertools.accumulate(sizes.unbind(2), initial=first[:, :, 0])), dim=2)
