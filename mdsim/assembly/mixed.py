"""Frames of several compositions and cells, and what fits to them need besides those of one system."""

from __future__ import annotations

import logging

from mdsim.assembly.models import check_kept
from mdsim.config.schema import ModelConfig
from mdsim.datasets.folder import Dataset
from mdsim.datasets.mixed import MixedFrames
from mdsim.datasets.mixed_folder import MixedDataset
from mdsim.datasets.npz import Frames
from mdsim.datasets.systems import system_of
from mdsim.errors import ConfigError
from mdsim.force_field import ForceField
from mdsim.models import repelled
from mdsim.repulsion.windows import zbl_from_several
from mdsim.repulsion.zbl import parsed

log = logging.getLogger("mdsim")


def mixed_split(data: Dataset | MixedDataset, name: str) -> MixedFrames:
    """The frames of a split, of one composition or several."""
    frames: Frames | MixedFrames = getattr(data, name)
    return MixedFrames.of(frames) if isinstance(frames, Frames) else frames


def add_repulsion_of_several(model: ForceField, config: ModelConfig, frames: MixedFrames) -> None:
    """Add the repulsion that the section asks for, with windows from all frames where none are given.

    Raises:
        ConfigError: the section does not fit the frames, the cutoff, or the repulsion that is there already.
    """
    wanted = config.repulsion
    if wanted is None:
        return
    try:
        given = parsed(wanted.windows_A)
        if model.repulsion is not None:
            check_kept(model.repulsion, wanted.pairs, given)
            return
        kinds = [frames.alike(kind) for kind in frames.kinds()]
        systems = [(system_of(kind), kind.positions) for kind in kinds]
        repulsion = zbl_from_several(systems, model.cutoff, wanted.pairs, model.species.tolist(), given)
        repelled.add_repulsion(model, repulsion)
    except ValueError as error:
        raise ConfigError(f"model.repulsion: {error}") from error
    log.info("repulsion of nuclei (ZBL), pairs: %s, %s", wanted.pairs, repulsion)
