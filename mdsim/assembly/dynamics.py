"""Integrators and stretches of dynamics, built from a configuration."""

from __future__ import annotations

from mdsim.assembly.stability import criterion
from mdsim.config.schema import (
    CellRescalingConfig,
    CustomIntegratorConfig,
    DynamicsConfig,
    LangevinConfig,
    NoseHooverConfig,
    PaperEulerConfig,
    RunConfig,
    SimulateConfig,
    VelocityVerletConfig,
)
from mdsim.datasets.folder import Dataset
from mdsim.dynamics.restraint import BondedRestraint
from mdsim.dynamics.stretch import Stretch
from mdsim.errors import ConfigError
from mdsim.integrators.barostat import Barostat
from mdsim.integrators.cell_rescaling import StochasticCellRescaling
from mdsim.integrators.langevin import LangevinBAOAB
from mdsim.integrators.mtk import MartynaTobiasKlein
from mdsim.integrators.nose_hoover import NoseHooverChain
from mdsim.integrators.nve import VelocityVerlet
from mdsim.integrators.paper_euler import PaperEuler
from mdsim.interfaces import Integrator
from mdsim.plugins import make
from mdsim.stability.criteria import TemperatureExplosion
from mdsim.state import System
from mdsim.units import kT_eV


def integrator(config: DynamicsConfig) -> Integrator:
    """The integrator of a configuration, with its barostat if it has one."""
    moves, barostat = _at_constant_volume(config), config.barostat
    if barostat is None:
        return moves
    given = (moves, barostat.pressure_bar, 1000 * barostat.relaxation_time_ps)
    if isinstance(barostat, CellRescalingConfig):
        return StochasticCellRescaling(*given, barostat.compressibility_per_bar, barostat.scaling)  # type: ignore
    return MartynaTobiasKlein(*given, barostat.scaling)  # type: ignore[arg-type]


def _at_constant_volume(config: DynamicsConfig) -> Integrator:
    chosen, timestep_fs, temperature_K = config.integrator, config.timestep_fs, config.temperature_K
    match chosen:
        case VelocityVerletConfig():
            return VelocityVerlet(timestep_fs)
        case NoseHooverConfig():
            return NoseHooverChain(
                timestep_fs,
                temperature_K,
                relaxation_time_fs=chosen.relaxation_steps * timestep_fs,
                chain_length=chosen.chain_length,
                suzuki_yoshida_order=chosen.suzuki_yoshida_order,
            )
        case LangevinConfig():
            return LangevinBAOAB(timestep_fs, temperature_K, chosen.friction_per_ps)
        case PaperEulerConfig():
            return PaperEuler(timestep_fs, temperature_K, chosen.friction_per_ps)
        case CustomIntegratorConfig():
            given = {"timestep_fs": timestep_fs, "temperature_K": temperature_K}
            return make(Integrator, chosen.factory, chosen.options, "dynamics.integrator", **given)
    raise ConfigError(f"dynamics.integrator.name: {chosen.name!r} has no integrator")


def stretch(config: RunConfig, system: System, dataset: Dataset) -> Stretch:
    """The dynamics of one epoch, with its stability criteria."""
    moves = integrator(config.dynamics)
    if isinstance(moves, Barostat) and system.cell is None:
        raise ConfigError("dynamics.barostat: the system has open boundaries, and so no volume; remove the barostat")
    custom = isinstance(config.dynamics.integrator, CustomIntegratorConfig)
    if custom and len(config.points) > 1 and not getattr(moves, "has_replica_temperatures", False):
        raise ConfigError(
            f"state_points: {type(moves).__name__} has one temperature for all replicas; use `MDState.kT` in its step, "
            "and set has_replica_temperatures"
        )
    judges = [criterion(chosen, system, dataset, config.reference_run) for chosen in config.stability]
    judges.append(TemperatureExplosion(config.max_temperature_K, moves.degrees_of_freedom(system)))
    dynamics = config.dynamics
    return Stretch(
        system,
        moves,
        dynamics.steps_per_epoch,
        dynamics.dump_every_steps,
        tuple(judges),
        fast=dynamics.fast,
        fast_tolerance=dynamics.fast_tolerance,
    )


def prior(config: SimulateConfig, system: System, data: Dataset) -> BondedRestraint | None:
    """The prior that an evaluation adds to the force field, if any."""
    if config.prior is None:
        return None
    temperature_K = data.metadata.temperature_K or config.dynamics.temperature_K
    return BondedRestraint.from_frames(system, data.train.positions, kT_eV(temperature_K), config.prior.margin_A)
