import pytest
import torch
from ase.io import read
from paths import MOLECULES

from mdsim.datasets import Frames, Metadata
from mdsim.datasets.npz import UNITS


@pytest.fixture
def ethanol_frames() -> Frames:
    """Thirty distorted ethanols, with forces, velocities and energies of the size that real ones have."""
    atoms = read(MOLECULES / "ethanol.xyz")
    generator = torch.Generator().manual_seed(1)

    def normal(scale: float) -> torch.Tensor:
        return scale * torch.randn(30, len(atoms), 3, generator=generator, dtype=torch.float64)

    return Frames(
        torch.from_numpy(atoms.numbers).long(),
        torch.from_numpy(atoms.positions) + normal(0.03),
        -310.123456789012 + torch.rand(30, generator=generator, dtype=torch.float64),
        forces=normal(1.0),
        velocities=normal(0.2),
    )


@pytest.fixture
def metadata(ethanol_frames) -> Metadata:
    return Metadata(
        source="random numbers",
        level_of_theory="none",
        license="MIT",
        atomic_numbers=ethanol_frames.atomic_numbers.tolist(),
        temperature_K=300.0,
        timestep_fs=0.5,
        structural_frame_interval_fs=None,
        contiguous_frame_interval_fs=2.0,
        split={"seed": 0},
        program_versions={},
        command="pytest",
        settings={},
        units=UNITS,
        n_frames={},
        sha256={},
    )
