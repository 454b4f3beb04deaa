"""Assembly of runs: objects built from a configuration. Only this package maps names to classes."""

from mdsim.assembly.checkpoint_paths import (
    evaluated_checkpoint,
    pretrained_checkpoint,
    pretraining_path,
    pretraining_run_path,
    starting_checkpoint,
    variant,
)
from mdsim.assembly.data import dataset, labeled_data
from mdsim.assembly.dynamics import integrator, prior, stretch
from mdsim.assembly.energies import compared_energy
from mdsim.assembly.evaluation import (
    check_reference_files,
    compared_dynamical,
    compared_structural,
    departures,
    plan,
)
from mdsim.assembly.learning import SeveralLabeled, optimizer_settings, sampling, stable_settings, weighted_terms
from mdsim.assembly.losses import energy_force_loss, mixed_loss, observable_loss
from mdsim.assembly.mixed import add_repulsion_of_several, as_mixed, mixed_split
from mdsim.assembly.models import (
    add_repulsion,
    device,
    force_field,
    log_recentering,
    run_force_field,
    saved_force_field,
    train_only,
)
from mdsim.assembly.observables import dynamical_observable, observable, observables
from mdsim.assembly.pressure import compared_pressure
from mdsim.assembly.references import reference
from mdsim.assembly.stability import criterion
from mdsim.assembly.state_points import Point, in_cell_of, reference_of, shown, starts, state_points
from mdsim.assembly.trajectories import recording

__all__ = [
    "Point",
    "SeveralLabeled",
    "add_repulsion",
    "add_repulsion_of_several",
    "as_mixed",
    "check_reference_files",
    "compared_dynamical",
    "compared_energy",
    "compared_pressure",
    "compared_structural",
    "criterion",
    "dataset",
    "departures",
    "device",
    "dynamical_observable",
    "energy_force_loss",
    "evaluated_checkpoint",
    "force_field",
    "in_cell_of",
    "integrator",
    "labeled_data",
    "log_recentering",
    "mixed_loss",
    "mixed_split",
    "observable",
    "observables",
    "observable_loss",
    "optimizer_settings",
    "plan",
    "pretrained_checkpoint",
    "pretraining_path",
    "pretraining_run_path",
    "prior",
    "recording",
    "reference",
    "reference_of",
    "run_force_field",
    "sampling",
    "saved_force_field",
    "stable_settings",
    "starting_checkpoint",
    "shown",
    "starts",
    "state_points",
    "stretch",
    "train_only",
    "variant",
    "weighted_terms",
]
