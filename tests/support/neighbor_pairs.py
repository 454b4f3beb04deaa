"""Pairs of neighbors in a form that can be compared, and those that ASE finds."""

from __future__ import annotations

import numpy as np
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list

from mdsim.neighbors import Neighbors
from mdsim.state import System


def atoms_in(cell=None, n_atoms: int = 1) -> System:
    """Carbon atoms without bonds."""
    positions = 20.0 * torch.arange(3 * n_atoms, dtype=torch.float64).reshape(n_atoms, 3)
    cell = None if cell is None else torch.as_tensor(cell, dtype=torch.float64)
    return System.from_geometry(torch.full((n_atoms,), 6), positions, cell, dtype=torch.float64)


def random_positions(system: System, n_replicas: int, generator: torch.Generator, box: float = 8.0) -> torch.Tensor:
    """Evenly spread over the cell, or over a cube."""
    fractional = torch.rand(n_replicas, system.n_atoms, 3, generator=generator, dtype=torch.float64)
    return fractional * box if system.cell is None else fractional @ system.cell


def directed_edges(found: Neighbors, positions: torch.Tensor, replica: int) -> np.ndarray:
    """Directed edges (i, j, vector) of one replica, sorted."""
    n_atoms = positions.shape[1]
    chosen = torch.div(found.first, n_atoms, rounding_mode="floor") == replica
    assert torch.equal(chosen, torch.div(found.second, n_atoms, rounding_mode="floor") == replica)
    first, second = found.first[chosen] % n_atoms, found.second[chosen] % n_atoms
    vectors = found.displacements(positions)[chosen]
    forward = torch.cat([first[:, None], second[:, None], vectors], dim=1)
    backward = torch.cat([second[:, None], first[:, None], -vectors], dim=1)
    return _sorted(torch.cat([forward, backward]).numpy())


def edges_by_ase(system: System, positions: torch.Tensor, cutoff: float) -> np.ndarray:
    """The same from ASE's neighbor list."""
    cell = None if system.cell is None else system.cell.numpy()
    atoms = Atoms(system.atomic_numbers.numpy(), positions.numpy(), cell=cell, pbc=cell is not None)
    first, second, vectors = neighbor_list("ijD", atoms, cutoff)
    return _sorted(np.column_stack([first, second, vectors]))


def assert_equals_ase(found: Neighbors, system: System, positions: torch.Tensor, cutoff: float) -> None:
    """Every replica has exactly the pairs that ASE finds, and they are sorted by first atom."""
    assert (found.first.diff() >= 0).all()
    for replica in range(len(positions)):
        expected = edges_by_ase(system, positions[replica], cutoff)
        edges = directed_edges(found, positions, replica)
        assert edges.shape == expected.shape
        np.testing.assert_allclose(edges, expected, atol=1e-9)


def _sorted(rows: np.ndarray) -> np.ndarray:
    return rows[np.lexsort(np.round(rows, 5).T[::-1])]
