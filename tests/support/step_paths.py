"""Both ways of computing a step of an integrator, as a fixture to import."""

import pytest
import torch


@pytest.fixture(name="path", params=["compiled loops", "tensors"], autouse=True)
def step_path(request):
    """Runs every test of the module that imports it once for each way."""
    if request.param == "compiled loops":
        pytest.importorskip("numba")
    with torch.set_grad_enabled(request.param == "tensors"):
        yield request.param
