"""Stability-aware Boltzmann estimator (StABlE) training of machine-learned force fields."""

__version__ = "0.1.0"
