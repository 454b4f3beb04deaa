"""Pair convolution and its first, second and third derivatives, compiled and plain, compared with a dense sum."""

import pytest
import torch

from mdsim.compiled import pair_convolution
from mdsim.compiled.pair_convolution import convolve

N_NODES, N_CHANNELS = 7, 40


@pytest.fixture(params=[False, True], ids=["torch", "compiled"])
def path(request, monkeypatch) -> None:
    if request.param:
        pytest.importorskip("numba")
    monkeypatch.setattr(pair_convolution, "HAS_NUMBA", request.param)


@pytest.fixture
def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    """Some pairs twice, as two images are, and one atom with its own image."""
    first = torch.tensor([0, 0, 1, 2, 2, 5, 3, 6])
    second = torch.tensor([1, 4, 2, 3, 3, 6, 3, 0])
    return first, second


def dense(filters, features, first, second):
    table = torch.zeros(N_NODES, N_NODES, N_CHANNELS, dtype=filters.dtype)
    table = table.index_put((first, second), filters, accumulate=True)
    table = table.index_put((second, first), filters, accumulate=True)
    return torch.einsum("ijc,jc->ic", table, features)


def derivatives(function, filters, features, first, second) -> list[torch.Tensor]:
    """Of a nonlinear function of the result: of the first, second and third order."""
    inputs = (filters, features)
    value = function(filters, features, first, second)
    found, scalar = [value], value.sin().sum()
    for _ in range(3):
        gradients = torch.autograd.grad(scalar, inputs, create_graph=True)
        found += gradients
        scalar = sum(gradient.cos().sum() for gradient in gradients)
    return found


@pytest.mark.usefixtures("path")
def test_agrees_with_a_dense_sum_in_three_derivatives(pairs) -> None:
    generator = torch.Generator().manual_seed(0)
    filters = torch.randn(len(pairs[0]), N_CHANNELS, generator=generator, dtype=torch.float64, requires_grad=True)
    features = torch.randn(N_NODES, N_CHANNELS, generator=generator, dtype=torch.float64, requires_grad=True)
    sparse, reference = (derivatives(f, filters, features, *pairs) for f in (convolve, dense))
    for found, expected in zip(sparse, reference, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("path")
def test_transposed_inputs(pairs) -> None:
    filters = torch.rand(N_CHANNELS, len(pairs[0])).T
    features = torch.rand(N_CHANNELS, N_NODES).T
    torch.testing.assert_close(convolve(filters, features, *pairs), dense(filters, features, *pairs))


@pytest.mark.usefixtures("path")
def test_one_broken_atom_does_not_reach_atoms_that_are_not_its_neighbors(pairs) -> None:
    filters, features = torch.rand(len(pairs[0]), N_CHANNELS), torch.rand(N_NODES, N_CHANNELS)
    features[4] = torch.nan
    received = convolve(filters, features, *pairs)
    assert received[0].isnan().all()  # the only neighbor
    assert received[1:].isfinite().all()
