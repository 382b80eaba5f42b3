"""Probabilities of integer images under a normalizing flow, with all constants."""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..invertible import FixedAffine, InvertibleModule, Logit, OnChannels, Sequential, undisturbed
from ..invertible.arguments import chosen
from ..invertible.log_determinants import sum_per_sample
from .dequantisation import UniformDequantisation, VariationalDequantisation

# RealNVP's α: how far from 0 and 1 the grey values stay before the logit.
LOGIT_MARGIN = 0.05
# By the number of bins.
PREPROCESSINGS: dict[str, Callable[[int], InvertibleModule]] = {
    "logit": lambda num_bins: Sequential(FixedAffine((1 - 2 * LOGIT_MARGIN) / num_bins, LOGIT_MARGIN), Logit()),
    "centre": lambda num_bins: FixedAffine(1 / num_bins, -0.5),
}
# By the number of channels, of bins and of spatial dimensions.
DEQUANTISATIONS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "uniform": lambda *_: UniformDequantisation(),
    "variational": lambda channels, num_bins, dims: VariationalDequantisation(channels, num_bins, spatial_dims=dims),
}


class LogLikelihood(NamedTuple):
    """The terms of a log-probability, each of shape (B,), in nats.

    Attributes:
        prior: log-density of the latent.
        logdet: log-determinant of preprocessing and flow.
        dequantisation: minus the log-density of the noise, in the image and in channels beside it.

    Example:
        >>> LogLikelihood(torch.tensor([-3.0]), torch.tensor([1.0]), torch.tensor([0.5])).total
        tensor([-1.5000])
    """

    prior: Tensor
    logdet: Tensor
    dequantisation: Tensor

    @property
    def total(self) -> Tensor:
        """Their sum."""
        return self.prior + self.logdet + self.dequantisation


