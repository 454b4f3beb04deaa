"""SPC/Fw water by a plain Ewald sum in double precision: an evaluation that shares nothing with OpenMM.

Parameters as printed by Wu, Tepper, Voth, J. Chem. Phys. 124, 024503 (2006); the sum as in Allen and Tildesley,
Computer Simulation of Liquids (2017), section 6.2.1.
"""

from __future__ import annotations

import math

import torch
from ase import units

KCAL_PER_MOL = units.kcal / units.mol
COULOMB_EV_A = units._e / (4e-10 * math.pi * units._eps0)  # e²/(4πε₀) = 14.3996 eV Å
WIDTH_PER_A = 0.6  # of the screening charges: erfc(0.6 · 12.4) is below 1e-25, so one shell of images is enough
LARGEST_WAVE_NUMBER = 20  # exp(-(k/2α)²) is 1e-31 there


def energy_and_forces(positions: torch.Tensor, box_A: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Energy in eV and forces in eV/Å of molecules O, H, H, O, H, H, ... in a cube."""
    positions = positions.double().detach().requires_grad_()
    energy = bonded(positions) + lennard_jones(positions[::3], box_A) + coulomb(positions, box_A)
    return energy.detach(), -torch.autograd.grad(energy, positions)[0]


def bonded(positions: torch.Tensor) -> torch.Tensor:
    arms = positions.reshape(-1, 3, 3)[:, 1:] - positions.reshape(-1, 3, 3)[:, :1]
    lengths = arms.norm(dim=-1)
    angle = torch.arccos((arms[:, 0] * arms[:, 1]).sum(-1) / lengths.prod(-1))
    stretching = 0.5 * 1059.162 * (lengths - 1.012).square().sum()
    bending = 0.5 * 75.90 * (angle - math.radians(113.24)).square().sum()
    return KCAL_PER_MOL * (stretching + bending)


def lennard_jones(oxygens: torch.Tensor, box_A: float) -> torch.Tensor:
    """Switched off from 5 to 6 Å by 1 - 10 x³ + 15 x⁴ - 6 x⁵."""
    first, second = torch.triu_indices(len(oxygens), len(oxygens), 1)
    vectors = oxygens[first] - oxygens[second]
    distances = (vectors - box_A * torch.round(vectors / box_A)).norm(dim=-1)
    sixth = (3.165492 / distances) ** 6
    x = (distances - 5.0).clamp(0.0, 1.0)
    return (4 * 0.1554253 * KCAL_PER_MOL * (sixth**2 - sixth) * (1 - 10 * x**3 + 15 * x**4 - 6 * x**5)).sum()


def coulomb(positions: torch.Tensor, box_A: float) -> torch.Tensor:
    charges = torch.tensor([-0.82, 0.41, 0.41], dtype=torch.float64).repeat(len(positions) // 3)
    products = charges[:, None] * charges
    own = torch.eye(len(positions), dtype=torch.bool)
    differences = positions[:, None] - positions
    real = positions.new_zeros(())
    for image in torch.cartesian_prod(*[torch.arange(-1.0, 2.0, dtype=torch.float64)] * 3):
        wrapped = differences - box_A * torch.round(differences.detach() / box_A)
        vectors = wrapped + box_A * image + (own[..., None] if not image.any() else 0.0)
        distances = vectors.norm(dim=-1)
        screened = torch.erfc(WIDTH_PER_A * distances) / distances
        real = real + 0.5 * (products * torch.where(own & (not image.any()), 0.0, screened)).sum()
    self_energy = -WIDTH_PER_A / math.sqrt(math.pi) * charges.square().sum()
    return COULOMB_EV_A * (real + _reciprocal(positions, charges, box_A) + self_energy - _within_molecules(positions))


def _reciprocal(positions: torch.Tensor, charges: torch.Tensor, box_A: float) -> torch.Tensor:
    numbers = torch.arange(-LARGEST_WAVE_NUMBER, LARGEST_WAVE_NUMBER + 1.0, dtype=torch.float64)
    waves = 2 * math.pi / box_A * torch.cartesian_prod(numbers, numbers, numbers)
    squared = waves.square().sum(-1)
    waves, squared = waves[squared > 0], squared[squared > 0]
    phases = positions @ waves.T
    density = (charges @ phases.cos()) ** 2 + (charges @ phases.sin()) ** 2
    weights = torch.exp(-squared / (4 * WIDTH_PER_A**2)) / squared
    return 2 * math.pi / box_A**3 * (weights * density).sum()


def _within_molecules(positions: torch.Tensor) -> torch.Tensor:
    """What the sum holds of the pairs within a molecule, which do not interact: whole charges over distance."""
    molecules = positions.reshape(-1, 3, 3)
    total = positions.new_zeros(())
    for first, second, product in ((0, 1, -0.82 * 0.41), (0, 2, -0.82 * 0.41), (1, 2, 0.41**2)):
        total = total + product * (1 / (molecules[:, first] - molecules[:, second]).norm(dim=-1)).sum()
    return total
