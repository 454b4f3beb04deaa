"""Mixed data sets: the composition to simulate, and the frames that a fit uses."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch

from mdsim.assembly.data import hill
from mdsim.datasets.folder import LABELED, Dataset
from mdsim.datasets.inspection.check import Checked, open_checked
from mdsim.datasets.mixed_folder import MixedDataset, opened
from mdsim.datasets.sources.ase_frames import Reading
from mdsim.datasets.sources.mixed_files import read_pieces
from mdsim.errors import DatasetError
from mdsim.evaluation.errors import evenly_spaced
from mdsim.neighbors import pairs_within

FRAMES_COUNTED = 50  # of several compositions, for their mean number of pairs


def holds_several(path: Path) -> bool:
    """Whether a file of frames has several compositions or cells.

    Raises:
        DatasetError: it cannot be read.
    """
    pieces = read_pieces(path, Reading())
    cells = (b"" if piece.cell is None else piece.cell.tobytes() for piece in pieces)
    return len({(*sorted(piece.atomic_numbers.tolist()), cell) for piece, cell in zip(pieces, cells, strict=True)}) > 1


def simulated(folder: Path, asked: str | None) -> tuple[Dataset, Checked, MixedDataset | None]:
    """The frames to simulate, and the mixed set that they are part of, if any.

    Args:
        folder: of the data set.
        asked: the composition. None: that of most training frames among those with test frames.

    Raises:
        DatasetError: the set is damaged, has one composition and another one is asked for, or none can be simulated.
    """
    data = opened(folder)
    if not isinstance(data, MixedDataset):
        if asked is not None:
            raise DatasetError(f"{folder}: has one composition and one cell; leave out --composition")
        return data, open_checked(folder)[0], None
    held_out = data.test.compositions
    formula = next((one for one in data.train.compositions if one in held_out), None)
    if asked is None and formula is None:
        raise DatasetError(f"{folder}: no composition has training and test frames; convert more frames")
    one = data.of_composition(formula if asked is None else hill(asked, "--composition"))
    parts = {}
    for part in LABELED:
        with suppress(DatasetError):  # no such frames; `inspect` refuses what runs cannot do without
            parts[part] = getattr(one, part)
    name = "/".join(folder.resolve().parts[-3:])
    return one, Checked(name, folder, parts, one.system(torch.float64), one.metadata), data


def pairs_per_frame(data: MixedDataset, cutoff_A: float) -> int:
    """Mean number of pairs within a cutoff over evenly spaced training frames of all compositions."""
    some = evenly_spaced(data.train, FRAMES_COUNTED)
    positions = some.positions.split(some.n_atoms.tolist())
    counts = [pairs_within(some.cell_of(frame), one[None], cutoff_A).n_pairs for frame, one in enumerate(positions)]
    return round(sum(counts) / len(counts))
