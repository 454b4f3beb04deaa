"""MD22: molecular dynamics of larger molecules with DFT forces (Chmiela et al., Sci. Adv. 9, eadf0873 (2023))."""

from __future__ import annotations

from mdsim.datasets.divide import Division, at_random
from mdsim.datasets.sources.convert import Description
from mdsim.datasets.sources.md17 import npz, read_kcal
from mdsim.datasets.sources.published import PublishedSet

TEST_FRACTION = 0.2
VALIDATION_FRACTION = 0.125  # of the frames that are not for testing: 10 % of all

DESCRIPTION = Description(
    source="MD22 (Chmiela et al., Sci. Adv. 9, eadf0873 (2023)), quantum-machine.org",
    level_of_theory="DFT, PBE+MBD",
    license="not stated by the source",
    temperature_K=500.0,
    timestep_fs=1.0,
    frame_interval_fs=1.0,
)


def divide(n_frames: int, size: str, seed: int, n_test: int | None) -> Division:
    """Division into 70 % training, 10 % validation and 20 % test frames. Sizes are percentages of the first two."""
    return at_random(n_frames, size, n_test or round(TEST_FRACTION * n_frames), seed, VALIDATION_FRACTION)


def _molecule(molecule: str, file: str, formula: str, n_frames: int) -> PublishedSet:
    return PublishedSet("md22", molecule, npz(file), formula, n_frames, read_kcal, divide, DESCRIPTION)


MOLECULES = (
    _molecule("ac_Ala3_NHMe", "md22_Ac-Ala3-NHMe.npz", "C12H22N4O4", 85_109),
    _molecule("DHA", "md22_DHA.npz", "C22H32O2", 69_753),
    _molecule("stachyose", "md22_stachyose.npz", "C24H42O21", 27_272),
    _molecule("AT_AT", "md22_AT-AT.npz", "C20H22N14O4", 20_001),
    _molecule("AT_AT_CG_CG", "md22_AT-AT-CG-CG.npz", "C38H42N30O8", 10_153),
    _molecule("buckyball_catcher", "md22_buckyball-catcher.npz", "C120H28", 6_102),
    _molecule("double_walled_nanotube", "md22_double-walled_nanotube.npz", "C326H44", 5_032),
)
