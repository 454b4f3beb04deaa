"""Loss terms of StABlE training, one per file."""

from mdsim.training.terms.contrast import ContrastTerm
from mdsim.training.terms.dynamics import DynamicsTerm
from mdsim.training.terms.energies_forces import EnergyForceTerm, LabeledFrames
from mdsim.training.terms.mixed_energies_forces import MixedEnergyForceTerm
from mdsim.training.terms.observables import ObservableTerm, Target
from mdsim.training.terms.state_points import StatePointsTerm, TermAt

__all__ = [
    "ContrastTerm",
    "DynamicsTerm",
    "EnergyForceTerm",
    "LabeledFrames",
    "MixedEnergyForceTerm",
    "ObservableTerm",
    "StatePointsTerm",
    "Target",
    "TermAt",
]
