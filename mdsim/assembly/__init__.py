"""From names in a configuration to objects: the only place that knows which class a name stands for."""

from mdsim.assembly.checkpoint_paths import (
    evaluated_checkpoint,
    pretrained_checkpoint,
    pretraining_path,
    pretraining_run_path,
    variant,
)
from mdsim.assembly.data import dataset
from mdsim.assembly.dynamics import integrator, prior, stretch
from mdsim.assembly.evaluation import compared_dynamical, compared_structural, plan
from mdsim.assembly.learning import neighborhood_sampler, qm_data, targets
from mdsim.assembly.losses import energy_force_loss, observable_loss
from mdsim.assembly.models import device, force_field, saved_force_field
from mdsim.assembly.observables import dynamical_observable, observable
from mdsim.assembly.references import reference
from mdsim.assembly.stability import criterion

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
    "plan",
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
