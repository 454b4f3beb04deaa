"""Loss terms of StABlE training, one per file."""

from mdsim.training.terms.energies_forces import EnergyForceTerm, LabelledFrames
from mdsim.training.terms.observables import ObservableTerm, Target

__all__ = ["EnergyForceTerm", "LabelledFrames", "ObservableTerm", "Target"]
