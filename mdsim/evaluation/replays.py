"""The kept frames of an evaluation: where its replicas broke, and what a report plays of them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mdsim.errors import one_line
from mdsim.evaluation.endings import Break
from mdsim.evaluation.kept_frames import FOLDER, REPLICA
from mdsim.geometry import all_pairs, minimum_image, pair_distances
from mdsim.reporting.html.replay import Replay, pair_name
from mdsim.reporting.trajectories import read_trajectory
from mdsim.state import System
from mdsim.typing import Float, Tensor

log = logging.getLogger("mdsim")

MOST_READ = 200  # files of one evaluation
MOST_PAIRS = 2**22  # of atoms whose distances are looked at
MOST_BREAKS = 3  # shown of one evaluation


@dataclass(frozen=True)
class Kept:
    """The kept frames of one replica.

    Attributes:
        folder: of the evaluation.
        replica: its index.
        broke: whether these are the frames before its break.
        reason: name of the criterion; empty for a stable replica.
        system: the simulated system.
        positions: of the frames, Å; molecules start in the cell.
        times_ps: of the frames.
        marked: the two atoms where it broke; None for a stable replica.
        cells: lattice vectors of the frames, Å, where they move.
    """

    folder: Path
    replica: int
    broke: bool
    reason: str
    system: System
    positions: Float[np.ndarray, "frame atom 3"]
    times_ps: Float[np.ndarray, "frame"]
    marked: tuple[int, int] | None
    cells: Float[np.ndarray, "frame 3 3"] | None = None

    @property
    def place(self) -> str:
        """Where it broke, such as "bond C4–N6"; empty if that is unknown."""
        if self.marked is None:
            return ""
        is_bond = bool((self.system.bonds == torch.tensor(sorted(self.marked))).all(-1).any())
        return f"{'bond' if is_bond else 'contact'} {pair_name(self.system, self.marked)}"

    @property
    def group(self) -> str:
        """The place without the indices of atoms where there are many like it, in a liquid."""
        return self.place if self.system.n_molecules == 1 else re.sub(r"\d+", "", self.place)

    @property
    def change(self) -> str:
        """The median distance of the marked atoms, and that in the last frame, such as ": 1.38 → 1.71 Å"."""
        if self.marked is None:
            return ""
        i, j = self.marked
        lengths = np.linalg.norm(self.positions[:, i] - self.positions[:, j], axis=-1)
        return f": {np.median(lengths):.2f} → {lengths[-1]:.2f} Å"

    def replay(self, label: str, most_coordinates: int) -> Replay | None:
        """The last frames of it that fit into so many coordinates; None if not even one does."""
        n_frames = most_coordinates // (3 * self.positions.shape[1])
        if n_frames == 0:
            return None
        if self.broke:
            note = f"The frames before replica {self.replica} broke ({self.reason})."
            if self.marked is not None:
                note += f" Marked: {self.place}{self.change} (median → last frame)."
        else:
            note = f"The last frames of replica {self.replica}, which was stable to the end."
        kind = f"breaks at {self.times_ps[-1]:.2f} ps" if self.broke else "stable"
        name = " · ".join(part for part in (label, f"replica {self.replica}", kind) if part)
        cells = None if self.cells is None else self.cells[-n_frames:]
        frames = self.positions[-n_frames:], self.times_ps[-n_frames:]
        return Replay(name, note, self.system, *frames, self.marked, cells)


def read_kept(folder: Path, breaks: Sequence[Break]) -> list[Kept]:
    """The kept frames of an evaluation by replica, first the broken ones. Files that cannot be read are left out.

    Args:
        folder: of the evaluation.
        breaks: of its replicas, from its summary.
    """
    reasons = {one.replica: one.reason for one in breaks}
    paths = sorted(path for path in (folder / FOLDER).glob("*") if REPLICA.fullmatch(path.name))
    return list(_read_each(paths[:MOST_READ], reasons))


def _read_each(paths: Sequence[Path], reasons: Mapping[int, str]) -> Iterator[Kept]:
    for path in paths:
        match = REPLICA.fullmatch(path.name)
        assert match is not None
        replica, broke = int(match[2]), match[1] == "break"
        if broke and not reasons.get(replica):
            continue  # of an earlier evaluation in this folder
        try:
            stored = read_trajectory(path)
            system, moving = stored.system, stored.trajectory.cell
            cells = system.cell if moving is None else moving[:, 0]
            positions = _in_cell(system, cells, stored.trajectory.positions[:, 0])
        except Exception as error:  # damaged files raise many kinds of errors
            log.warning("%s: left out of the report (%s)", path, one_line(error))
            continue
        marked = _where(system, cells, positions, reasons[replica]) if broke else None
        if marked is not None:
            positions = _beside(system, cells, positions, marked)
        yield Kept(
            *(path.parent.parent, replica, broke, reasons.get(replica, ""), system),
            *(positions.numpy(), stored.times_ps, marked),
            None if moving is None else moving[:, 0].numpy(),
        )


def chosen(kept: Sequence[Kept]) -> list[Kept]:
    """A few replicas that broke, of different places if there are, and a stable one."""
    broken = [one for one in kept if one.broke]
    first_of_each = list({(one.reason, one.marked): one for one in reversed(broken)}.values())[::-1]
    others = [one for one in broken if not any(one is other for other in first_of_each)]
    return [*[*first_of_each, *others][:MOST_BREAKS], *[one for one in kept if not one.broke][:1]]


def _in_cell(
    system: System, cells: Float[Tensor, "*frames 3 3"] | None, positions: Float[Tensor, "frame atom 3"]
) -> Float[Tensor, "frame atom 3"]:
    """A molecule seen from its widest side; in a cell, molecules that start in it, moved by lattice vectors.

    Where cells move, the lattice vectors are those of each frame.
    """
    if cells is None:
        centered = positions - positions.mean(1, keepdim=True)
        axes = torch.linalg.svd(centered[-1], full_matrices=True).Vh.T  # the flattest view of it
        return centered @ (axes * torch.linalg.det(axes).sign())
    sizes = torch.bincount(system.molecules, minlength=system.n_molecules)[:, None]
    of_molecule = torch.zeros(system.n_molecules, 3, dtype=positions.dtype)
    centers = of_molecule.index_add(0, system.molecules, positions[0]) / sizes
    first = cells if cells.ndim == 2 else cells[0]
    steps = torch.floor(centers @ torch.linalg.inv(first) + 0.5)
    return positions - (steps @ cells)[..., system.molecules, :]


def _where(
    system: System, cells: Float[Tensor, "*frames 3 3"] | None, positions: Float[Tensor, "frame atom 3"], reason: str
) -> tuple[int, int] | None:
    """The bond that differs most from its median length in the last frame, or the closest contact of two molecules."""
    if "intermolecular" in reason and system.n_atoms**2 <= 2 * MOST_PAIRS:
        pairs = all_pairs(system.n_atoms)
        pairs = pairs[system.molecules[pairs[:, 0]] != system.molecules[pairs[:, 1]]]
        return _pair(pairs, pair_distances(positions[-1:], pairs, _last(cells))[0].argmin()) if len(pairs) else None
    if not len(system.bonds):
        return None
    lengths = pair_distances(positions, system.bonds, cells)
    return _pair(system.bonds, (lengths[-1] - lengths.median(0).values).abs().argmax())


def _last(cells: Float[Tensor, "*frames 3 3"] | None) -> Float[Tensor, "3 3"] | None:
    """The cell of the last frame."""
    return cells if cells is None or cells.ndim == 2 else cells[-1]


def _pair(pairs: Tensor, index: Tensor) -> tuple[int, int]:
    i, j = pairs[int(index)].tolist()
    return i, j


def _beside(
    system: System,
    cells: Float[Tensor, "*frames 3 3"] | None,
    positions: Float[Tensor, "frame atom 3"],
    marked: tuple[int, int],
) -> Tensor:
    """Move the molecule of the second marked atom next to the first one in the last frame, by lattice vectors."""
    last = _last(cells)
    if cells is None or last is None:
        return positions
    i, j = marked
    apart = positions[-1, j] - positions[-1, i]
    move = minimum_image(apart, last) - apart
    if cells.ndim == 3:  # the same number of lattice vectors of each frame
        move = (torch.round(move @ torch.linalg.inv(last)) @ cells)[:, None]
    return positions + move * (system.molecules == system.molecules[j])[:, None]
