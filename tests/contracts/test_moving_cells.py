"""Contract of all force fields in moving cells: the results of each replica are those of its own cell."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from force_fields import PARAMETERS, build

from mdsim.force_field import NoFastPath
from mdsim.moving_cells import SMALLEST_VOLUME, bind_in_cells
from mdsim.state import System
from mdsim.stress import energy_forces_stress

N_REPLICAS = 3


@pytest.fixture(params=PARAMETERS)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def crystals() -> tuple[System, torch.Tensor, torch.Tensor]:
    """Six atoms in triclinic cells narrower than the cutoff, each replica with its own strain."""
    random = torch.Generator().manual_seed(4)
    cell = torch.tensor([[3.9, 0.0, 0.0], [1.2, 3.7, 0.0], [-0.8, 0.9, 3.6]], dtype=torch.float64)
    fractional = torch.cartesian_prod(torch.arange(3) / 3, torch.arange(2) / 2, torch.zeros(1)).double()
    numbers = torch.tensor([6, 1, 8, 7, 1, 6])
    system = System.from_geometry(numbers, fractional @ cell, cell, dtype=torch.float64)
    cells = cell @ (torch.eye(3) + 0.03 * torch.randn(N_REPLICAS, 3, 3, generator=random, dtype=torch.float64))
    rattled = 0.1 * torch.randn(N_REPLICAS, 6, 3, generator=random, dtype=torch.float64)
    return system, fractional @ cells + rattled, cells


def one_by_one(force_field, system, positions, cells):
    found = [
        energy_forces_stress(force_field, replace(system, cell=cell), positions[replica : replica + 1])
        for replica, cell in enumerate(cells)
    ]
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


def test_results_are_those_of_each_cell(name, crystals):
    system, positions, cells = crystals
    force_field = build(name)
    expected = one_by_one(force_field, system, positions, cells)
    assert expected[2].abs().amax() > 1e-3, "nothing was tested"
    for found, value in zip(bind_in_cells(force_field, system)(positions, cells), expected, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-8, atol=1e-10)


def test_the_fast_path_has_the_same_stress(name, crystals):
    system, positions, cells = (part.to(dtype=torch.float32) for part in crystals)
    force_field = build(name).float()
    try:
        force_field.fast_potential(system)
    except NoFastPath as reason:
        pytest.skip(str(reason))
    expected = bind_in_cells(force_field, system)(positions, cells)
    found = bind_in_cells(force_field, system, fast=True)(positions, cells)
    for value, same in zip(found, expected, strict=True):
        torch.testing.assert_close(value, same, rtol=1e-3, atol=2e-5 * float(same.abs().max()))


def test_a_differentiable_potential_keeps_the_graph(name, crystals):
    system, positions, cells = crystals
    energy, forces, stress = bind_in_cells(build(name), system, differentiable=True)(positions, cells)
    assert energy.requires_grad
    assert forces.requires_grad
    assert stress.requires_grad


def test_a_lost_cell_is_data_and_changes_no_other_replica(name, crystals):
    system, positions, cells = crystals
    potential = bind_in_cells(build(name), system)
    before = potential(positions, cells)
    broken, lost = cells.clone(), positions.clone()
    broken[1] *= 0.9 * SMALLEST_VOLUME ** (1 / 3)
    energy, forces, stress = potential(lost, broken)
    for found, value in zip((energy, forces, stress), before, strict=True):
        assert found[1].isnan().all()
        torch.testing.assert_close(found[[0, 2]], value[[0, 2]], rtol=1e-12, atol=1e-12)


def test_open_boundaries_are_refused(name, crystals):
    system, _, _ = crystals
    with pytest.raises(ValueError, match="open boundaries"):
        bind_in_cells(build(name), replace(system, cell=None))
