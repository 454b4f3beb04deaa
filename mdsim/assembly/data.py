"""Reference data sets named by a configuration."""

from __future__ import annotations

from mdsim.config.schema import DataConfig
from mdsim.datasets.folder import Dataset, load_dataset


def dataset(config: DataConfig, size: str | None = None) -> Dataset:
    """The data set of a configuration, optionally in another size."""
    return load_dataset(config.path, config.name, config.molecule, size or config.size)
