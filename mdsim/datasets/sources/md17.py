"""MD17: molecular dynamics of small molecules with DFT forces (Chmiela et al., Sci. Adv. 3, e1603015 (2017))."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mdsim.datasets.divide import Division, at_random
from mdsim.datasets.sources.convert import Description
from mdsim.datasets.sources.published import PublishedSet
from mdsim.datasets.sources.raw import RawFrames, Units
from mdsim.datasets.sources.remote import RemoteFile
from mdsim.datasets.sources.sgdml import read_sgdml

#: Addresses of the collection. The second one is tried if the first has no such file.
SERVERS = ("http://www.quantum-machine.org/gdml/data/npz", "http://www.quantum-machine.org/gdml/repo/datasets")
TEST_FRAMES = 10_000
KCAL = Units("angstrom", "kcal/mol", "kcal/mol/angstrom")

DESCRIPTION = Description(
    source="MD17 (Chmiela et al., Sci. Adv. 3, e1603015 (2017)), quantum-machine.org",
    level_of_theory="DFT, PBE+vdW-TS",
    license="not stated by the source",
    temperature_K=500.0,
    timestep_fs=0.5,
    frame_interval_fs=0.5,
)


def read_kcal(path: Path) -> RawFrames:
    """Frames of the sGDML collection. The default units are kcal/mol and Å."""
    raw = read_sgdml(path)
    return raw if raw.units.energy else replace(raw, units=KCAL)


def npz(name: str, size_bytes: int | None = None, sha256: str | None = None) -> RemoteFile:
    """A file of the collection."""
    return RemoteFile(name, tuple(f"{server}/{name}" for server in SERVERS), b"PK\x03\x04", size_bytes, sha256)


def divide(n_frames: int, size: str, seed: int, n_test: int | None) -> Division:
    """Division into 95 % training and 5 % validation frames of the size, and 10,000 other test frames."""
    return at_random(n_frames, size, n_test or TEST_FRAMES, seed)


def _molecule(molecule: str, file: RemoteFile, formula: str, n_frames: int) -> PublishedSet:
    return PublishedSet("md17", molecule, file, formula, n_frames, read_kcal, divide, DESCRIPTION)


ASPIRIN_SHA256 = "af4ce531bf8cf07610c0bd876cb5b321f3c301d2365720967d98d45e1db1f748"
MOLECULES = (
    _molecule("aspirin", npz("md17_aspirin.npz", 202_398_748, ASPIRIN_SHA256), "C9H8O4", 211_762),
    _molecule("benzene", npz("md17_benzene2017.npz"), "C6H6", 627_983),
    _molecule("ethanol", npz("md17_ethanol.npz"), "C2H6O", 555_092),
    _molecule("malonaldehyde", npz("md17_malonaldehyde.npz"), "C3H4O2", 993_237),
    _molecule("naphthalene", npz("md17_naphthalene.npz"), "C10H8", 326_250),
    _molecule("salicylic_acid", npz("md17_salicylic.npz"), "C7H6O3", 320_231),
    _molecule("toluene", npz("md17_toluene.npz"), "C7H8", 442_790),
    _molecule("uracil", npz("md17_uracil.npz"), "C4H4N2O2", 133_770),
)
