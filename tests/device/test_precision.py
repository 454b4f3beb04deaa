"""Energies under autocast, as in a fit with `amp`: in the precision of the positions, with the error of bfloat16."""

import pytest
import torch
from both_devices import same_on_both
from device_work import MODELS
from force_fields import build
from tiny import frames, water

from mdsim.neighbors import neighbors


@pytest.mark.parametrize("model", MODELS)
def test_energies_under_autocast_keep_the_precision_of_the_positions(model):
    force_field, system, positions = build(MODELS[model]).float(), water(torch.float32), frames(5).positions
    expected, _ = force_field(system, positions, create_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        pairs = neighbors(system, positions, force_field.cutoff)
        atomic = force_field.atomic_energies(system, positions, pairs)
        energy, forces = force_field(system, positions, create_graph=True)
    assert atomic.dtype == energy.dtype == forces.dtype == torch.float32
    assert float((energy - expected).detach().abs().max()) < 0.06 * float(expected.detach().abs().max())
    assert not torch.equal(atomic, atomic.bfloat16().float())


@pytest.mark.parametrize("model", MODELS)
def test_autocast_on_a_gpu(model):
    def energies(device):
        force_field, system = build(MODELS[model]).float().to(device), water(torch.float32).to(device)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            energy, _ = force_field(system, frames(3).positions.to(device), create_graph=True)
        return energy.detach()

    same_on_both(energies, rtol=0.05, atol=0.05)
