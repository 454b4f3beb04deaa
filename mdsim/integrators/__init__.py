"""Integrators of the equations of motion, one method per file."""

from mdsim.integrators.barostat import Barostat
from mdsim.integrators.base import BaseIntegrator
from mdsim.integrators.cell_rescaling import StochasticCellRescaling
from mdsim.integrators.langevin import LangevinBAOAB
from mdsim.integrators.mtk import MartynaTobiasKlein
from mdsim.integrators.nose_hoover import NoseHooverChain
from mdsim.integrators.nve import VelocityVerlet
from mdsim.integrators.paper_euler import PaperEuler

__all__ = [
    "Barostat",
    "BaseIntegrator",
    "LangevinBAOAB",
    "MartynaTobiasKlein",
    "NoseHooverChain",
    "PaperEuler",
    "StochasticCellRescaling",
    "VelocityVerlet",
]
