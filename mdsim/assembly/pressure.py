"""Pressure and bulk modulus of an evaluation."""

from __future__ import annotations

from functools import partial

import torch

from mdsim.assembly.references import check_names
from mdsim.assembly.state_points import Point
from mdsim.config.schema import PRESSURE_CONFIGS, PressureConfig, SimulateConfig
from mdsim.dynamics.stretch import Stretch
from mdsim.errors import ConfigError
from mdsim.evaluation.plan import Compared
from mdsim.force_field import ForceField
from mdsim.geometry import volume
from mdsim.observables.bulk_modulus import BulkModulus
from mdsim.observables.pressure import Pressure
from mdsim.units import BAR, kT_eV


def compared_pressure(
    config: SimulateConfig, point: Point, stretch: Stretch, force_field: ForceField
) -> dict[str, Compared]:
    """The pressure and the bulk modulus by name, where they are among the observables.

    Raises:
        ConfigError: open boundaries, or a bulk modulus at constant volume.
        ValueError: the force field or the prior has no stress.
    """
    chosen = [one for one in config.observables if isinstance(one, PRESSURE_CONFIGS)]
    check_names([one.name for one in chosen])
    found: dict[str, Compared] = {}
    for one in chosen:
        if isinstance(one, PressureConfig):
            found[one.name] = _pressure(one, point, stretch, force_field)
        elif not stretch.moves_cells:
            raise ConfigError("observables: bulk_modulus needs a volume that fluctuates; add a dynamics.barostat")
        else:
            powers = torch.tensor([1.0, 2.0])  # of the volume
            found[one.name] = Compared(BulkModulus(), torch.full_like(powers, torch.nan), powers)
    return found


def _pressure(config: PressureConfig, point: Point, stretch: Stretch, force_field: ForceField) -> Compared:
    system = stretch.system
    if system.cell is None:
        raise ConfigError("observables: pressure needs a volume, but the system has open boundaries; leave it out")
    bind = partial(stretch.potential_in_cells, force_field)
    bind()(point.data.test.positions[:1].to(system.masses), system.cell[None])  # refused now, and not after a stretch
    reference = labeled_pressure_bar(point, stretch) if config.reference_bar is None else config.reference_bar
    return Compared(Pressure(bind), torch.tensor([reference]).double(), torch.zeros(1))


def labeled_pressure_bar(point: Point, stretch: Stretch) -> float:
    """Pressure in bar by the stress labels of the reference frames; NaN if they have none.

    The kinetic part is that of the degrees of freedom of the dynamics at the temperature of the state point.
    """
    frames = point.reference_data.train
    if frames.stress is None or frames.cell is None:
        return float("nan")
    diagonals = torch.diagonal(frames.stress.double(), dim1=-2, dim2=-1).sum(-1)
    freedom, kT = stretch.integrator.degrees_of_freedom(stretch.system), kT_eV(point.config.temperature_K)
    kinetic = freedom * kT / float(volume(frames.cell.double()))
    return (kinetic - float(diagonals[diagonals.isfinite()].mean())) / (3 * BAR)
