"""Radial and circular basis of GemNet: functions of the distance and spherical harmonics of the direction.

The published model expands the angle between two edges at one atom in Y_l0(cos φ) = √((2l + 1) / 4π) P_l(cos φ). By the
addition theorem this is a sum over m of products of functions of one direction each,

    Y_l0(u · v) = Σ_m y_lm(u) y_lm(v),

so sums over triplets become products of sums over edges, and triplets are never enumerated.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import nn

from mdsim.models.gemnet.edges import Edges, on_both
from mdsim.typing import Float, Tensor


class GaussianBasis(nn.Module):
    """Gaussians evenly spaced from 0 to 1, with a standard deviation equal to the spacing."""

    def __init__(self, num_radial: int) -> None:
        super().__init__()
        if num_radial < 2:
            raise ValueError(f"a Gaussian basis needs at least 2 functions, found num_radial {num_radial}")
        self.num_radial = num_radial

    def forward(self, scaled: Float[Tensor, "pair"]) -> Float[Tensor, "pair radial"]:
        centers = torch.linspace(0.0, 1.0, self.num_radial, dtype=scaled.dtype, device=scaled.device)
        return torch.exp(-0.5 * ((self.num_radial - 1) * (scaled[:, None] - centers)).square())


class BesselBasis(nn.Module):
    """√(2 / r_c³) sin(k x) / x, x = r / r_c, with trainable k, initially n π (Gasteiger et al., ICLR 2020, eq. 7)."""

    def __init__(self, num_radial: int, cutoff: float) -> None:
        super().__init__()
        self.norm = math.sqrt(2.0 / cutoff**3)
        self.frequencies = nn.Parameter(math.pi * torch.arange(1.0, num_radial + 1.0))

    def forward(self, scaled: Float[Tensor, "pair"]) -> Float[Tensor, "pair radial"]:
        # The sinc function is sin(π x) / (π x), and smooth at zero.
        return self.norm * self.frequencies * torch.sinc(scaled[:, None] * self.frequencies / math.pi)


def polynomial_envelope(scaled: Float[Tensor, "pair"], exponent: int) -> Float[Tensor, "pair"]:
    """1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2): vanishes at 1 with its first two derivatives."""
    p = exponent
    a, b, c = -(p + 1) * (p + 2) / 2, p * (p + 2), -p * (p + 1) / 2
    return 1.0 + scaled**p * (a + scaled * (b + scaled * c))


def exponential_envelope(scaled: Float[Tensor, "pair"]) -> Float[Tensor, "pair"]:
    """exp(-x² / (1 - x²)): vanishes at 1 with all its derivatives (Unke et al., Nat. Commun. 12, 7273 (2021))."""
    return torch.exp(-scaled.square() / ((1.0 - scaled) * (1.0 + scaled)))


class RadialBasis(nn.Module):
    """A radial basis times an envelope that makes it vanish smoothly at the cutoff.

    Args:
        num_radial: functions.
        cutoff: Å.
        rbf: ``gaussian`` or ``spherical_bessel``.
        envelope: ``polynomial`` or ``exponential``.
        envelope_exponent: p of the polynomial envelope.
    """

    def __init__(self, num_radial: int, cutoff: float, rbf: str, envelope: str, envelope_exponent: int) -> None:
        super().__init__()
        bases = {"gaussian": GaussianBasis, "spherical_bessel": BesselBasis}
        if rbf not in bases or envelope not in ("polynomial", "exponential"):
            raise ValueError(
                f"found rbf {rbf!r} and envelope {envelope!r}: use gaussian or spherical_bessel, and polynomial or "
                "exponential"
            )
        self.cutoff, self.envelope, self.envelope_exponent = cutoff, envelope, envelope_exponent
        self.rbf = GaussianBasis(num_radial) if rbf == "gaussian" else BesselBasis(num_radial, cutoff)

    def forward(self, distances: Float[Tensor, "pair"]) -> Float[Tensor, "pair radial"]:
        scaled = distances / self.cutoff
        if self.envelope == "polynomial":
            envelope = polynomial_envelope(scaled, self.envelope_exponent)
        else:
            envelope = exponential_envelope(scaled)
        return envelope[:, None] * self.rbf(scaled)


def circular_harmonics(directions: Float[Tensor, "pair 3"], num_spherical: int) -> Float[Tensor, "pair harmonic"]:
    """Real spherical harmonics y_lm, l < ``num_spherical``, with Σ_m y_lm(u) y_lm(v) = √((2l + 1) / 4π) P_l(u · v).

    They are ordered by degree; y_lm has index l² + l + m. They are evaluated as polynomials of the components, by the
    recurrences of the associated Legendre functions, and so are smooth at the poles, where angles are not.

    Args:
        directions: unit vectors.
        num_spherical: degrees.
    """
    x, y, z = directions.unbind(-1)
    cosine, sine = torch.ones_like(x), torch.zeros_like(x)  # of m φ, times sin^m θ
    found: list[Tensor] = [x] * num_spherical**2
    for m in range(num_spherical):
        legendre = _legendre(z, m, num_spherical)
        for degree, values in enumerate(legendre, start=m):
            place, factor = degree * (degree + 1), _normalization(degree, m)
            found[place + m] = factor * values * cosine
            if m:
                found[place - m] = factor * values * sine
        cosine, sine = x * cosine - y * sine, x * sine + y * cosine
    return torch.stack(found, dim=-1)


def _legendre(z: Float[Tensor, "pair"], m: int, num_spherical: int) -> list[Tensor]:
    """P_l^m(z) / (1 - z²)^(m/2) without the phase (-1)^m, for l ≥ m."""
    values = [torch.full_like(z, float(math.prod(range(1, 2 * m, 2))))]
    for degree in range(m + 1, num_spherical):
        before = (degree + m - 1) * values[-2] if degree > m + 1 else 0.0
        values.append(((2 * degree - 1) * z * values[-1] - before) / (degree - m))
    return values


def _normalization(degree: int, m: int) -> float:
    """Normalization of P_l^m in y_lm. The factor of P_l is split evenly between the two directions."""
    of_the_sum = (1 if m == 0 else 2) * math.factorial(degree - m) / math.factorial(degree + m)
    return math.sqrt(of_the_sum) * ((2 * degree + 1) / (4 * math.pi)) ** 0.25


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def at_zero_angle(num_spherical: int, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "spherical"]:
    """Y_l0(1) = √((2l + 1) / 4π) of each degree: the contribution of an edge paired with itself.

    Kept on the device, because the host waits for each transfer.
    """
    values = [math.sqrt((2 * degree + 1) / (4 * math.pi)) for degree in range(num_spherical)]
    return torch.tensor(values, dtype=dtype, device=device)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _parity(num_spherical: int, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "harmonic"]:
    """(-1)^l of each harmonic, kept in the same way."""
    values = [(-1.0) ** degree for degree in range(num_spherical) for _ in range(2 * degree + 1)]
    return torch.tensor(values, dtype=dtype, device=device)


def circular_basis(
    edges: Edges, radial: Float[Tensor, "pair radial"], num_spherical: int
) -> tuple[Float[Tensor, "row harmonic"], Float[Tensor, "row radial"]]:
    """Harmonics and radial functions of the edges in the dense layout. The circular basis is their outer product.

    Args:
        edges: all edges.
        radial: functions of the distance.
        num_spherical: degrees.
    """
    harmonics = circular_harmonics(edges.directions, num_spherical)
    reverse = _parity(num_spherical, harmonics.device, harmonics.dtype) * harmonics
    harmonics = edges.dense(torch.stack([harmonics, reverse], dim=1).flatten(0, 1))
    return harmonics, edges.dense(on_both(radial))
