"""Forces compared with minus the gradient of the energy, by finite differences.

Along random directions d of all coordinates the slope of the energy must be -F·d. If it is proportional to that
instead, energies and forces have different units. Forces that are no gradient of any energy have a Jacobian that is not
symmetric: u·J v differs from v·J u. Such forces do work on closed paths, which heats or cools constant-energy dynamics.

Slopes are central differences with two steps, extrapolated (Richardson), so their error is of fourth order.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from mdsim.datasets.sources.raw import ENERGY_UNITS_EV
from mdsim.interfaces import Potential
from mdsim.stress_test.findings import Finding, Level
from mdsim.typing import Float, Tensor

N_DIRECTIONS = 6
DISPLACEMENT_A = 0.05  # rms of the random displacements of the structures, so that forces are not zero
STEP_A, LARGEST_STEP_A = 1e-3, 2e-2  # rms per coordinate
NOTICEABLE, SEVERE = 2e-3, 2e-2  # error of slopes, or asymmetry of the Jacobian, relative to their size
ASYMMETRIC = 3e-4  # asymmetry that explains an error of slopes: stiff bonds hide it among the second derivatives
NO_GRADIENT = "not the gradient of any energy"
DIFFERENT_UNITS = "different units"
SAME_UNIT = 0.03  # largest deviation of a ratio of units


@dataclass(frozen=True)
class ForceErrors:
    """Errors relative to the root mean square of the slopes, and of the second derivatives."""

    slope_error: float
    slope_error_from_rounding: float
    asymmetry: float
    asymmetry_from_rounding: float
    energy_per_force: float  # factor that makes the energies fit the forces best; 1 if they have one unit
    error_after_scaling: float
    slope_rms_eV_per_A: float
    step_A: float


def force_errors(
    potential: Potential,
    structures: Float[Tensor, "structure atom 3"],
    noise_eV: float,
    generator: torch.Generator,
    n_directions: int = N_DIRECTIONS,
) -> ForceErrors:
    """Compare forces and energies along random directions at several structures.

    Args:
        potential: energies (eV) and forces (eV/Å), in double precision if possible.
        structures: Å, not at a minimum.
        noise_eV: rounding noise of the energies.
        generator: source of the directions.
        n_directions: directions per structure.
    """
    n_structures, n_atoms, _ = structures.shape
    step = min(LARGEST_STEP_A, max(STEP_A, (noise_eV / n_atoms) ** (1 / 3)))
    shape = (n_structures, n_directions, n_atoms, 3)
    directions = torch.randn(shape, generator=generator, dtype=structures.dtype)
    offsets = torch.tensor([step, -step, step / 2, -step / 2], dtype=structures.dtype)
    moved = structures[:, None, None] + offsets[:, None, None] * directions[:, :, None]
    energy, forces = potential(moved.flatten(0, 2))
    energy = energy.double().unflatten(0, (*shape[:2], 4))
    forces = forces.double().unflatten(0, (*shape[:2], 4))
    _, here = potential(structures)
    slopes = _extrapolated(energy, step)
    predicted = -(here.double()[:, None] * directions).sum((-2, -1))
    size = float(predicted.square().mean().sqrt())
    factor = float((slopes * predicted).sum() / predicted.square().sum())
    return ForceErrors(
        slope_error=_rms(slopes - predicted) / size,
        slope_error_from_rounding=3 * noise_eV / step / size,
        **_asymmetry(forces, directions, step, noise_eV),
        energy_per_force=factor,
        error_after_scaling=_rms(slopes - factor * predicted) / max(abs(factor) * size, 1e-300),
        slope_rms_eV_per_A=size,
        step_A=step,
    )


def judge(errors: ForceErrors) -> Finding:
    """The finding on the forces."""
    values = asdict(errors)
    factor = abs(errors.energy_per_force)
    mismatch = abs(factor - 1) > SAME_UNIT and errors.error_after_scaling < SEVERE
    unresolved = errors.slope_error_from_rounding
    if any(value != value for value in values.values()):
        return Finding("forces", "fail", "energies or forces are not numbers next to the structure", values)
    wrong = errors.slope_error > max(NOTICEABLE, 3 * unresolved)
    asymmetric = errors.asymmetry > max(ASYMMETRIC, 10 * errors.asymmetry_from_rounding)
    if asymmetric and (wrong or errors.asymmetry > NOTICEABLE):
        level: Level = "fail" if max(errors.asymmetry, errors.slope_error) > SEVERE else "warn"
        text = (
            f"forces are {NO_GRADIENT}: their Jacobian is asymmetric by {errors.asymmetry:.2%}, and "
            f"they differ from minus the gradient of the energy by {errors.slope_error:.1%}"
        )
        return Finding("forces", level, text, values)
    if errors.energy_per_force < 0 and errors.error_after_scaling < SEVERE:
        return Finding("forces", "fail", "forces have the wrong sign: they are the gradient of the energy", values)
    if mismatch:
        return Finding("forces", "fail", _scaled(factor), values)
    if wrong:
        level = "fail" if errors.slope_error > SEVERE else "warn"
        text = f"forces differ from minus the gradient of the energy by {errors.slope_error:.1%}"
        return Finding("forces", level, text, values)
    limit = f" (rounding of the energies hides less than {unresolved:.1%})" if unresolved > NOTICEABLE else ""
    text = f"forces are minus the gradient of the energy within {errors.slope_error:.1e}{limit}"
    return Finding("forces", "pass", text, values)


def _scaled(factor: float) -> str:
    """What a ratio of energies to forces means: two units, or an error in the code."""
    ratios = {
        f"energies in {one}, forces in {other}/angstrom": b / a
        for one, a in ENERGY_UNITS_EV.items()
        for other, b in ENERGY_UNITS_EV.items()
        if one != other and "eV" in (one, other)
    }
    name, ratio = min(ratios.items(), key=lambda item: abs(item[1] / factor - 1))
    size = f"slopes of the energy are {factor:.4g} times the forces"
    if abs(ratio / factor - 1) < SAME_UNIT:
        return f"energies and forces have {DIFFERENT_UNITS}: {size}, as with {name}"
    return f"energies and forces differ by a constant factor that no unit explains: {size}"


def _asymmetry(
    forces: Float[Tensor, "structure direction 4 atom 3"],
    directions: Float[Tensor, "structure direction atom 3"],
    step: float,
    noise_eV: float,
) -> dict[str, float]:
    """Antisymmetric part of the Jacobian among the directions, relative to all of it."""
    change = _extrapolated(forces, step)  # J d
    products = torch.einsum("suai,svai->suv", directions, change)
    size = max(_rms(products), 1e-300)
    error = _extrapolated(forces, step) - _difference(forces[:, :, 2:], step / 2)  # of the coarser differences
    resolved = _rms(torch.einsum("suai,svai->suv", directions, error))
    antisymmetric = products - products.transpose(1, 2)
    return {
        "asymmetry": _rms(antisymmetric) / 2 / size,
        "asymmetry_from_rounding": (0.1 * resolved + noise_eV / step**2 * 1e-3) / size,
    }


def _extrapolated(values: Tensor, step: float) -> Tensor:
    """Derivative from values at +h, -h, +h/2 and -h/2 along the third axis."""
    return (4 * _difference(values[:, :, 2:], step / 2) - _difference(values[:, :, :2], step)) / 3


def _difference(values: Tensor, step: float) -> Tensor:
    return (values[:, :, 0] - values[:, :, 1]) / (2 * step)


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())
