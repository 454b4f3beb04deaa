"""The typed schema of all YAML files. Sections forbid unknown keys, and key names include units."""

from mdsim.config.schema.base import Count, Degree, Fraction, Name, NonNegative, Positive, Section
from mdsim.config.schema.custom import (
    CustomConfig,
    CustomCriterionConfig,
    CustomDynamicalConfig,
    CustomIntegratorConfig,
    CustomModelConfig,
    CustomModelReference,
    CustomObservableConfig,
)
from mdsim.config.schema.data import DataConfig, PretrainDataConfig
from mdsim.config.schema.dynamics import (
    BondedRestraintConfig,
    DynamicsConfig,
    IntegratorConfig,
    LangevinConfig,
    NoseHooverConfig,
    PaperEulerConfig,
    VelocityVerletConfig,
)
from mdsim.config.schema.evaluation import DenseWindowConfig, SimulateConfig
from mdsim.config.schema.logging import WandbConfig
from mdsim.config.schema.models import (
    MODEL_CONFIGS,
    MODEL_REFERENCES,
    ArchitectureConfig,
    ModelConfig,
    ModelReference,
    PretrainedReference,
    model_label,
)
from mdsim.config.schema.observables import (
    WATER_VISCOSITY_MPA_S,
    ADFConfig,
    BondLengthsConfig,
    DiffusivityConfig,
    DynamicalConfig,
    RDFConfig,
    StructuralConfig,
    VACFConfig,
)
from mdsim.config.schema.pretraining import OptimizationConfig, PretrainConfig
from mdsim.config.schema.runs import RunConfig
from mdsim.config.schema.stability import (
    AngleDeviationConfig,
    BondDeviationConfig,
    CriterionConfig,
    IntermolecularDistanceConfig,
    RDFDeviationConfig,
)
from mdsim.config.schema.terms import (
    CustomTermConfig,
    EnergiesForcesTermConfig,
    ObservablesTermConfig,
    TargetConfig,
    TermConfig,
)
from mdsim.config.schema.training import (
    EstimatorConfig,
    LearningConfig,
    LocalEstimatorConfig,
    TrainConfig,
)

__all__ = [
    "ADFConfig",
    "AngleDeviationConfig",
    "ArchitectureConfig",
    "BondDeviationConfig",
    "BondLengthsConfig",
    "BondedRestraintConfig",
    "Count",
    "CriterionConfig",
    "CustomConfig",
    "CustomCriterionConfig",
    "CustomDynamicalConfig",
    "CustomIntegratorConfig",
    "CustomModelConfig",
    "CustomModelReference",
    "CustomObservableConfig",
    "CustomTermConfig",
    "DataConfig",
    "Degree",
    "DenseWindowConfig",
    "DiffusivityConfig",
    "DynamicalConfig",
    "DynamicsConfig",
    "EnergiesForcesTermConfig",
    "EstimatorConfig",
    "Fraction",
    "IntegratorConfig",
    "IntermolecularDistanceConfig",
    "LangevinConfig",
    "LearningConfig",
    "LocalEstimatorConfig",
    "MODEL_CONFIGS",
    "MODEL_REFERENCES",
    "ModelConfig",
    "ModelReference",
    "Name",
    "NonNegative",
    "NoseHooverConfig",
    "ObservablesTermConfig",
    "OptimizationConfig",
    "PaperEulerConfig",
    "Positive",
    "PretrainConfig",
    "PretrainDataConfig",
    "PretrainedReference",
    "RDFConfig",
    "RDFDeviationConfig",
    "RunConfig",
    "Section",
    "SimulateConfig",
    "StructuralConfig",
    "TargetConfig",
    "TermConfig",
    "TrainConfig",
    "VACFConfig",
    "VelocityVerletConfig",
    "WATER_VISCOSITY_MPA_S",
    "WandbConfig",
    "model_label",
]
