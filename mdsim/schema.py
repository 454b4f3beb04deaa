"""The typed schema of every YAML file. Each section forbids unknown keys; units are part of the key names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


class Section(BaseModel):
    """A part of the configuration: immutable, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Degree = Annotated[int, Field(ge=0, le=11)]  # e3nn has spherical harmonics up to 11
#: Text that may look like a number, which YAML then reads as one: `size: 40`, `exp_name: 1`.
Name = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]


# ------------------------------------------------------------------------------------------------ data and models


class DataConfig(Section):
    """Which data set: `<path>/<name>/<molecule>/<size>`."""

    path: str = Field(description="Root folder of the data sets.")
    name: str = Field(description="Family of data sets, e.g. md17 or aspirin_gfn2.")
    molecule: str
    size: Name = Field(description="Split by number of frames (40, 1k, 10k) or per cent (25percent).")


class SchNetConfig(Section):
    """SchNet (Schütt et al., J. Chem. Phys. 148, 241722 (2018))."""

    name: Literal["schnet"]
    hidden_channels: Count = 64
    num_filters: Count = 64
    num_interactions: Count = 6
    num_gaussians: Count = 25
    cutoff_A: Positive = 5.0


class NequIPConfig(Section):
    """NequIP (Batzner et al., Nat. Commun. 13, 2453 (2022)); scale, shift and neighbours come from the data."""

    name: Literal["nequip"]
    l_max: Degree = Field(1, description="Highest degree of the features; part of the name of the run.")
    parity: bool = Field(True, description="Features of both parities.")
    num_layers: Count = 3
    num_features: Count = Field(32, description="Channels of each irrep.")
    num_bessels: Count = Field(8, description="Radial basis functions, with trainable frequencies.")
    polynomial_cutoff_p: Count = 6
    radial_mlp_depth: Count = Field(2, description="Hidden layers of the radial network.")
    radial_mlp_width: Count = 64
    cutoff_A: Positive = 5.0


class GemNetTConfig(Section):
    """GemNet-T (Gasteiger et al., arXiv 2106.08903); scale, shift and scaling factors come from the data."""

    name: Literal["gemnet_t"]
    num_spherical: Count = Field(7, description="Spherical harmonics of the angle, of degrees 0 to num_spherical - 1.")
    num_radial: Annotated[int, Field(ge=2)] = 6
    num_blocks: Count = 4
    emb_size_atom: Count = 128
    emb_size_edge: Count = Field(128, description="Features of a message.")
    emb_size_trip: Count = Field(64, description="Features of a message within the triplet interaction.")
    emb_size_rbf: Count = 16
    emb_size_cbf: Count = 16
    emb_size_bil_trip: Count = Field(64, description="Outputs of the bilinear layer.")
    num_before_skip: Count = Field(1, description="Residual layers before messages are added to the former ones.")
    num_after_skip: Count = 1
    num_concat: Count = 1
    num_atom: Count = 2
    rbf: Literal["gaussian", "spherical_bessel"] = "gaussian"
    envelope: Literal["polynomial", "exponential"] = "polynomial"
    envelope_exponent: Count = 5
    cutoff_A: Positive = 5.0


ModelConfig = Annotated[SchNetConfig | NequIPConfig | GemNetTConfig, Field(discriminator="name")]


class SchNetReference(Section):
    """The pretrained SchNet that a run starts from."""

    name: Literal["schnet"] = Field(description="Architecture; picks the folder below `model_dir`.")


class NequIPReference(Section):
    """The pretrained NequIP that a run starts from."""

    name: Literal["nequip"]
    l_max: Degree = Field(1, description="Of several fits to the same data, the one with this degree.")


class GemNetTReference(Section):
    """The pretrained GemNet-T that a run starts from."""

    name: Literal["gemnet_t"]


ModelReference = Annotated[SchNetReference | NequIPReference | GemNetTReference, Field(discriminator="name")]


# ------------------------------------------------------------------------------------------------------- dynamics


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


class BondDeviationConfig(Section):
    """Unstable when a bond differs from its mean length in the training data by more than the tolerance."""

    name: Literal["bond_length_deviation"]
    bond_dev_tol_A: Positive = 0.25


class AngleDeviationConfig(Section):
    """Unstable when an angle between bonds differs from its mean in the training data by more than the tolerance."""

    name: Literal["angle_deviation"]
    angle_dev_tol_deg: Positive = 45.0


class IntermolecularDistanceConfig(Section):
    """Unstable when atoms of different molecules come closer than this."""

    name: Literal["minimum_intermolecular_distance"]
    tolerance_A: Positive = 1.2


class RDFDeviationConfig(Section):
    """Unstable when the RDF of a stretch differs from the reference by more than this mean absolute error."""

    name: Literal["rdf_mae"]
    tolerance: Positive = 3.0
    max_distance_A: Positive = 6.0
    bin_width_A: Positive = 0.012
    pair: tuple[str, str] | None = Field(None, description="Element pair; all pairs when absent.")


