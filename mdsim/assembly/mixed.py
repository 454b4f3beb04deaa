"""Frames of several compositions and cells, and what fits to them need besides those of one system."""

from __future__ import annotations

from typing import Any

from mdsim.assembly.models import add_repulsion_with_windows
from mdsim.config.schema import ModelConfig
from mdsim.datasets.folder import Dataset
from mdsim.datasets.mixed import MixedFrames
from mdsim.datasets.mixed_folder import MixedDataset
from mdsim.datasets.npz import Frames
from mdsim.datasets.systems import system_of
from mdsim.force_field import ForceField
from mdsim.repulsion.windows import zbl_from_several
from mdsim.repulsion.zbl import ZBL


def mixed_split(data: Dataset | MixedDataset, name: str) -> MixedFrames:
    """The frames of a split, of one composition or several."""
    return as_mixed(getattr(data, name))


def as_mixed(frames: Frames | MixedFrames) -> MixedFrames:
    """Frames of one composition as those of several."""
    return MixedFrames.of(frames) if isinstance(frames, Frames) else frames


def add_repulsion_of_several(model: ForceField, config: ModelConfig, frames: MixedFrames) -> None:
    """Add the repulsion that the section asks for, with windows from all frames where none are given.

    Raises:
        ConfigError: the section does not fit the frames, the cutoff, or the repulsion that is there already.
    """

    def from_data(*rule: Any) -> ZBL:
        kinds = [frames.alike(kind) for kind in frames.kinds()]
        return zbl_from_several([(system_of(kind), kind.positions) for kind in kinds], *rule)

    add_repulsion_with_windows(model, config, from_data)
