"""Reporting of runs: scalars, console output, figures and trajectory files."""