CriterionConfig = Annotated[
    BondDeviationConfig | AngleDeviationConfig | IntermolecularDistanceConfig | RDFDeviationConfig,
    Field(discriminator="name"),
]


# ---------------------------------------------------------------------------------------------------- observables


class RDFConfig(Section):
    """Radial distribution function: h(r) of a molecule, g(r) of a periodic system."""

    name: Literal["rdf"]
    max_distance_A: Positive = 10.0
    bin_width_A: Positive = 0.02
    pair: tuple[str, str] | None = Field(None, description="Element pair, e.g. [O, H]; all pairs when absent.")
    intermolecular_only: bool = Field(False, description="Leave out the pairs within a molecule.")


class ADFConfig(Section):
    """Distribution of the angles between bonds."""

    name: Literal["adf"]
    bin_width_deg: Positive = 2.0


class BondLengthsConfig(Section):
    """Distribution of bond lengths, of all bonds or those of one element pair."""

    name: Literal["bond_lengths"]
    max_length_A: Positive = 3.0
    bin_width_A: Positive = 0.02
    pair: tuple[str, str] | None = None


class VACFConfig(Section):
    """Velocity autocorrelation function, normalized to one at lag zero."""

    name: Literal["vacf"]
    max_lag_fs: Positive = 200.0


WATER_VISCOSITY_MPA_S = 0.854  # of real water at 300 K and 0.1 MPa (IAPWS R12-08)


class DiffusivityConfig(Section):
    """Self-diffusion coefficient by the Einstein relation."""

    name: Literal["diffusivity"]
    element: str | None = None
    viscosity_mPa_s: Positive | None = Field(
        WATER_VISCOSITY_MPA_S,
        description="Shear viscosity of the liquid, for the correction of the box size (Yeh and Hummer) that is "
        "reported beside the value; null: no correction.",
    )
    fit_start_fs: NonNegative = 1000.0
    fit_end_fs: Positive = 10000.0


StructuralConfig = Annotated[RDFConfig | ADFConfig | BondLengthsConfig, Field(discriminator="name")]
DynamicalConfig = Annotated[VACFConfig | DiffusivityConfig, Field(discriminator="name")]


# ------------------------------------------------------------------------------------------------------- logging


class WandbConfig(Section):
    """Weights & Biases; needs the extra `wandb`."""

    project: str = "mdsim"
    mode: Literal["online", "offline"] = "online"


# --------------------------------------------------------------------------------------------------- pretraining


class OptimizationConfig(Section):
    """The energy/force fit."""

    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: Positive = 1e-3
    eps: Positive = Field(1e-8, description="Of Adam and AdamW: added to the root of the second moment.")
    weight_decay: NonNegative = 0.0
    amsgrad: bool = False
    batch_size: Count = 100
    eval_batch_size: Count = 100
    loss: Literal["mae", "mse", "huber", "l2mae"] = Field("mae", description="l2mae: per-atom L2 norm of force errors.")
    energy_coefficient: NonNegative = 0.05
    force_coefficient: NonNegative = 0.95
    energy_per_atom: bool = Field(False, description="Errors of energies are divided by the number of atoms.")
    warmup_steps: Annotated[int, Field(ge=0)] = 5000
    warmup_factor: Fraction = 0.2
    plateau_factor: Fraction = 0.8
    plateau_patience: Count = 5
    ema_decay: Fraction | None = Field(None, description="Decay of the averaged weights that are evaluated and saved.")
    clip_norm: Positive | None = None
    max_epochs: Count = 10000
    early_stopping_lr: NonNegative = Field(1e-6, description="Stop when the learning rate falls below this.")
    early_stopping_time_s: Positive = 604800.0
    checkpoint_every_epochs: Count = 10
    evaluate_every_epochs: Count = 1


class PretrainConfig(Section):
    """`pretraining.py`: fit energies and forces."""

    mode: Literal["train", "validate"] = "train"
    data: DataConfig
    model: ModelConfig
    optim: OptimizationConfig = OptimizationConfig()
    run_dir: str = Field("qm_pretrained_checkpoints", description="Root below which checkpoints are written.")
    identifier: Name = Field("", description="Appended to the name of the run.")
    seed: int = 0
    amp: bool = Field(False, description="Mixed precision (bfloat16 autocast).")
    cpu: bool = Field(False, description="Stay on the CPU even where there is a GPU.")
    print_every: Count = Field(50, description="Optimizer steps between console lines.")
    wandb: WandbConfig | None = None


# --------------------------------------------------------------------------------------------------------- StABlE


