"""The reference data of a configuration."""

from __future__ import annotations

from mdsim.config.schema import DataConfig
from mdsim.datasets.folder import Dataset, load_dataset


def dataset(config: DataConfig, size: str | None = None) -> Dataset:
    """The data set of a configuration, or another size of it."""
    return load_dataset(config.path, config.name, config.molecule, size or config.size)
