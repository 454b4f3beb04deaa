"""Checks of labels: energies inconsistent with the forces, and forces inconsistent with the temperature."""

from __future__ import annotations

import math

import numpy as np
import torch

from mdsim.datasets.consistency import Comparison, compare
from mdsim.datasets.npz import Frames
from mdsim.datasets.sources.raw import COMMON, ENERGY_UNITS_EV, FORCE_UNITS_EV_PER_A
from mdsim.geometry import minimum_image
from mdsim.typing import Float, Tensor
from mdsim.units import KB_EV_PER_K

# Real data (random and ordered DFT frames of molecules and of water, 8 to 2000 of them) have slopes of 0.6 to 1.05,
# slopes over squared correlations of 0.9 to 1.3, and correlations above 0.8 where triangles close within MOST_NOISE.
MOST_NOISE = 0.5
STEEPEST, FLATTEST = 1.4, 0.65
WEAKEST_CORRELATION = 0.5
#: Noise above which only a larger error of the slope counts, because few frames give little evidence.
CLEAR_NOISE = 0.42
LARGEST_ROUNDING = 0.3  # rounding of the energies, relative to their differences
CLOSE = 1.3  # largest factor between a slope and the unit error that explains it
HINTS = 3  # largest number of explanations in a message
TEMPERATURE_FACTOR = 5.0  # wrong units give a larger factor; short stretches and few frames a smaller one
MOST_DIFFUSION = 0.15  # displacement over distance, for an atom that vibrates about a fixed position
FEWEST_FRAMES_FOR_TEMPERATURE = 10


def mismatch(frames: Frames, energy_unit: str = "eV", force_unit: str | None = "eV/angstrom") -> str | None:
    """A sentence on energies inconsistent with the forces. None if they are consistent, or if this is unknown.

    Args:
        frames: with forces, in eV and Å.
        energy_unit, force_unit: assumed units, for hints. None if the unit of the forces is certain.
    """
    if frames.forces is None or len(frames) < 2 or float(frames.forces.abs().max()) == 0:
        return None
    energy = frames.energy.double()
    moved = float((frames.positions - frames.positions[0]).abs().max()) > 0
    if moved and float(energy.max() - energy.min()) <= 1e-12 * float(energy.abs().max()):
        return f"all {len(frames)} frames have the same energy, {float(energy[0]) + 0.0:.6g} eV, though forces act"
    found = compare(frames)
    if found is None or not _can_tell(found, energy):
        return None
    slope, correlation = found.slope, found.correlation
    if correlation < WEAKEST_CORRELATION and found.noise < CLEAR_NOISE:
        return (
            f"energy differences of similar frames do not follow the work of the forces (correlation {correlation:.2f},"
            " 1 if they belong together): energies of other frames, or of another method"
        )
    steepest, flattest = slope, slope / correlation**2 if correlation > 0 else math.inf
    if steepest <= STEEPEST and flattest >= FLATTEST:
        return None
    best = (slope / correlation) if correlation > 0 else slope
    hint = _hint(best, len(frames.atomic_numbers), energy_unit, force_unit)
    return f"energy differences of similar frames are {best:.3g} times the work of the forces{hint}"


def _can_tell(found: Comparison, energy: Float[Tensor, "frame"]) -> bool:
    """Whether triangles close, and energies have enough digits."""
    if not found.noise < MOST_NOISE:
        return False
    spread = float(found.work.square().mean().sqrt())
    return _rounding(energy) < LARGEST_ROUNDING * spread


def _rounding(energy: Float[Tensor, "frame"]) -> float:
    """The resolution of the energies, limited by single precision or by the number of decimals."""
    values = energy.numpy()
    if np.array_equal(values.astype(np.float32).astype(np.float64), values):
        return float(np.spacing(np.abs(values.astype(np.float32)).max()))
    steps = (10.0**-digits for digits in range(5))
    return next((step for step in steps if np.allclose(values, np.round(values / step) * step, rtol=0, atol=1e-9)), 0.0)


def _hint(ratio: float, n_atoms: int, energy_unit: str, force_unit: str | None) -> str:
    """Units that would explain a ratio of energy differences to work."""
    if ratio <= 0:
        return ": one of them has the wrong sign"
    energy = ENERGY_UNITS_EV[energy_unit]
    known = {f"energies per atom (1/{n_atoms})": 1 / n_atoms}
    known |= {f"--energy-unit {name}": energy / value for name, value in ENERGY_UNITS_EV.items()}
    if force_unit is not None:
        now = FORCE_UNITS_EV_PER_A[force_unit]
        pairs = {f"--energy-unit {COMMON[name]} --force-unit {name}": (COMMON[name], name) for name in COMMON}
        known |= {
            text: energy / ENERGY_UNITS_EV[of_energy] * FORCE_UNITS_EV_PER_A[of_forces] / now
            for text, (of_energy, of_forces) in pairs.items()
        }
        known |= {f"--force-unit {name}": value / now for name, value in FORCE_UNITS_EV_PER_A.items()}
    distances = {text: round(abs(math.log(ratio / value)), 2) for text, value in known.items()}
    near = sorted((text for text in distances if distances[text] < math.log(CLOSE)), key=distances.__getitem__)
    return f"; what would explain it: {', or '.join(near[:HINTS])}" if near else ""


def stiffness_temperature_K(frames: Frames) -> float | None:
    """The temperature from forces F and displacements u of vibrating atoms, -<F·u> / f k.

    It follows from the virial theorem and is exact for any potential in which atoms vibrate about fixed positions.

    Returns:
        Temperature in K. None with few frames, without forces, or if atoms diffuse.
    """
    n_frames, n_atoms = frames.positions.shape[:2]
    if frames.forces is None or n_frames < FEWEST_FRAMES_FOR_TEMPERATURE or n_atoms < 2:
        return None
    positions, forces = frames.positions.double(), frames.forces.double()
    cell = None if frames.cell is None else frames.cell.double()
    if cell is None:
        positions, forces = _turned(positions, forces)
        free = 3 * n_atoms - (5 if n_atoms == 2 else 6)
    else:
        positions = positions[0] + minimum_image(positions - positions[0], cell)
        positions = positions - (positions - positions[0]).mean(1, keepdim=True)
        free = 3 * n_atoms - 3
    moved = positions - positions.mean(0)
    first = positions[0] - positions[0, :1]
    nearest = float(minimum_image(first[1:], cell).norm(dim=-1).min())
    if float(moved.square().sum(-1).mean().sqrt()) > MOST_DIFFUSION * nearest:
        return None
    virial = -(forces * moved).sum((1, 2)).mean() * n_frames / (n_frames - 1)
    return float(virial) / (free * KB_EV_PER_K)


def _turned(
    positions: Float[Tensor, "frame atom 3"], forces: Float[Tensor, "frame atom 3"]
) -> tuple[Float[Tensor, "frame atom 3"], Float[Tensor, "frame atom 3"]]:
    """Frames translated and rotated onto the first one (Kabsch)."""
    centered = positions - positions.mean(1, keepdim=True)
    left, _, right = torch.linalg.svd(centered.transpose(1, 2) @ centered[0])
    left = torch.cat([left[..., :2], left[..., 2:] * torch.det(left @ right)[:, None, None].sign()], dim=-1)
    turn = left @ right
    return centered @ turn, forces @ turn
