"""Integrators of the equations of motion, one method per file."""

from mdsim.integrators.base import BaseIntegrator
from mdsim.integrators.langevin import LangevinBAOAB
from mdsim.integrators.nose_hoover import NoseHooverChain
from mdsim.integrators.nve import VelocityVerlet
from mdsim.integrators.paper_euler import PaperEuler

__all__ = ["BaseIntegrator", "LangevinBAOAB", "NoseHooverChain", "PaperEuler", "VelocityVerlet"]
