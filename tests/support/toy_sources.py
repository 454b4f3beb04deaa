"""Small files in the formats of the published collections: molecules held by springs, with thermal motion."""

from __future__ import annotations

import io

import numpy as np
from ase.build import molecule
from ase.data import atomic_masses

from mdsim.units import FS, KB_EV_PER_K, KCAL_PER_MOL

SPRING_EV_PER_A2 = 30.0
DEEP_EV = -4215.0  # of ethanol, all electrons


def springs(positions: np.ndarray, pairs: np.ndarray, rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energy (frame) and forces (frame, atom, 3) of springs between pairs of atoms."""
    arms = positions[:, pairs[:, 1]] - positions[:, pairs[:, 0]]
    lengths = np.linalg.norm(arms, axis=-1)
    pull = (-SPRING_EV_PER_A2 * (lengths - rest) / lengths)[..., None] * arms
    forces = np.zeros_like(positions)
    np.add.at(forces, (slice(None), pairs[:, 1]), pull)
    np.add.at(forces, (slice(None), pairs[:, 0]), -pull)
    return 0.5 * SPRING_EV_PER_A2 * np.square(lengths - rest).sum(1), forces


def ethanol(n_frames: int, interval_fs: float = 0.5, seed: int = 0) -> dict[str, np.ndarray]:
    """Velocity Verlet at constant energy, near 500 K, as an archive of sGDML: z, R, E, F in kcal/mol and Å."""
    atoms = molecule("CH3CH2OH")
    distances = atoms.get_all_distances()
    pairs = np.argwhere(np.triu((distances < 2.6) & (distances > 0.1)))  # bonds, and what keeps the angles
    rest = distances[pairs[:, 0], pairs[:, 1]]
    masses = atomic_masses[atoms.numbers][:, None]
    rng = np.random.default_rng(seed)
    velocities = np.sqrt(2 * 500 * KB_EV_PER_K / masses) * rng.standard_normal((9, 3))
    velocities -= (masses * velocities).sum(0) / masses.sum()
    positions, step = atoms.positions[None], interval_fs * FS
    _, forces = springs(positions, pairs, rest)
    kept = []
    for _ in range(n_frames):
        velocities = velocities + 0.5 * step * forces[0] / masses
        positions = positions + step * velocities
        _, forces = springs(positions, pairs, rest)
        velocities = velocities + 0.5 * step * forces[0] / masses
        kept.append(positions[0])
    R = np.stack(kept)
    E, F = springs(R, pairs, rest)
    return {
        "z": atoms.numbers.astype(np.uint8),
        "R": R,
        "E": (E + DEEP_EV)[:, None] / KCAL_PER_MOL,
        "F": F / KCAL_PER_MOL,
    }


def archive(arrays: dict[str, np.ndarray]) -> bytes:
    """An npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def water(n_frames: int, n_molecules: int = 64, seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays as in `water.npy`: molecules that vibrate and drift slowly, velocities of 300 K; kcal/mol, Å, fs."""
    side = round(n_molecules ** (1 / 3))
    length = 12.42 * side / 4
    rng = np.random.default_rng(seed)
    one = np.array([[0.0, 0, 0], [0.98, 0, 0], [-0.25, 0.948, 0]])
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3), -1).reshape(-1, 3) * length / side
    rest = (grid[:, None] + one).reshape(-1, 3)
    drift = np.repeat(0.01 * rng.standard_normal((n_molecules, 3)), 3, axis=0) * np.arange(n_frames)[:, None, None]
    positions = rest + drift + 0.03 * rng.standard_normal((n_frames, 3 * n_molecules, 3))
    oxygens = 3 * np.arange(n_molecules)
    pairs = np.concatenate([np.stack([oxygens, oxygens + i], 1) for i in (1, 2)])
    energy, forces = springs(positions, pairs, np.full(len(pairs), np.linalg.norm(one[1])))
    types = np.tile([8, 1, 1], n_molecules)
    thermal = np.sqrt(300 * KB_EV_PER_K / atomic_masses[types])[:, None]
    velocities = thermal * rng.standard_normal(positions.shape)
    return {
        "wrapped_coords": positions % length,
        "unwrapped_coords": positions,
        "velocities": velocities * FS,
        "forces": forces / KCAL_PER_MOL,
        "energy": energy / KCAL_PER_MOL,
        "atom_types": types,
        "lengths": np.full(3, length),
        "angles": np.full(3, 90.0),
    }
