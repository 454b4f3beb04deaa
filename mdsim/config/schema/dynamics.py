"""The `dynamics` section: integrators, time steps, replicas, and the restraint that an evaluation may add."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mdsim.config.schema.base import Count, NonNegative, Positive, Section
from mdsim.config.schema.custom import CustomIntegratorConfig


class VelocityVerletConfig(Section):
    """Velocity Verlet at constant energy."""

    name: Literal["velocity_verlet"] = Field(description="The method.")


class NoseHooverConfig(Section):
    """Nosé-Hoover chain. `chain_length: 1` is the paper's single thermostat."""

    name: Literal["nose_hoover"] = Field(description="The method.")
    relaxation_steps: Positive = Field(20.0, description="Relaxation time of the thermostat in time steps.")
    chain_length: Count = Field(
        3, description="Thermostats in the chain. A single one is not ergodic for stiff or harmonic systems."
    )
    suzuki_yoshida_order: Literal[1, 3, 5, 7] = Field(
        3, description="Number of weights that factorize the chain's propagator. More weights are more accurate."
    )


class LangevinConfig(Section):
    """Langevin dynamics, BAOAB splitting."""

    name: Literal["langevin"] = Field(description="The method.")
    friction_per_ps: Positive = Field(
        1.0, description="Strength of the coupling to the bath. 0.1 hardly disturbs the dynamics; 10 equilibrates fast."
    )


class PaperEulerConfig(Section):
    """The semi-implicit Euler scheme of the published code, only to reproduce its results."""

    name: Literal["paper_euler"] = Field(description="The method.")
    friction_per_ps: Positive = Field(0.1, description="Strength of the coupling to the bath.")


IntegratorConfig = Annotated[
    VelocityVerletConfig | NoseHooverConfig | LangevinConfig | PaperEulerConfig | CustomIntegratorConfig,
    Field(discriminator="name"),
]


class BarostatSection(Section):
    """What all barostats have."""

    pressure_bar: float = Field(1.0, allow_inf_nan=False, description="External pressure. 1 bar is 0.1 MPa.")
    relaxation_time_ps: Positive = Field(
        1.0, description="Relaxation time of the volume. Longer times disturb the dynamics less, and need longer runs."
    )


class CellRescalingConfig(BarostatSection):
    """Stochastic cell rescaling, a first-order barostat for any thermostat."""

    name: Literal["cell_rescaling"] = Field(description="The method.")
    compressibility_per_bar: Positive = Field(
        4.5e-5, description="Estimate of the isothermal compressibility, that of water by default. It scales the rate."
    )
    scaling: Literal["isotropic", "semi_isotropic", "anisotropic"] = Field(
        "isotropic",
        description="Lengths that change together: all, the x-y plane and z, or none.",
    )


class MartynaTobiasKleinConfig(BarostatSection):
    """Martyna-Tobias-Klein dynamics, for the `nose_hoover` integrator."""

    name: Literal["mtk"] = Field(description="The method.")
    scaling: Literal["isotropic", "semi_isotropic", "anisotropic", "full"] = Field(
        "isotropic",
        description="Lengths that change together: all, the x-y plane and z, or none. `full` also changes angles.",
    )


BarostatConfig = Annotated[CellRescalingConfig | MartynaTobiasKleinConfig, Field(discriminator="name")]


class DynamicsConfig(Section):
    """Integrator, time step, temperature, replicas and frame interval."""

    integrator: IntegratorConfig = Field(description="The equations of motion, chosen by `name`.")
    barostat: BarostatConfig | None = Field(
        None, description="Keeps the pressure in place of the volume, chosen by `name`. Null: constant volume."
    )
    temperature_K: Positive = Field(
        description="Temperature of the thermostat, of the initial velocities, and of the Boltzmann estimator."
    )
    timestep_fs: Positive = Field(0.5, description="Length of a time step: 0.5 for molecules with hydrogen, at most 1.")
    replicas: Count = Field(16, description="Copies of the system that are simulated in parallel.")
    steps_per_epoch: Count = Field(1000, description="Time steps of one stretch of simulation.")
    dump_every_steps: Count = Field(
        50, description="Time steps between stored frames, which set the time resolution of stability."
    )
    fast: bool = Field(True, description="Allow a faster force evaluation that is equal within rounding.")
    fast_tolerance: Positive = Field(
        1e-6,
        description="Largest error of the interpolated functions of distance in the fast path, relative to their "
        "largest values. If it would be exceeded, forces are evaluated as in training.",
    )

    @model_validator(mode="after")
    def _barostat_fits(self) -> DynamicsConfig:
        if self.barostat is None:
            return self
        fitting = ("nose_hoover",) if self.barostat.name == "mtk" else ("nose_hoover", "langevin", "paper_euler")
        if self.integrator.name not in fitting:
            raise ValueError(
                f"barostat {self.barostat.name!r} needs the integrator {' or '.join(fitting)}, "
                f"found {self.integrator.name!r}"
            )
        return self

    @model_validator(mode="after")
    def _whole_frames(self) -> DynamicsConfig:
        if self.steps_per_epoch % self.dump_every_steps:
            raise ValueError(
                f"steps_per_epoch ({self.steps_per_epoch}) must be a multiple of dump_every_steps "
                f"({self.dump_every_steps})"
            )
        return self

    @property
    def frame_interval_fs(self) -> float:
        return self.timestep_fs * self.dump_every_steps

    @property
    def epoch_ps(self) -> float:
        return self.timestep_fs * self.steps_per_epoch / 1000


class BondedRestraintConfig(Section):
    """A prior, as an alternative to learning, that pulls bonds and 1-3 distances back into the range of the data."""

    name: Literal["bonded_restraint"] = Field(description="The kind of prior.")
    margin_A: NonNegative = Field(
        0.1, description="Margin added to both ends of the range. The restraint is zero within it."
    )
