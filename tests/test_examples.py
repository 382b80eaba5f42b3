"""The programs of examples/ run, and show what they say they show."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from examples import spline_flow


def test_the_toys_log_density_is_normalised() -> None:
    grid = torch.linspace(-4, 4, 801)
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    density = spline_flow.true_log_density(torch.stack((x, y), dim=-1).reshape(-1, 2)).exp()
    assert density.sum().item() * 0.01**2 == pytest.approx(1, abs=1e-3)


def test_kept_bytes_do_not_grow_with_the_depth() -> None:
    for name in spline_flow.COUPLINGS:
        assert spline_flow.kept_bytes(name, 2) == spline_flow.kept_bytes(name, 8) == 512 * 2 * 4


@pytest.mark.slow
def test_splines_fit_rings_better_than_affine_maps(tmp_path: Path) -> None:
    found = spline_flow.compare(steps=400, depth=4, seed=0, picture=tmp_path / "densities.png")
    likelihoods = {name: numbers["log-likelihood"] for name, numbers in found.items()}
    assert likelihoods["affine"] + 0.1 < likelihoods["spline"] < likelihoods["truth"]
    assert (tmp_path / "densities.png").stat().st_size > 10_000