class RunConfig(Section):
    """What StABlE training and its evaluation share."""

    seed: int = 123
    data: DataConfig
    reference_size: Name | None = Field(
        None, description="Size of the data set whose training frames give reference observables; null: `data.size`."
    )
    reference_run: bool = Field(
        False,
        description="Reference observables that the data set has from its whole run (reference.npz) are taken from "
        "there, with their errors; the others, as without this, from its frames.",
    )
    reweight_reference: bool = Field(
        False, description="Carry reference observables from the data's temperature to that of the dynamics."
    )
    model: ModelReference
    model_dir: str = Field("qm_pretrained_checkpoints", description="Where the QM-pretrained checkpoints lie.")
    log_dir: str = "runs"
    results_dir: str = "stable_training"
    exp_name: Name = "default"
    cpu: bool = False
    dynamics: DynamicsConfig
    stability: tuple[CriterionConfig, ...] = Field(min_length=1)
    max_temperature_K: Positive = Field(10000.0, description="A replica hotter than this has exploded.")
    wandb: WandbConfig | None = None

    @model_validator(mode="after")
    def _a_run_has_one_temperature(self) -> RunConfig:
        if self.reference_run and self.reweight_reference:
            raise ValueError("reference_run has no frames to reweight: set it or reweight_reference to false")
        return self

    @property
    def run_path(self) -> Path:
        return Path(self.log_dir, self.results_dir, f"{self.model.name}_{self.data.molecule}_{self.exp_name}")


class TrainingObservable(Section):
    """One term of the observable loss."""

    observable: StructuralConfig
    loss: Literal["mse", "sse", "wasserstein", "forward_kl", "reverse_kl"] = Field(
        "sse",
        description="sse: sum of squared differences over bins, as in the paper; mse: their mean; reverse_kl: "
        "Σ p log(p / p_ref), sharpest for what the reference never shows.",
    )
    weight: Positive = 1.0
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
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: Positive = 3e-4
    min_gradient_ratio: Positive | None = Field(
        None, description="The observable's gradient is scaled up to this times the weighted QM gradient; null: never."
    )
    learning_rate_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="Factor on the learning rate from each cycle to the next."
    )
    clip_norm: Positive | None = 1.0
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
    energy_coefficient: NonNegative = 0.05
    force_coefficient: NonNegative = 0.95
    plateau_factor: Fraction = 0.2
    plateau_patience: Count = 10
    max_times_reduce_lr: Annotated[int, Field(ge=0)] = Field(2, description="Further plateaus end the cycle.")
    max_epochs_per_cycle: Count | None = None


class TrainConfig(RunConfig):
    """`stable_training.py` with `mode: train`."""

    mode: Literal["train"]
    epochs: Count = Field(500, description="Explore and learn epochs together.")
    max_cycles: Count | None = None
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
    training_observables: tuple[TrainingObservable, ...] = Field(min_length=1)
    estimator: EstimatorConfig = EstimatorConfig()
    learning: LearningConfig = LearningConfig()

    @model_validator(mode="after")
    def _published_estimator_takes_one_step(self) -> TrainConfig:
        if self.estimator.paper_estimator and self.learning.steps_per_rerun > 1:
            raise ValueError("estimator.paper_estimator knows no reweighting: set learning.steps_per_rerun to 1")
        return self


class BondedRestraintConfig(Section):
    """A prior in place of learning: bonds and 1-3 distances are pulled back into the range of the training data."""

    name: Literal["bonded_restraint"]
    margin_A: NonNegative = Field(0.1, description="Added to both ends of the range; nothing acts within it.")


class SimulateConfig(RunConfig):
    """`stable_training.py` with `mode: simulate`: held-out evaluation."""

    mode: Literal["simulate"]
    eval_model: Name = Field(
        "post", description="pre, a data size, lmax=N, post, post_cycle[i], post_cycle[i]_epoch[j]."
    )
    epochs: Count = Field(1000, description="Stretches of `steps_per_epoch` steps; with them, the horizon.")
    end_when_unstable: Annotated[float, Field(gt=0, le=1)] = Field(
        0.99, description="Stop early when this fraction of replicas has broken."
    )
    prior: BondedRestraintConfig | None = Field(None, description="Added to the force field: a control, or a crutch.")
    observables: tuple[StructuralConfig, ...] = ()
    dynamical_observables: tuple[DynamicalConfig, ...] = ()
    dense_window: DenseWindowConfig | None = None
    save_trajectories: tuple[int, ...] = Field((0,), description="Replicas whose whole trajectory is written as GSD.")
    frames_before_break: Count = Field(50, description="Frames written before every instability.")

    @model_validator(mode="after")
    def _dense_window_serves_its_purpose(self) -> SimulateConfig:
        window, every = self.dense_window, self.dynamics.dump_every_steps
        if window is not None and every % window.dump_every_steps:
            raise ValueError(
                f"dynamics.dump_every_steps ({every}) must be a multiple of dense_window.dump_every_steps "
                f"({window.dump_every_steps})"
            )
        if window is None and self.dynamical_observables:
            raise ValueError("dynamical_observables are taken from a dense_window, which is missing")
        return self

    @property
    def horizon_ps(self) -> float:
        return self.epochs * self.dynamics.epoch_ps


class DenseWindowConfig(Section):
    """The first stretches of an evaluation keep frames more densely, for dynamical observables."""

    epochs: Count = 1
    dump_every_steps: Count = 4


SimulateConfig.model_rebuild()
