"""Data set folders whose frames differ in composition or cell, and the frames of one composition in them."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from mdsim.datasets.folder import (
    LABELED,
    Dataset,
    Metadata,
    described_compositions,
    open_folder,
    read_metadata,
    verified_path,
)
from mdsim.datasets.mixed import MixedFrames, read_mixed_frames
from mdsim.datasets.npz import Frames
from mdsim.errors import DatasetError

log = logging.getLogger("mdsim")


@dataclass(frozen=True)
class MixedDataset:
    """A mixed data set on disk. Files are read and checked on first use."""

    folder: Path
    metadata: Metadata

    @cached_property
    def train(self) -> MixedFrames:
        return self._read("train")

    @cached_property
    def val(self) -> MixedFrames:
        return self._read("val")

    @cached_property
    def test(self) -> MixedFrames:
        return self._read("test")

    def of_composition(self, formula: str | None) -> Dataset:
        """The frames of one composition as a data set of their own.

        Args:
            formula: the composition in Hill's order, as `metadata.compositions` names it.

        Raises:
            DatasetError: there is no such composition. The message lists those that there are.
        """
        known = self.metadata.compositions
        if formula not in known:
            problem = "has several compositions" if formula is None else f"has no frames of {formula}"
            raise DatasetError(
                f"{self.folder}: {problem}; name one of {described_compositions(known)} in data.composition"
            )
        some = _of_formula(self, "train", formula)
        kind = Counter(some.kind_of(frame) for frame in range(len(some))).most_common(1)[0][0]
        numbers = np.frombuffer(kind[0], dtype=np.int64).tolist()
        metadata = replace(self.metadata, atomic_numbers=numbers, compositions={formula: known[formula]})
        return OneComposition(self.folder, metadata, self, formula, kind)

    def _read(self, name: str) -> MixedFrames:
        path = verified_path(self.folder, self.metadata, name)
        frames = read_mixed_frames(path, require_forces=name in LABELED)
        if unknown := frames.compositions.keys() - self.metadata.compositions.keys():
            raise DatasetError(f"{path}: holds frames of {min(unknown)}, which metadata.json does not name")
        return frames


@dataclass(frozen=True)
class OneComposition(Dataset):
    """The frames of one composition. Where orders of atoms or cells differ, those of the most frequent one."""

    mixed: MixedDataset
    formula: str

    kind: tuple[bytes, bytes]  # order of atoms and cell, see `MixedFrames.kind_of`

    def _read(self, name: str) -> Frames:
        if name not in LABELED:
            raise DatasetError(f"{self.folder}: a data set of several compositions has no {name}.npz")
        frames = _of_formula(self.mixed, name, self.formula)
        chosen = torch.tensor([frames.kind_of(frame) == self.kind for frame in range(len(frames))])
        if not chosen.any():
            raise DatasetError(
                f"{self.folder}: no frame of {self.formula} in {name}.npz has the order of atoms and the cell of most"
                " training frames"
            )
        if left_out := len(frames) - int(chosen.sum()):
            log.warning(
                "%s: %d of %d frames of %s in %s.npz have another order of atoms or cell than most, and are left out",
                *(self.folder, left_out, len(frames), self.formula, name),
            )
        return self._with_whole_molecules(name, frames.alike(torch.nonzero(chosen)[:, 0]))


def _of_formula(dataset: MixedDataset, name: str, formula: str) -> MixedFrames:
    """The frames of one composition in one of the files."""
    frames: MixedFrames = getattr(dataset, name)
    chosen = torch.tensor([one == formula for one in frames.formulas])
    if not chosen.any():
        raise DatasetError(f"{dataset.folder}: {name}.npz has no frames of {formula}; make it from more frames")
    return frames[chosen]


def opened(folder: Path) -> Dataset | MixedDataset:
    """The data set of any kind in a folder."""
    metadata = read_metadata(folder / "metadata.json")
    return MixedDataset(folder, metadata) if metadata.is_mixed else Dataset(folder, metadata)


def load_mixed_dataset(root: Path | str, name: str, molecule: str, size: str) -> MixedDataset:
    """Open a data set of several compositions or cells. Arguments as in `load_dataset`.

    Raises:
        DatasetError: there is no such data set, or it has one composition and one cell.
    """
    folder, metadata = open_folder(root, name, molecule, size)
    if not metadata.is_mixed:
        raise DatasetError(f"{folder}: has one composition and one cell; open it with load_dataset")
    return MixedDataset(folder, metadata)
