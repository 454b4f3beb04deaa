"""How replicas move: integrators, time steps, and the restraint that an evaluation may add."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mdsim.schema.base import Count, NonNegative, Positive, Section


class VelocityVerletConfig(Section):
    """Constant energy."""

    name: Literal["velocity_verlet"]


class NoseHooverConfig(Section):
    """Nosé-Hoover chain; `chain_length: 1` is the paper's single thermostat."""

    name: Literal["nose_hoover"]
    relaxation_steps: Positive = Field(20.0, description="Relaxation time of the thermostat in time steps.")
    chain_length: Count = 3
    suzuki_yoshida_order: Literal[1, 3, 5, 7] = 3


class LangevinConfig(Section):
    """Langevin dynamics, BAOAB splitting."""

    name: Literal["langevin"]
    friction_per_ps: Positive = 1.0


class PaperEulerConfig(Section):
    """The semi-implicit Euler scheme of the published code, for reproducing it only."""

    name: Literal["paper_euler"]
    friction_per_ps: Positive = 0.1


IntegratorConfig = Annotated[
    VelocityVerletConfig | NoseHooverConfig | LangevinConfig | PaperEulerConfig, Field(discriminator="name")
]


class DynamicsConfig(Section):
    """How the replicas move, and how often they are looked at."""

    integrator: IntegratorConfig
    temperature_K: Positive
    timestep_fs: Positive = 0.5
    replicas: Count = 16
    steps_per_epoch: Count = Field(1000, description="Steps of one stretch of simulation.")
    dump_every_steps: Count = Field(50, description="Steps between kept frames; stability is resolved to these.")
    fast: bool = Field(True, description="Allow a quicker force evaluation that is equal within rounding.")

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
    """A prior in place of learning: bonds and 1-3 distances are pulled back into the range of the training data."""

    name: Literal["bonded_restraint"]
    margin_A: NonNegative = Field(0.1, description="Added to both ends of the range; nothing acts within it.")
