"""NequIP layers compared with the e3nn modules that share their weights and normalization."""

import pytest
import torch
from e3nn import nn as e3nn_nn
from e3nn import o3

from mdsim.models.nequip.layers import SCALAR, Convolution, EdgeFeatures, Gate, Linear, RadialNetwork, SelfConnection

CLOSE = {"rtol": 1e-10, "atol": 1e-10}
N, C = 7, 3
HIDDEN = [o3.Irrep(name) for name in ("0e", "0o", "1o", "1e", "2e", "2o")]
HARMONICS = [o3.Irrep(name) for name in ("0e", "1o", "2e")]


@pytest.fixture(autouse=True)
def double_precision():
    torch.manual_seed(5)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def _features(irreps, channels) -> dict:
    return {ir: torch.randn(N, ir.dim, channels) for ir in irreps}


def _flat(features: dict) -> torch.Tensor:
    """e3nn's layout: irreps one after the other, each channel by channel."""
    return torch.cat([value.transpose(1, 2).flatten(1) for value in features.values()], dim=1)


def _irreps(channels: dict) -> o3.Irreps:
    return o3.Irreps([(n, ir) for ir, n in channels.items()])


def _set_weights(module, linear) -> None:
    for _, path, view in module.weight_views(yield_instruction=True):
        view.data.copy_(linear.weights[str(module.irreps_out[path.i_out].ir)].reshape(view.shape))


def test_linear():
    channels_in, channels_out = dict.fromkeys(HIDDEN, C), {SCALAR: 5, HIDDEN[2]: 2}
    ours = Linear(channels_in, channels_out)
    theirs = o3.Linear(_irreps(channels_in), _irreps(channels_out))
    _set_weights(theirs, ours)
    features = _features(HIDDEN, C)
    torch.testing.assert_close(_flat(ours(features)), theirs(_flat(features)), **CLOSE)


def test_self_connection():
    channels_in, channels_out = dict.fromkeys(HIDDEN[:4], C), {SCALAR: 4, HIDDEN[3]: C}
    ours = SelfConnection(channels_in, channels_out, n_species=4)
    theirs = o3.FullyConnectedTensorProduct(_irreps(channels_in), "4x0e", _irreps(channels_out))
    _set_weights(theirs, ours.linear)
    features = _features(HIDDEN[:4], C)
    species = torch.nn.functional.one_hot(torch.arange(N) % 4).double()
    torch.testing.assert_close(_flat(ours(features, species)), theirs(_flat(features), species), **CLOSE)


def test_radial_network():
    ours = RadialNetwork([8, 5, 6, 9])
    theirs = e3nn_nn.FullyConnectedNet([8, 5, 6, 9], torch.nn.functional.silu)
    for layer, weight in zip(theirs.children(), ours.weights, strict=True):
        layer.weight.data.copy_(weight)
    basis = torch.randn(N, 8)
    torch.testing.assert_close(ours(basis), theirs(basis), **CLOSE)


def test_gate():
    ours = Gate(HIDDEN, C)
    scalars, gated = _irreps(dict.fromkeys(HIDDEN[:2], C)), _irreps(dict.fromkeys(HIDDEN[2:], C))
    silu, tanh = torch.nn.functional.silu, torch.tanh
    theirs = e3nn_nn.Gate(scalars, [silu, tanh], f"{C}x0e+" * 3 + f"{C}x0e", [silu] * 4, gated)
    features = {ir: torch.randn(N, ir.dim, n) for ir, n in ours.channels_in.items()}
    order = [block.ir for block in theirs.irreps_in.simplify()]
    assert sorted(order) == sorted(features)
    expected = theirs(_flat({ir: features[ir] for ir in order}))
    torch.testing.assert_close(_flat(ours(features)), expected, **CLOSE)


@pytest.mark.parametrize("irreps_in", [HIDDEN[:1], HIDDEN])
def test_convolution(irreps_in):
    ours = Convolution(irreps_in, HARMONICS, HIDDEN, C, [8, 6]).double()
    place = {ir: number for number, ir in enumerate(irreps_in)}
    instructions = [
        (place[path.ir_in], HARMONICS.index(path.ir_harmonic), number, "uvu", True)
        for number, path in enumerate(ours.paths)
    ]
    theirs = o3.TensorProduct(
        _irreps(dict.fromkeys(irreps_in, C)),
        o3.Irreps(HARMONICS),
        o3.Irreps([(C, path.ir_out) for path in ours.paths]),
        instructions,
        shared_weights=False,
        internal_weights=False,
    )
    features, basis = _features(irreps_in, C), torch.randn(11, 8)
    first, second = torch.randint(N, (2, 11))
    vectors = torch.randn(11, 3)
    vectors = torch.cat([vectors, -vectors])
    receivers, senders = torch.cat([first, second]), torch.cat([second, first])
    flat = o3.spherical_harmonics(o3.Irreps(HARMONICS), vectors, normalize=True, normalization="component")
    harmonics = dict(zip(HARMONICS, flat.split([ir.dim for ir in HARMONICS], dim=1), strict=True))
    weights = ours.radial_network(basis).repeat(2, 1)
    messages = theirs(_flat(features)[senders], flat, weights)
    expected = torch.zeros(N, messages.shape[1]).index_add(0, receivers, messages)
    blocks = expected.split([C * path.ir_out.dim for path in ours.paths], dim=1)

    received = ours(features, EdgeFeatures(receivers, senders, harmonics, basis))
    assert list(received) == [ir for ir in HIDDEN if any(path.ir_out == ir for path in ours.paths)]
    for ir, value in received.items():
        parts = [b.unflatten(1, (C, ir.dim)) for b, p in zip(blocks, ours.paths, strict=True) if p.ir_out == ir]
        torch.testing.assert_close(value, torch.cat(parts, dim=1).transpose(1, 2), **CLOSE)
