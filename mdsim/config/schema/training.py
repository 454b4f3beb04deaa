"""StABlE training: `stable_training.py` with `mode: train`."""

from __future__ import annotations

import logging
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mdsim.config.schema.base import Count, Fraction, Positive, Section
from mdsim.config.schema.optimizer import OptimizerConfig
from mdsim.config.schema.runs import RunConfig
from mdsim.config.schema.terms import TermConfig, translated
from mdsim.config.schema.trajectories import TrainTrajectoryConfig

log = logging.getLogger("mdsim")


class LocalEstimatorConfig(Section):
    """The local estimator, with neighborhoods of molecules as samples, for liquids and other large systems."""

    n_molecules: Count = Field(1, description="Whole molecules per neighborhood, including the central one.")
    per_frame: Count | None = Field(None, description="Candidate neighborhoods per frame, drawn at random; null: all.")
    n_strata: Count = Field(
        100, description="Intervals (strata) of the central molecule's largest bond-length deviation."
    )
    max_per_stratum: Count | None = Field(
        None, description="Neighborhoods drawn per interval, so that rare distorted ones are sampled; null: all."
    )
    paper_unweighted: bool = Field(
        False, description="Omit the importance weights of the strata, as published. Averages are then biased."
    )


class EstimatorConfig(Section):
    """The Boltzmann estimator and the selection of its samples."""

    minibatch_size: Count = Field(
        40, description="Structures per backward pass, which limits the memory and does not change the result."
    )
    paper_estimator: bool = Field(
        False, description="The published scaling: no 1/kT, no n/(n-1), averages over minibatches."
    )
    frames_after_break: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Frames of a replica used after its first unstable one; null: all finite frames."
    )
    signal_every: Count | None = Field(
        None, description="Learning epochs between measurements of the gradient's signal-to-noise ratio; null: never."
    )
    only_unstable: bool = Field(False, description="Use only the replicas that broke in the rerun.")
    local: LocalEstimatorConfig | None = Field(None, description="The local estimator; null: the global one.")


class LearningConfig(OptimizerConfig):
    """Parameter steps in the learning phase."""

    optimizer: Literal["adam", "adamw", "sgd"] = Field(
        "adam", description="Optimizer of the parameter steps; the paper uses sgd."
    )
    learning_rate: Positive = Field(3e-4, description="Learning rate at the start of the first learning phase.")
    warmup_steps: Annotated[int, Field(ge=0)] = Field(
        0, description="First steps, over which the learning rate grows linearly. Adam's first steps are its largest."
    )
    warmup_factor: Fraction = Field(0.1, description="Fraction of the learning rate at the first step.")
    learning_rate_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="Factor on the learning rate from each cycle to the next."
    )
    clip_norm: Positive | None = Field(1.0, description="Largest norm of the joint gradient; null: no clipping.")
    reruns: Count | None = Field(
        None,
        description="Reruns per learning epoch, spread over the parked stretches, each with its own noise; "
        "null: each parked stretch once, as in the paper.",
    )
    steps_per_rerun: Count = Field(
        1, description="Parameter steps per rerun. After the first, frames are reweighted by exp(-ΔU/kT)."
    )
    min_effective_fraction: Fraction = Field(
        0.5, description="Effective fraction of samples below which the steps from one rerun end."
    )
    replay_reruns: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Earlier reruns whose frames are reweighted to the current parameters and used again. One whose "
        "effective fraction falls below `min_effective_fraction` is forgotten.",
    )
    average_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="Decay per step of a running average of the parameters, which is then saved; null: none.",
    )
    randomize_steps: bool = Field(False, description="Control: steps of the same length in random directions.")
    plateau_factor: Fraction = Field(
        0.2, description="Factor on the learning rate when the loss of the first term that uses samples stops falling."
    )
    plateau_patience: Count = Field(
        10, description="Learning epochs without improvement before the learning rate is reduced."
    )
    max_times_reduce_lr: Annotated[int, Field(ge=0)] = Field(
        2, description="Number of reductions of the learning rate. The next plateau ends the cycle."
    )
    max_epochs_per_cycle: Count | None = Field(
        None, description="Largest number of learning epochs per cycle; null: no limit."
    )


