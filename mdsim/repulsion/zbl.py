"""Screened Coulomb repulsion of nuclei (ZBL), switched off smoothly before the distances that the data know.

The energy of two nuclei at the distance r, with the universal screening function of Ziegler, Biersack and Littmark:

    U(r) = S(r) · Z_i Z_j e² / (4πε₀ r) · φ(r / a_ij),    a_ij = 0.46850 Å / (Z_i^0.23 + Z_j^0.23)
    φ(x) = 0.18175 exp(-3.19980 x) + 0.50986 exp(-0.94229 x) + 0.28022 exp(-0.40290 x) + 0.02817 exp(-0.20162 x)
    S(r) = 1 - t³ (10 - 15 t + 6 t²),    t = (r - r_on) / (r_off - r_on), between 0 and 1

S and therefore U have two continuous derivatives. U falls with r, so that forces are repulsive everywhere, and is zero
from r_off on. There is nothing to fit: the window of each pair of elements, [r_on, r_off], is given or follows from
reference frames (`mdsim.repulsion.windows`).

Source: Ziegler, Biersack, Littmark, The Stopping and Range of Ions in Matter, vol. 1 (Pergamon, 1985).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from ase import units
from ase.data import atomic_numbers, chemical_symbols

from mdsim.neighbors import Neighbors
from mdsim.repulsion.pairs import SELECTIONS, selected
from mdsim.state import System
from mdsim.typing import Float, Tensor

NAME = "zbl"
COULOMB_EV_A = units._e / (4e-10 * math.pi * units._eps0)  # e²/(4πε₀), 14.40 eV Å
SCREENING_A, SCREENING_POWER = 0.46850, 0.23
SCREENING_TERMS = ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))
N_ELEMENTS = len(chemical_symbols)


class Window(NamedTuple):
    """The distances of two elements, Å, between which their repulsion is switched off."""

    on_A: float
    off_A: float


Windows = Mapping[tuple[int, int], Window]


@dataclass(frozen=True)
class ZBL:
    """The repulsion of the atoms of any system.

    Args:
        selection: the pairs of atoms that repel each other, one of `SELECTIONS`.
        windows: the window of each pair of atomic numbers, in ascending order. Other elements do not repel each other.

    Raises:
        ValueError: an unknown selection, no windows, or one that does not begin before it ends.
    """

    selection: str
    windows: tuple[tuple[tuple[int, int], Window], ...]

    def __post_init__(self) -> None:
        if self.selection not in SELECTIONS:
            raise ValueError(f"pairs: found {self.selection!r}; use one of {', '.join(SELECTIONS)}")
        if not self.windows:
            raise ValueError("a repulsion needs the window of one pair of elements at least")
        for pair, window in self.windows:
            if not 0 <= window.on_A < window.off_A < math.inf:
                raise ValueError(f"the window of {pair_name(pair)} is [{window.on_A:g}, {window.off_A:g}] Å")

    @classmethod
    def of(cls, selection: str, windows: Windows) -> ZBL:
        """A repulsion with these windows."""
        return cls(selection, tuple(sorted(windows.items())))

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> ZBL:
        """The repulsion that `settings` describes.

        Raises:
            ValueError, KeyError, TypeError: it describes none.
        """
        if settings["name"] != NAME or settings.keys() != {"name", "pairs", "windows_A"}:
            raise ValueError(f"the repulsion {dict(settings)} is not known to this release")
        return cls.of(settings["pairs"], parsed(settings["windows_A"]))

    @property
    def settings(self) -> dict[str, Any]:
        """Plain data for checkpoints."""
        windows = {pair_name(pair): list(window) for pair, window in self.windows}
        return {"name": NAME, "pairs": self.selection, "windows_A": windows}

    def __str__(self) -> str:
        described = (f"{pair_name(pair)} {on:.3g} to {off:.3g}" for pair, (on, off) in self.windows)
        return f"switched off over {', '.join(described)} Å"

    @property
    def reach_A(self) -> float:
        """The distance beyond which no atoms repel each other."""
        return max(window.off_A for _, window in self.windows)

    def atomic_energies(
        self, system: System, positions: Float[Tensor, "replica atom 3"], neighbors: Neighbors
    ) -> Float[Tensor, "replica atom"]:
        """Energy of each atom in eV: half of the energy of each of its pairs.

        Args:
            system: elements, bonds and molecules of all replicas.
            positions: Å.
            neighbors: pairs of all replicas, complete up to `reach_A` at least.
        """
        first, second = neighbors.first % system.n_atoms, neighbors.second % system.n_atoms
        table = constants(self, positions.device, positions.dtype)
        of_pairs = table[system.atomic_numbers[first], system.atomic_numbers[second]]
        distances = torch.linalg.vector_norm(neighbors.displacements(positions), dim=-1)
        repels = selected(self.selection, system, first, second) & (distances < of_pairs[:, OFF])
        energies = torch.where(repels, pair_energies(torch.where(repels, distances, 1.0), of_pairs), 0.0)
        atoms = positions.new_zeros(positions.shape[0] * positions.shape[1])
        atoms = atoms.index_add(0, neighbors.first, 0.5 * energies).index_add(0, neighbors.second, 0.5 * energies)
        return atoms.reshape(positions.shape[:2])


# The columns of the constants of a pair of elements.
CHARGE, SCREENING, ON, WIDTH, OFF = range(5)  # eV Å, 1/Å, Å, Å, Å


def pair_energies(distances: Float[Tensor, "pair"], constants: Float[Tensor, "pair constant"]) -> Float[Tensor, "pair"]:
    """U(r) of pairs closer than r_off (Å), eV."""
    charge, screening, on, width, _ = constants.unbind(-1)
    x = screening * distances
    screened = sum(factor * torch.exp(-rate * x) for factor, rate in SCREENING_TERMS)
    t = ((distances - on) / width).clamp(min=0)
    return charge / distances * screened * (1 - t**3 * (10 - 15 * t + 6 * t * t))


@lru_cache(maxsize=16)
def constants(zbl: ZBL, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "element element constant"]:
    """The constants by both atomic numbers. Elements without a window have one that ends at zero."""
    table = torch.zeros(N_ELEMENTS, N_ELEMENTS, 5, dtype=torch.float64)
    table[..., WIDTH] = 1.0
    for (a, b), (on, off) in zbl.windows:
        screening = (a**SCREENING_POWER + b**SCREENING_POWER) / SCREENING_A
        row = torch.tensor([COULOMB_EV_A * a * b, screening, on, off - on, off], dtype=torch.float64)
        table[a, b] = table[b, a] = row
    return table.to(device, dtype)


def pair_name(pair: tuple[int, int]) -> str:
    """Two atomic numbers as text: H-O."""
    return "-".join(chemical_symbols[number] for number in pair)


def parsed(windows_A: Mapping[str, Any]) -> dict[tuple[int, int], Window]:
    """Windows by the names of pairs of elements, in any order: ``{"O-H": [1.1, 1.3]}``, Å.

    Raises:
        ValueError: a name is no pair of elements, a pair is named twice, or a window is not two numbers.
    """
    found: dict[tuple[int, int], Window] = {}
    for name, window in windows_A.items():
        symbols = name.split("-")
        if len(symbols) != 2 or not all(atomic_numbers.get(symbol) for symbol in symbols):
            raise ValueError(f"windows_A: {name!r} is no pair of elements; write it as H-O")
        a, b = sorted(atomic_numbers[symbol] for symbol in symbols)
        if (a, b) in found:
            raise ValueError(f"windows_A: {name!r} is there twice")
        on, off = window
        found[a, b] = Window(float(on), float(off))
    return found
