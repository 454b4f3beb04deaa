"""The vector instructions of the tabulated NequIP against the same sums in numpy."""

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

from e3nn.o3 import Irreps, spherical_harmonics
from numba import njit

from mdsim.compiled.vector_instructions import LANES
from mdsim.models.nequip.fast import vectors
from mdsim.models.nequip.fast.tables import harmonic_terms

CHANNELS, L_MAX = 2 * LANES, 2
DEGREES = (0,) * (L_MAX + 1)
KINDS = vectors.coupling_degrees(L_MAX)


@njit
def add_messages(degrees, kind, y, w, x, size, out, out_size, channels):
    vectors.add_messages(degrees, kind, y, 0, w, 0, x, 0, size, out, 0, out_size, channels)


@njit
def add_message_gradients(degrees, kind, y, w, g, size, gx, gx_size, channels):
    vectors.add_message_gradients(degrees, kind, y, 0, w, 0, g, 0, size, gx, 0, gx_size, channels)


@njit
def differentiate_messages(degrees, kind, y, w, slope, x, size, g, g_size, sums, channels):
    vectors.differentiate_messages(degrees, kind, y, 0, w, slope, 0, x, 0, size, g, 0, g_size, sums, channels)


@njit
def sigmoids(x, factor, out):
    vectors.sigmoids(x, 0, factor, out, len(out))


@njit
def evaluate_splines(table, at, t, values, slopes):
    vectors.evaluate_splines(table, at, t, values, slopes, len(values))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.mark.parametrize("number", range(len(KINDS)))
def test_couplings_equal_the_sums_they_stand_for(number, rng):
    sender, harmonic, result = (2 * degree + 1 for degree in KINDS[number])
    c, sign = vectors.coefficients_of(KINDS[number]), (-1.0) ** KINDS[number][1]
    y = rng.normal(size=harmonic) if harmonic > 1 else np.ones(1)
    w, slope = rng.normal(size=(2, CHANNELS))
    x, g = rng.normal(size=(2, sender, CHANNELS)), rng.normal(size=(2, result, CHANNELS))  # of the two atoms
    matrix = np.einsum("yoi,y->oi", c, y)

    out, gx, sums = np.zeros_like(g), np.zeros_like(x), np.zeros((harmonic, LANES))
    add_messages(DEGREES, number, y, w, x.ravel(), x[0].size, out.reshape(-1), g[0].size, CHANNELS)
    np.testing.assert_allclose(out, w * np.stack([matrix @ x[1], sign * matrix @ x[0]]), atol=1e-12)
    add_message_gradients(DEGREES, number, y, w, g.ravel(), g[0].size, gx.reshape(-1), x[0].size, CHANNELS)
    np.testing.assert_allclose(gx, w * np.stack([sign * matrix.T @ g[1], matrix.T @ g[0]]), atol=1e-12)

    differentiate_messages(
        DEGREES, number, y, w, slope, x.ravel(), x[0].size, g.ravel(), g[0].size, sums.reshape(-1), CHANNELS
    )
    q = np.einsum("yoi,ik,ok->yk", c, x[1], g[0]) + sign * np.einsum("yoi,ik,ok->yk", c, x[0], g[1])
    expected = (w * q).sum(-1) * (harmonic > 1)
    expected[0] += (slope * (y @ q)).sum()
    np.testing.assert_allclose(sums.sum(-1), expected, atol=1e-11)


@pytest.mark.parametrize("n_rows", [1, vectors.ROWS, 2 * vectors.ROWS + 3])
def test_product_adds_a_matrix_product(n_rows, rng):
    x, matrix, total = (rng.normal(size=(n, CHANNELS)) for n in (n_rows, CHANNELS, n_rows))
    expected = total + x @ matrix
    vectors.add_product(x.ravel(), 0, matrix.ravel(), 0, total.reshape(-1), 0, n_rows, CHANNELS)
    np.testing.assert_allclose(total, expected, atol=1e-12)


@pytest.mark.parametrize(("dtype", "error"), [(np.float32, 1.5e-7), (np.float64, 2e-16)])
def test_sigmoids_have_the_precision_of_their_type(dtype, error):
    x = np.linspace(-400, 400, 16 * 1000).astype(dtype)
    out = np.empty_like(x)
    sigmoids(x, dtype(2), out)
    with np.errstate(over="ignore"):
        expected = 1 / (1 + np.exp(-2 * x.astype(np.float64)))
    np.testing.assert_allclose(out, expected, rtol=0, atol=error)


def test_splines_are_polynomials_and_their_derivatives(rng):
    table, values, slopes = rng.normal(size=(vectors.SPLINE_ORDER, 16)), np.empty(16), np.empty(16)
    evaluate_splines(table.ravel(), 0, 0.3, values, slopes)
    powers = np.arange(vectors.SPLINE_ORDER)
    np.testing.assert_allclose(values, 0.3**powers @ table, atol=1e-14)
    np.testing.assert_allclose(slopes, (powers[1:] * 0.3 ** powers[:-1]) @ table[1:], atol=1e-14)


def test_harmonics_from_products_are_those_of_e3nn():
    direction = torch.nn.functional.normalize(torch.tensor([-0.2, 0.7, 0.4], dtype=torch.float64), dim=0)
    irreps = Irreps.spherical_harmonics(4)
    expected = spherical_harmonics(irreps, direction, normalize=True, normalization="component").numpy()
    y = np.zeros(irreps.dim)
    y[0], y[1:4] = 1, np.sqrt(3) * direction
    places, coefficients = harmonic_terms(4)
    for (total, first, second), coefficient in zip(places, coefficients, strict=True):
        y[total] += coefficient * y[first] * y[second]
    np.testing.assert_allclose(y, expected, atol=1e-12)
