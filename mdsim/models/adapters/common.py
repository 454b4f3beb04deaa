"""Shared by the adapters: the origin of a model, its zero of energy, and the precision in which it is built."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import torch

from mdsim.energy_zero import EnergyZero
from mdsim.typing import Tensor


def origin_of(path: Path, package: str) -> dict[str, str]:
    """Name and sha256 of the file, and the release of the package that read it, for checkpoints.

    Args:
        path: the file.
        package: name of the distribution.
    """
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"file": path.name, "sha256": digest, "package": f"{package} {version(package)}"}


def leave_shift_to_zero(model: EnergyZero, numbers: Sequence[int], shift_eV: Tensor | None) -> None:
    """Move the shift of a network's energies to the zero of energy, which keeps more digits.

    Total energies are then determined for all compositions of the elements.

    Args:
        model: the force field.
        numbers: atomic numbers that it knows.
        shift_eV: part of the network, one number per element or one for all; set to zero. None: there is none.
    """
    energies = [0.0] * len(numbers)
    if shift_eV is not None:
        energies = shift_eV.detach().double().flatten().expand(len(numbers)).tolist()
        with torch.no_grad():
            shift_eV.zero_()
    model.fit_energy_zero([], torch.zeros(0), dict(zip(numbers, energies, strict=True)))


@contextmanager
def default_precision(dtype: torch.dtype) -> Iterator[None]:
    """Build a network whose constants have the digits of a floating-point type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
