"""Trajectories of one replica in the form that the viewer of a page plays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ase.data
import ase.data.colors
import numpy as np

from mdsim.state import System
from mdsim.typing import Float

PRECISION = 3  # digits after the point, Å
MOST_COORDINATES = 150_000  # of all replays in a page, about a megabyte


@dataclass(frozen=True)
class Replay:
    """Frames of one replica.

    Attributes:
        label: names the replica.
        note: what is to be seen.
        system: the simulated system; its cell is drawn, unless cells move.
        positions: of the frames, Å.
        times_ps: of the frames.
        marked: two atoms whose distance is shown and marked; None to mark nothing.
        cells: lattice vectors of the frames, Å, where they move; that of the last frame is drawn.
    """

    label: str
    note: str
    system: System
    positions: Float[np.ndarray, "frame atom 3"]
    times_ps: Float[np.ndarray, "frame"]
    marked: tuple[int, int] | None = None
    cells: Float[np.ndarray, "frame 3 3"] | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain data for the script of the page."""
        numbers, cell = self.system.atomic_numbers.tolist(), self.system.cell
        drawn = self.cells[-1] if self.cells is not None else None if cell is None else cell.cpu().numpy()
        return {
            "label": self.label,
            "note": self.note,
            "symbols": [ase.data.chemical_symbols[number] for number in numbers],
            "colors": {ase.data.chemical_symbols[number]: _color(number) for number in sorted(set(numbers))},
            "bonds": self.system.bonds.tolist(),
            "frames": np.round(self.positions, PRECISION).tolist(),
            "times_ps": np.round(self.times_ps, 6).tolist(),
            "marked": None if self.marked is None else list(self.marked),
            "marked_name": None if self.marked is None else pair_name(self.system, self.marked),
            "edges": [] if drawn is None else _edges(drawn),
        }


def pair_name(system: System, pair: tuple[int, int]) -> str:
    """Two atoms by element and index, such as C4–N6. Indices start at zero, as everywhere."""
    return "–".join(f"{ase.data.chemical_symbols[int(system.atomic_numbers[atom])]}{atom}" for atom in pair)


def _color(number: int) -> str:
    red, green, blue = (round(255 * float(part)) for part in ase.data.colors.jmol_colors[number])
    return f"#{red:02x}{green:02x}{blue:02x}"


def _edges(cell: Float[np.ndarray, "3 3"]) -> list[list[list[float]]]:
    """The twelve edges of a cell that is centered at the origin, each as its two ends."""
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    places = np.round((corners - 0.5) @ cell, PRECISION)
    pairs = [(a, b) for a in range(8) for b in range(a) if np.abs(corners[a] - corners[b]).sum() == 1]
    return [[places[a].tolist(), places[b].tolist()] for a, b in pairs]
