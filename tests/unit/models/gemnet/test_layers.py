"""GemNet layers: initial weights and scaling factors that preserve the variance of features."""

import json

import pytest
import torch

from mdsim.errors import CheckpointError
from mdsim.models.gemnet.edges import Edges
from mdsim.models.gemnet.layers import AtomEmbedding, Dense, EdgeEmbedding, ResidualLayer, he_orthogonal_
from mdsim.models.gemnet.model import CircularProjection, GemNetT
from mdsim.models.gemnet.scaling import ScaleFactor, fitting, read_scale_factors, scale_factors, write_scale_factors
from mdsim.neighbors import neighbors
from mdsim.state import System


@pytest.mark.parametrize(("out", "fan_in"), [(64, 128), (128, 64), (32, 32)])
def test_initial_weights_have_the_variance_of_he(out, fan_in):
    torch.manual_seed(0)
    matrix = he_orthogonal_(torch.empty(out, fan_in, dtype=torch.float64))
    variance, mean = torch.var_mean(matrix, dim=1)
    torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-14)
    torch.testing.assert_close(variance, torch.full_like(variance, 1 / fan_in), rtol=1e-3, atol=0)


def test_initial_weights_are_nearly_orthogonal():
    """Rows of a normal matrix have cosines of about 1/√128 = 0.09 with each other."""
    torch.manual_seed(0)
    matrix = he_orthogonal_(torch.empty(64, 128))
    cosines = torch.nn.functional.cosine_similarity(matrix[:, None], matrix[None], dim=-1)
    cosines.fill_diagonal_(0.0)
    assert cosines.square().mean().sqrt() < 0.02


def test_layers_start_with_these_weights_and_keep_the_second_moment():
    torch.manual_seed(0)
    layer, x = Dense(128, 64), torch.randn(4000, 128)
    for weight in (layer.linear.weight, CircularProjection(7, 6, 16).weight.flatten(0, 1).T):
        torch.testing.assert_close(weight.var(dim=1) * weight.shape[1], torch.ones(len(weight)), rtol=2e-3, atol=0)
    with torch.no_grad():
        assert float(layer(x).square().mean()) == pytest.approx(1.0, abs=0.1)
        assert float(ResidualLayer(128)(x).square().mean()) == pytest.approx(1.0, abs=0.15)
        assert float(AtomEmbedding(512).embeddings.weight.var()) == pytest.approx(1.0, abs=0.02)


def test_an_edge_sees_its_sender_its_receiver_and_what_it_carries(generator):
    system, positions = _water(generator)
    edges = Edges.within(4.0, positions, neighbors(system, positions, 4.0))
    layer = EdgeEmbedding(5, 3, 7).double()
    h, m = (torch.randn(n, k, generator=generator).double() for n, k in ((edges.n_nodes, 5), (2 * edges.n_pairs, 3)))
    side_by_side = torch.cat([h[edges.senders], h[edges.receivers], m], dim=1)
    torch.testing.assert_close(layer(h, m, edges), layer.dense(side_by_side))


def test_a_factor_restores_the_variance_and_counts_repeated_rows(generator):
    factor = ScaleFactor()
    reference, x = 3.0 * torch.randn(50, 4, generator=generator), torch.randn(70, 6, generator=generator)
    counts = torch.randint(0, 4, (50,), generator=generator)
    assert torch.equal(factor(reference, x), x)  # until it is fitted
    factor.fitting = True
    out = factor(reference, x, counts)
    repeated = reference.repeat_interleave(counts, dim=0)
    torch.testing.assert_close(out.var(0).mean(), repeated.var(0).mean())


def test_nothing_that_comes_out_leaves_a_factor_alone(generator):
    factor = ScaleFactor()
    factor.fitting = True
    factor(torch.randn(5, 2, generator=generator), torch.zeros(5, 2))
    assert factor.scale_factor == 1.0