class TrainConfig(RunConfig):
    """StABlE training: `stable_training.py` with `mode: train`."""

    mode: Literal["train"] = Field(description="StABlE training.")
    epochs: Count = Field(500, description="Total number of exploring and learning epochs.")
    max_cycles: Count | None = Field(
        None, description="Largest number of cycles of exploring and learning; null: no limit."
    )
    max_force_evaluations: Count | None = Field(
        None, description="Largest number of structures evaluated, in dynamics and in gradients; null: no limit."
    )
    exploration: Literal["parked", "persistent"] = Field(
        "parked",
        description="parked: a replica that breaks waits at the start of its stretch for the learning phase, as in the "
        "paper; persistent: it restarts from a structure of the reference data, all replicas move in every epoch, each "
        "epoch steps the parameters, and a cycle has `max_explore_epochs` epochs.",
    )
    start_learning_at: Fraction = Field(0.75, description="Fraction of unstable replicas at which exploring ends.")
    learn_while_exploring: bool = Field(
        False,
        description="Also step the parameters after exploring epochs in which a replica broke, using their frames.",
    )
    max_explore_epochs: Count | None = Field(
        None,
        description="Exploring epochs per cycle after which learning starts with the parked replicas; null: no limit.",
    )
    stop_learning_at: Fraction = Field(0.0, description="Fraction of unstable reruns at or below which learning ends.")
    stop_window: Count = Field(
        1, description="Number of latest learning epochs of a cycle whose reruns are pooled for this fraction."
    )
    stop_confidence: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Two-sided confidence of the upper bound that is compared; null: the fraction itself."
    )
    reset_probability: Fraction = Field(0.05, description="Probability per epoch that an exploring replica rewinds.")
    restart_probability: Fraction = Field(
        0.0,
        description="Probability per cycle that a replica begins again from a structure of the reference data, with "
        "new velocities, when the parked replicas are released.",
    )
    trainable: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="Names of the parameters to train, as shell patterns such as `interactions.2.*`; all others are "
        "frozen. null: all.",
    )
    terms: tuple[TermConfig, ...] = Field(
        min_length=1, description="Loss terms, each chosen by `name`. Their weighted gradients are added."
    )
    estimator: EstimatorConfig = Field(EstimatorConfig(), description="The Boltzmann estimator and its samples.")
    learning: LearningConfig = Field(LearningConfig(), description="The parameter steps.")
    trajectory: TrainTrajectoryConfig = Field(TrainTrajectoryConfig(), description="Trajectory files.")

    @model_validator(mode="before")
    @classmethod
    def _old_keys(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values, said = translated(values)
        if said:
            log.warning("keys of an earlier release are read as `terms`: %s", ", ".join(said))
        return values

    @model_validator(mode="after")
    def _recorded_replicas_exist(self) -> TrainConfig:
        if missing := [replica for replica in self.trajectory.replicas if replica >= self.dynamics.replicas]:
            raise ValueError(
                f"trajectory.replicas: {missing[0]} is not among the {self.dynamics.replicas} replicas, counted from 0"
            )
        return self

    @model_validator(mode="after")
    def _no_term_twice(self) -> TrainConfig:
        names = [term.name for term in self.terms if term.name != "custom"]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"terms: {', '.join(twice)} is listed more than once")
        return self

    @model_validator(mode="after")
    def _published_estimator_takes_one_step(self) -> TrainConfig:
        if self.estimator.paper_estimator and self.learning.steps_per_rerun > 1:
            raise ValueError("estimator.paper_estimator cannot reweight: set learning.steps_per_rerun to 1")
        if self.estimator.paper_estimator and self.learning.replay_reruns:
            raise ValueError("estimator.paper_estimator cannot reweight: set learning.replay_reruns to 0")
        return self
