"""The trajectory files of a run."""

from __future__ import annotations

from pathlib import Path

from mdsim.config.schema import TrainConfig, TrajectoryConfig
from mdsim.dynamics.stretch import Stretch
from mdsim.reporting.trajectories import FORMATS, FileSettings
from mdsim.training.recorded import Recording


def file_settings(config: TrajectoryConfig) -> FileSettings:
    """The format of trajectory files.

    Raises:
        ConfigError: a package that the format needs is missing.
    """
    FORMATS[config.format].check_available()
    return FileSettings(config.format, config.xtc_precision_per_nm)


def recording(config: TrainConfig, stretch: Stretch, folder: Path) -> Recording | None:
    """The trajectories that a training keeps; None if it keeps none.

    Raises:
        ConfigError: a package that the format needs is missing.
    """
    chosen = config.trajectory
    return Recording(folder, stretch, chosen.replicas, file_settings(chosen)) if chosen.replicas else None
