"""Convolutions as cuEquivariance's segmented polynomials equal the plain ones: its PyTorch method anywhere, its kernels
on a GPU."""

import copy
import sys

import pytest
import torch
from pretend_device import pretend_cuda

pytest.importorskip("cuequivariance_torch")

from mdsim.force_field import NoFastPath
from mdsim.models.nequip.fast.cuequivariance import CuequivarianceNequIP, SegmentedConvolution
from mdsim.models.nequip.model import NequIP


@pytest.fixture(scope="module", params=[(1, True), (2, False)])
def model(request) -> NequIP:
    l_max, parity = request.param
    torch.manual_seed(3)
    model = NequIP((1, 6, 8), l_max, parity, num_layers=3, num_features=8, radial_mlp_width=16)
    model.avg_num_neighbors.fill_(14.0)
    model.energy_scale.fill_(30.0)
    return model.eval()


def test_the_polynomials_are_the_convolutions(model, system, positions):
    precise, double = copy.deepcopy(model).double(), system.to(dtype=torch.float64)
    expected = precise.bind(double)(positions.double())
    found = CuequivarianceNequIP(precise, double, method="naive")(positions.double())
    for new, old in zip(found, expected, strict=True):
        torch.testing.assert_close(new, old, rtol=0, atol=1e-10)


def test_the_cpu_keeps_its_own_path(model, system):
    with pytest.raises(NoFastPath, match="need a GPU"):
        CuequivarianceNequIP(model, system)
    assert not isinstance(model.bind(system, fast=True), CuequivarianceNequIP)


def test_kernels_that_cannot_be_loaded_are_no_fast_path(model, system, monkeypatch):
    """As where the wheel is there, but for another CUDA: the log must not name kernels that do not run."""
    monkeypatch.setitem(sys.modules, "cuequivariance_ops_torch", None)
    with pretend_cuda():
        there = copy.deepcopy(model).to("cuda")
        with pytest.raises(NoFastPath, match=r"cuequivariance-ops-torch-cu13.* cannot be loaded"):
            there.fast_potential(system.to("cuda"))


def test_another_method_than_the_one_asked_for_is_refused(model):
    if torch.cuda.is_available():
        pytest.skip("the kernels may be there")
    with pytest.raises(NoFastPath, match="'naive' in place of 'uniform_1d'"):
        SegmentedConvolution(model.layers[0].convolution)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernels need a GPU")
def test_the_kernels_equal_the_plain_path(model, system, positions):
    pytest.importorskip("cuequivariance_ops_torch")
    there, on_gpu = copy.deepcopy(model).cuda(), system.to("cuda")
    assert isinstance(there.bind(on_gpu, fast=True), CuequivarianceNequIP)
    expected = there.bind(on_gpu)(positions.cuda())
    for new, old in zip(there.bind(on_gpu, fast=True)(positions.cuda()), expected, strict=True):
        torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-3)