def _water(generator: torch.Generator) -> tuple[System, torch.Tensor]:
    """Two water molecules, three distorted copies."""
    one = torch.tensor([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]], dtype=torch.float64)
    two = torch.cat([one, one + torch.tensor([0.3, 0.4, 2.7])])
    positions = two + 0.05 * torch.randn(3, 6, 3, generator=generator, dtype=torch.float64)
    return System.from_geometry(torch.tensor([8, 1, 1] * 2), two, None, torch.float64), positions


@pytest.fixture
def model() -> GemNetT:
    torch.manual_seed(2)
    sizes = dict.fromkeys(("emb_size_atom", "emb_size_edge", "emb_size_trip", "emb_size_bil_trip"), 8)
    return GemNetT((1, 8), num_spherical=3, num_radial=4, num_blocks=2, cutoff=4.0, **sizes).double()


def test_fitting_a_model_keeps_every_variance(model, generator):
    """Downstream factors are fitted to what the upstream ones let through: fitted again, nothing changes."""
    system, positions = _water(generator)
    ratios = {}
    for name, factor in scale_factors(model).items():
        factor.register_forward_hook(lambda module, args, out, name=name: ratios.update({name: _ratio(args, out)}))
    model.fit_scale_factors(system, positions)
    fitted = {name: float(factor.scale_factor) for name, factor in scale_factors(model).items()}
    assert len(fitted) == 3 * 2 + 3 and all(value not in (0.0, 1.0) for value in fitted.values())
    assert ratios.keys() == fitted.keys()
    assert all(ratio == pytest.approx(1.0, rel=1e-6) for ratio in ratios.values())
    model.fit_scale_factors(system, positions)
    assert {n: float(f.scale_factor) for n, f in scale_factors(model).items()} == pytest.approx(fitted, rel=1e-6)


def _ratio(args: tuple, out: torch.Tensor) -> float:
    """Variance out over variance in, rows repeated as often as they count."""
    reference, _, counts = (*args, None)[:3]
    if counts is not None:
        reference = reference.repeat_interleave(counts, dim=0)
    return float(out.var(0).mean() / reference.var(0).mean())


def test_fitting_ends_also_when_it_fails(model):
    with pytest.raises(RuntimeError, match="stop"), fitting(model):
        raise RuntimeError("stop")
    assert not any(factor.fitting for factor in scale_factors(model).values())


def test_factors_go_through_json(model, generator, tmp_path):
    model.fit_scale_factors(*_water(generator))
    write_scale_factors(model, tmp_path / "factors.json")
    written = json.loads((tmp_path / "factors.json").read_text())
    of_block = {"TripInteraction_{}_had_rbf", "TripInteraction_{}_sum_cbf", "AtomUpdate_{}_sum"}
    outputs = {f"OutBlock_{number}_sum" for number in range(3)}
    assert written.keys() == {name.format(number) for name in of_block for number in (1, 2)} | outputs

    torch.manual_seed(3)
    other = GemNetT(**model.hyperparameters).double()
    read_scale_factors(other, tmp_path / "factors.json")
    for name, factor in scale_factors(other).items():
        assert torch.equal(factor.scale_factor, scale_factors(model)[name].scale_factor)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "cannot be read as JSON"),
        ("[1.0]", "holds a list"),
        ('{"OutBlock_0_sum": 1.5}', "lacks the scaling factors AtomUpdate_1_sum"),
    ],
)
def test_unusable_files_are_refused(model, text, message, tmp_path):
    (tmp_path / "factors.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        read_scale_factors(model, tmp_path / "factors.json")


@pytest.mark.parametrize("bad", [0.0, -1.0, "1.0", True, float("nan"), float("inf")])
def test_a_bad_factor_is_refused_and_changes_none(model, bad, tmp_path):
    values = dict.fromkeys(scale_factors(model), 2.0) | {"OutBlock_1_sum": bad}
    (tmp_path / "factors.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"OutBlock_1_sum is .* expected a positive number"):
        read_scale_factors(model, tmp_path / "factors.json")
    assert all(factor.scale_factor == 1.0 for factor in scale_factors(model).values())
