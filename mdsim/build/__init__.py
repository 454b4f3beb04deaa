"""From names in a configuration to objects: the only place that knows which class a name stands for."""

from mdsim.build.checkpoint_paths import (
    evaluated_checkpoint,
    pretrained_checkpoint,
    pretraining_path,
    pretraining_run_path,
    variant,
)
from mdsim.build.data import dataset
from mdsim.build.dynamics import integrator, prior, stretch
from mdsim.build.evaluation import compared_dynamical, compared_structural
from mdsim.build.learning import neighborhood_sampler, qm_data, targets
from mdsim.build.losses import energy_force_loss, observable_loss
from mdsim.build.models import device, force_field, saved_force_field
from mdsim.build.observables import dynamical_observable, observable
from mdsim.build.references import reference
from mdsim.build.stability import criterion

__all__ = [
    "compared_dynamical",
    "compared_structural",
    "criterion",
    "dataset",
    "device",
    "dynamical_observable",
    "energy_force_loss",
    "evaluated_checkpoint",
    "force_field",
    "integrator",
    "neighborhood_sampler",
    "observable",
    "observable_loss",
    "pretrained_checkpoint",
    "pretraining_path",
    "pretraining_run_path",
    "prior",
    "qm_data",
    "reference",
    "saved_force_field",
    "stretch",
    "targets",
    "variant",
]
