"""Bases of GemNet compared with their formulas, and the sum over triplets compared with explicit triplets."""

import math

import numpy
import pytest
import torch
from scipy.special import eval_legendre

from mdsim.models.gemnet.basis import BesselBasis, GaussianBasis, RadialBasis, circular_basis, circular_harmonics
from mdsim.models.gemnet.edges import Edges
from mdsim.models.gemnet.interaction import Bases, EfficientInteractionBilinear
from mdsim.neighbors import neighbors
from mdsim.state import System

CUTOFF = 3.2  # Å


def _directions(n: int, generator: torch.Generator) -> torch.Tensor:
    vectors = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return vectors / vectors.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("num_spherical", [1, 2, 7])
def test_harmonics_obey_the_addition_theorem(num_spherical, generator):
    """Σ_m y_lm(u) y_lm(v) = √((2l + 1) / 4π) P_l(u · v) for every degree."""
    u, v = _directions(50, generator), _directions(50, generator)
    products = circular_harmonics(u, num_spherical) * circular_harmonics(v, num_spherical)
    cosine = (u * v).sum(-1)
    for degree in range(num_spherical):
        found = products[:, degree**2 : (degree + 1) ** 2].sum(-1)
        expected = math.sqrt((2 * degree + 1) / (4 * math.pi)) * eval_legendre(degree, cosine)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


def test_harmonics_are_smooth_at_the_poles():
    """Where the azimuth has no value, gradients are those of a point beside it."""
    pole = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    beside = torch.tensor([[1e-7, 0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    weights = torch.linspace(1.0, 2.0, 49, dtype=torch.float64)
    gradients = [torch.autograd.grad((circular_harmonics(u, 7) @ weights).sum(), u)[0] for u in (pole, beside)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("envelope", "exponent"), [("polynomial", 5), ("polynomial", 8), ("exponential", 5)])
@pytest.mark.parametrize("rbf", ["gaussian", "spherical_bessel"])
def test_radial_functions_vanish_at_the_cutoff_with_two_derivatives(rbf, envelope, exponent):
    basis = RadialBasis(4, CUTOFF, rbf, envelope, exponent).double()
    distance = torch.tensor([CUTOFF * (1.0 - 1e-4)], dtype=torch.float64, requires_grad=True)
    for value in basis(distance)[0]:
        (slope,) = torch.autograd.grad(value, distance, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), distance, retain_graph=True)
        assert abs(value) < 1e-8 and abs(slope) < 1e-5 and abs(curvature) < 0.1


def test_the_envelope_leaves_short_distances_alone():
    for envelope in ("polynomial", "exponential"):
        basis = RadialBasis(4, CUTOFF, "gaussian", envelope, 5)
        near = torch.tensor([0.05 * CUTOFF])
        torch.testing.assert_close(basis(near), basis.rbf(near / CUTOFF), rtol=3e-3, atol=0)


def test_bessel_functions_are_orthonormal_in_the_ball():
    """∫ R_n R_m r² dr = δ_nm, by Gauss-Legendre quadrature."""
    nodes, weights = (torch.as_tensor(x) for x in numpy.polynomial.legendre.leggauss(64))
    scaled = (nodes + 1.0) / 2.0
    values = BesselBasis(5, CUTOFF).double()(scaled)
    measure = weights / 2.0 * CUTOFF * (scaled * CUTOFF).square()
    # The frequencies are parameters in single precision.
    torch.testing.assert_close(values.T @ (measure[:, None] * values), torch.eye(5).double(), rtol=0, atol=1e-6)


def test_gaussians_are_as_wide_as_they_are_apart():
    values = GaussianBasis(6)(torch.linspace(0.0, 1.0, 6))
    torch.testing.assert_close(values.diagonal(), torch.ones(6))
    torch.testing.assert_close(values.diagonal(1), torch.full((5,), math.exp(-0.5)))


def test_unusable_bases_are_refused():
    with pytest.raises(ValueError, match="num_radial 1"):
        RadialBasis(1, CUTOFF, "gaussian", "polynomial", 5)
    for rbf, envelope in (("bessel", "polynomial"), ("gaussian", "cosine")):
        with pytest.raises(ValueError, match="use gaussian or spherical_bessel"):
            RadialBasis(6, CUTOFF, rbf, envelope, 5)


@pytest.mark.parametrize("num_spherical", [1, 4])
def test_the_sum_over_triplets_is_that_over_a_list_of_them(num_spherical, generator):
    """y(c) = Σ_{b ≠ c} Σ_ln e_n(c) Y_l0(cos φ_cab) Σ_i W¹_lni W²_eio x_e(b), edge by edge in an oblique cell."""
    cell = torch.tensor([[5.0, 0.0, 0.0], [1.0, 5.5, 0.0], [0.5, -1.0, 6.0]], dtype=torch.float64)
    positions = torch.rand(2, 9, 3, generator=generator, dtype=torch.float64) @ cell
    system = System.from_geometry(torch.tensor([8] * 9), positions[0], cell, torch.float64)
    edges = Edges.within(CUTOFF, positions, neighbors(system, positions, CUTOFF))
    basis = RadialBasis(3, CUTOFF, "gaussian", "polynomial", 5)
    layer = EfficientInteractionBilinear(emb_size_trip=4, emb_size_cbf=2, emb_size_bil_trip=5).double()
    mlp_cbf3 = torch.randn(num_spherical, 3, 2, generator=generator, dtype=torch.float64)
    x = torch.randn(len(edges.receivers), 4, generator=generator, dtype=torch.float64)

    harmonics, radial = circular_basis(edges, edges.radial(basis), num_spherical)
    unused = edges.radial(basis)
    found = layer(x, Bases(unused, unused, harmonics, radial, mlp_cbf3), edges)

    directions = torch.stack([edges.directions, -edges.directions], 1).flatten(0, 1)
    of_pairs = edges.radial(basis).repeat_interleave(2, dim=0)
    factors = ((2 * torch.arange(num_spherical).double() + 1) / (4 * math.pi)).sqrt()
    for c, receiver in enumerate(edges.receivers.tolist()):
        expected = torch.zeros(5, dtype=torch.float64)
        for b in torch.nonzero(edges.receivers == receiver)[:, 0].tolist():
            if b != c:
                cosine = (directions[c] @ directions[b]).detach()
                legendre = torch.stack([eval_legendre(degree, cosine) for degree in range(num_spherical)])
                message = torch.einsum("lni,eio,e->lno", mlp_cbf3, layer.weight, x[b])
                expected += torch.einsum("n,l,lno->o", of_pairs[c], factors * legendre, message)
        torch.testing.assert_close(found[c], expected, rtol=1e-10, atol=1e-10)
