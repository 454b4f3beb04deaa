"""`stable_training.py` with `mode: train`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mdsim.config.schema.base import Count, Fraction, NonNegative, Positive, Section
from mdsim.config.schema.observables import StructuralConfig
from mdsim.config.schema.runs import RunConfig


class TrainingObservable(Section):
    """One term of the observable loss."""

    observable: StructuralConfig = Field(description="What is compared with its reference, chosen by `name`.")
    loss: Literal["mse", "sse", "wasserstein", "forward_kl", "reverse_kl"] = Field(
        "sse",
        description="sse: sum of squared differences over bins, as in the paper; mse: their mean; reverse_kl: "
        "Σ p log(p / p_ref), sharpest for what the reference never shows.",
    )
    weight: Positive = Field(1.0, description="Factor on this term of the loss.")
    reference_file: str | None = Field(None, description="Two columns (an experiment); absent: the training data.")


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
    """The Boltzmann estimator of the observable loss's gradient."""

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


class LearningConfig(Section):
    """How the force field is stepped in the learning phase."""

    direction: Literal["joint", "qm", "random"] = Field(
        "joint",
        description="Controls without observables: qm, along the QM gradient; random, as long as these, anywhere.",
    )
    optimizer: Literal["adam", "sgd"] = Field("adam", description="Method of the parameter steps; sgd as in the paper.")
    learning_rate: Positive = Field(3e-4, description="At the start of the first learning phase.")
    min_gradient_ratio: Positive | None = Field(
        None, description="The observable's gradient is scaled up to this times the weighted QM gradient; null: never."
    )
    learning_rate_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="Factor on the learning rate from each cycle to the next."
    )
    clip_norm: Positive | None = Field(1.0, description="Largest norm of the joint gradient; null: no limit.")
    energy_force_loss_weight: NonNegative = Field(10.0, description="Weight of the QM gradient.")
    max_gradient_ratio: Positive | None = Field(
        1.0, description="The observable's gradient is scaled down to this times the weighted QM gradient; null: never."
    )
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
    qm_batch_size: Count | None = Field(None, description="Frames per QM gradient; null: the whole training set.")
    energy_coefficient: NonNegative = Field(0.05, description="Weight of the energy error within the QM loss.")
    force_coefficient: NonNegative = Field(0.95, description="Weight of the force error within the QM loss.")
    plateau_factor: Fraction = Field(
        0.2, description="Factor on the learning rate when the observable loss stops falling."
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
    training_observables: tuple[TrainingObservable, ...] = Field(
        min_length=1, description="Terms of the observable loss; their weighted sum is minimized."
    )
    estimator: EstimatorConfig = Field(
        EstimatorConfig(), description="How the gradient of the observable loss is estimated."
    )
    learning: LearningConfig = Field(LearningConfig(), description="How the parameters are stepped.")

    @model_validator(mode="after")
    def _published_estimator_takes_one_step(self) -> TrainConfig:
        if self.estimator.paper_estimator and self.learning.steps_per_rerun > 1:
            raise ValueError("estimator.paper_estimator knows no reweighting: set learning.steps_per_rerun to 1")
        return self