class DensityModel(nn.Module):
    """The probability of integer images k under a flow f to a standard normal latent.

    With noise u of density q(u|k) in [0, 1), and ``z = f(g(k + u))`` where g is the preprocessing,

        ``log p(k) ≥ E_u [log N(z; 0, 1) + log|det dz/du| − log q(u|k)]``

    (Theis et al., 2016). One draw of u gives an unbiased estimate of the bound, which for uniform noise is that of the
    density smoothed over each bin. The preprocessing, for ``num_bins`` grey values, is

    - ``logit``: ``logit(α + (1 − 2α) (k + u)/num_bins)`` with α = 0.05, as in RealNVP (Dinh et al., 2017);
    - ``centre``: ``(k + u)/num_bins − 1/2``, as in Glow (Kingma and Dhariwal, 2018).

    With ``augmented_channels``, the flow's state has further channels before those of the image, which are standard
    normal noise e of density q(e). They give a flow of few channels room to work in, and the bound above becomes

        ``log p(k) ≥ E_{u,e} [log N(z; 0, 1) + log|det dz/d(u,e)| − log q(u|k) − log q(e)]``

    (augmented flows; Huang et al., 2020). Images are encoded with e = 0; latents have as many channels as the state.

    Preprocessing and flow are one tree of bijections. Under autocast, states, latents and log-likelihoods stay in
    float32.

    Args:
        flow: a bijection that keeps the shape (B, C, *spatial), or that of the augmented state; without preprocessing.
        sample_shape: (C, *spatial).
        num_bins: number of grey values; 256 for images of 8 bits.
        dequantisation: ``uniform``, ``variational`` (`VariationalDequantisation` with its defaults), or a module that
            maps images to u and log q(u|k).
        preprocessing: g.
        augmented_channels: channels of the flow's state, noise included; None for those of the image.

    Attributes:
        latent_shape: (channels of the state, *spatial).

    Raises:
        ValueError: for an option out of range.

    Example:
        >>> model = DensityModel(Glow(1, num_levels=1, num_steps=1, hidden_channels=4), sample_shape=(1, 8, 8))
        >>> log_prob = model.log_likelihood(torch.randint(256, (2, 1, 8, 8))).total  # (2,), nats
        >>> model.sample(3).shape
        torch.Size([3, 1, 8, 8])
    """

    def __init__(
        self,
        flow: InvertibleModule,
        sample_shape: Iterable[int],
        num_bins: int = 256,
        dequantisation: str | nn.Module = "uniform",
        preprocessing: str = "logit",
        augmented_channels: int | None = None,
    ) -> None:
        super().__init__()
        if num_bins < 2:
            raise ValueError(f"expected num_bins >= 2, got {num_bins}")
        self.sample_shape = tuple(sample_shape)
        if len(self.sample_shape) < 2:
            raise ValueError(f"expected a sample_shape of channels and spatial sizes, got {self.sample_shape}")
        channels = self.sample_shape[0]
        self.num_noise_channels = 0 if augmented_channels is None else augmented_channels - channels
        if self.num_noise_channels < 0:
            raise ValueError(f"expected augmented_channels >= {channels}, those of the image, got {augmented_channels}")
        self.latent_shape = (channels + self.num_noise_channels, *self.sample_shape[1:])
        self.num_bins = num_bins
        if isinstance(dequantisation, str):
            construct = chosen("dequantisation", dequantisation, DEQUANTISATIONS)
            dequantisation = construct(channels, num_bins, len(self.sample_shape) - 1)
        self.dequantisation = dequantisation
        g = chosen("preprocessing", preprocessing, PREPROCESSINGS)(num_bins)
        if self.num_noise_channels:
            g = OnChannels(g, self.num_noise_channels)
        self.bijection = Sequential(OrderedDict(preprocessing=g, flow=flow))

    def forward(self, images: Tensor) -> Tensor:
        """The latents; see `encode`."""
        return self.encode(images)

    def log_likelihood(self, images: Tensor) -> LogLikelihood:
        """A lower bound of ``log p(k)`` by one draw of the noise, in its terms.

        Args:
            images: k of shape (B, C, *spatial): integers from 0 to num_bins − 1, of any dtype; the terms have that of
                the parameters, at least float32.

        Raises:
            ValueError: for another shape or other numbers.
        """
        images = self._as_state(images)
        wrong = (images != images.floor()) | (images < 0) | (images >= self.num_bins)
        if bool(wrong.any()):
            raise ValueError(
                f"expected integer images, with grey values from 0 to {self.num_bins - 1}, got "
                f"{images[wrong][0].item():g}"
            )
        u, log_q = self.dequantisation(images)
        if self.num_noise_channels:
            noise = torch.randn_like(self._noise(images))
            log_q = log_q + standard_normal_log_density(noise)
            state = torch.cat((noise, images + u), dim=1)
        else:
            state = images + u
        z, logdet = self.bijection.forward_and_logdet(state)
        return LogLikelihood(standard_normal_log_density(z), logdet, -log_q)

    def bits_per_dim(self, nats: Tensor) -> Tensor:
        """``−nats / (D log 2)`` for D numbers per image."""
        return -nats / (math.prod(self.sample_shape) * math.log(2))

    def encode(self, images: Tensor) -> Tensor:
        """The latents z of the middles ``k + 1/2`` of the bins, of shape (B, *latent_shape)."""
        state = self._as_state(images) + 0.5
        return self.bijection(torch.cat((self._noise(state), state), dim=1) if self.num_noise_channels else state)

    def decode(self, z: Tensor) -> Tensor:
        """The grey values of latents, perhaps outside [0, num_bins); ``decode(encode(k))`` is ``k + 1/2``."""
        return self.bijection.inverse(self._checked(z, self.latent_shape))[:, self.num_noise_channels :]

    def sample(self, num_samples: int, temperature: float = 1.0) -> Tensor:
        """Images of latents drawn from N(0, temperature²), clamped to [0, num_bins); no gradients.

        The model runs in evaluation mode, so that activation normalisation is never set from samples.
        """
        like = next(self.parameters(), torch.empty(0))
        z = temperature * torch.randn(num_samples, *self.latent_shape, dtype=like.dtype, device=like.device)
        highest = torch.nextafter(torch.tensor(float(self.num_bins), dtype=z.dtype), torch.tensor(0.0, dtype=z.dtype))
        with undisturbed(self):
            return self.decode(z).clamp(0, highest.item())

    def _noise(self, images: Tensor) -> Tensor:
        """Zeros in the shape of the noise beside images (B, C, *spatial)."""
        return images.new_zeros(images.shape[0], self.num_noise_channels, *self.sample_shape[1:])

    def _checked(self, state: Tensor, shape: tuple[int, ...]) -> Tensor:
        if tuple(state.shape[1:]) != shape:
            expected = ", ".join(map(str, shape))
            raise ValueError(f"expected shape (B, {expected}), got {tuple(state.shape)}")
        return state

    def _as_state(self, images: Tensor) -> Tensor:
        """Images in the precision of the parameters, if there are any, and at least in float32."""
        like = next(self.parameters(), images)
        return self._checked(images, self.sample_shape).to(torch.promote_types(like.dtype, torch.float32))

    def extra_repr(self) -> str:
        return f"sample_shape={self.sample_shape}, num_bins={self.num_bins}"


def standard_normal_log_density(z: Tensor) -> Tensor:
    """``Σ −(z² + log 2π)/2`` of shape (B,).

    Args:
        z: latents (B, …).

    Returns:
        Log-densities, in nats.

    Example:
        >>> standard_normal_log_density(torch.zeros(2, 4))  # −2 log 2π
        tensor([-3.6758, -3.6758])
    """
    return -0.5 * sum_per_sample(z.square() + math.log(2 * math.pi))
