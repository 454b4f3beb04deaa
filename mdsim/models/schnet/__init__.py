"""SchNet (Schütt et al., J. Chem. Phys. 148, 241722 (2018))."""

from mdsim.models.schnet.model import SchNet

__all__ = ["SchNet"]
