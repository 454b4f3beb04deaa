"""`stable_training.py` with `mode: train`."""

from __future__ import annotations

import logging
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mdsim.config.schema.base import Count, Fraction, Positive, Section
from mdsim.config.schema.optimizer import OptimizerConfig
from mdsim.config.schema.runs import RunConfig
from mdsim.config.schema.terms import TermConfig, translated

log = logging.getLogger("mdsim")


class LocalEstimatorConfig(Section):
    """Samples are neighborhoods of molecules instead of whole structures: for liquids and other large systems."""

    n_molecules: Count = Field(1, description="Whole molecules of a neighborhood, the central one included.")
    per_frame: Count | None = Field(None, description="Neighborhoods looked at in each frame, at random; null: all.")
    n_strata: Count = Field(100, description="Intervals of the central molecule's worst bond-length deviation.")
    max_per_stratum: Count | None = Field(
        None, description="Neighborhoods drawn from each interval, so that rare distorted ones weigh in; null: all."
    )
    paper_unweighted: bool = Field(
        False, description="Leave out the importance weights of the strata, as published; averages are then biased."
    )


class EstimatorConfig(Section):
    """The samples that terms take their gradients from, and the Boltzmann estimator."""

    minibatch_size: Count = Field(40, description="Structures per backward pass; bounds the memory, not the result.")
    paper_estimator: bool = Field(False, description="The published scaling: no 1/kT, no n/(n-1), 40-sample averages.")
    frames_after_break: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Frames kept of a replica after its first unstable one; null keeps all finite frames."
    )
    signal_every: Count | None = Field(
        None, description="Learning epochs between measurements of the gradient's signal-to-noise ratio; null: never."
    )
    only_unstable: bool = Field(False, description="Learn from the replicas that broke in the rerun alone.")
    local: LocalEstimatorConfig | None = Field(None, description="The local estimator; null: the global one.")


class LearningConfig(OptimizerConfig):
    """Parameter steps in the learning phase."""

    optimizer: Literal["adam", "adamw", "sgd"] = Field("adam", description="Method of the steps; sgd as in the paper.")
    learning_rate: Positive = Field(3e-4, description="At the start of the first learning phase.")
    learning_rate_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="Factor on the learning rate from each cycle to the next."
    )
    clip_norm: Positive | None = Field(1.0, description="Largest norm of the joint gradient; null: no limit.")
    reruns: Count | None = Field(
        None,
        description="Reruns of each learning epoch, spread over the parked stretches, each with its own noise; "
        "null: every parked stretch once, as in the paper.",
    )
    steps_per_rerun: Count = Field(
        1, description="Parameter steps from one rerun; its frames are reweighted by exp(-ΔU/kT) after the first."
    )
    min_effective_fraction: Fraction = Field(
        0.5, description="Steps from one rerun end when the effective sample size falls below this fraction."
    )
    randomize_steps: bool = Field(
        False, description="Control: steps as long as the gradient says, in random directions."
    )
    plateau_factor: Fraction = Field(
        0.2, description="Factor on the learning rate when the loss of the first term that uses samples stops falling."
    )
    plateau_patience: Count = Field(10, description="Learning epochs without improvement before that.")
    max_times_reduce_lr: Annotated[int, Field(ge=0)] = Field(2, description="Further plateaus end the cycle.")
    max_epochs_per_cycle: Count | None = Field(
        None, description="Learning epochs after which a cycle ends in any case; null: no limit."
    )


class TrainConfig(RunConfig):
    """`stable_training.py` with `mode: train`."""

    mode: Literal["train"] = Field(description="StABlE training.")
    epochs: Count = Field(500, description="Explore and learn epochs together.")
    max_cycles: Count | None = Field(
        None, description="End after so many cycles of exploring and learning; null: no limit."
    )
    max_force_evaluations: Count | None = Field(
        None, description="End when so many structures have been evaluated, in dynamics and in gradients; null: never."
    )
    start_learning_at: Fraction = Field(0.75, description="Fraction of unstable replicas that ends exploring.")
    learn_while_exploring: bool = Field(
        False, description="Step the parameters also after explore epochs in which a replica broke, with their frames."
    )
    max_explore_epochs: Count | None = Field(
        None,
        description="Explore epochs of a cycle after which learning starts with whatever is parked; null: no limit.",
    )
    stop_learning_at: Fraction = Field(0.0, description="Fraction still unstable at or below which learning ends.")
    stop_window: Count = Field(1, description="Latest reruns of a cycle that are pooled for this fraction.")
    stop_confidence: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Two-sided confidence whose upper bound is compared; null: the fraction itself."
    )
    reset_probability: Fraction = Field(0.05, description="Chance that an exploring replica rewinds, each epoch.")
    terms: tuple[TermConfig, ...] = Field(
        min_length=1, description="Terms of the loss, each chosen by `name`; their weighted gradients are added."
    )
    estimator: EstimatorConfig = Field(EstimatorConfig(), description="Samples and estimator.")
    learning: LearningConfig = Field(LearningConfig(), description="How the parameters are stepped.")

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
    def _no_term_twice(self) -> TrainConfig:
        names = [term.name for term in self.terms if term.name != "custom"]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"terms: {', '.join(twice)} stands there more than once")
        return self

    @model_validator(mode="after")
    def _published_estimator_takes_one_step(self) -> TrainConfig:
        if self.estimator.paper_estimator and self.learning.steps_per_rerun > 1:
            raise ValueError("estimator.paper_estimator knows no reweighting: set learning.steps_per_rerun to 1")
        return self
