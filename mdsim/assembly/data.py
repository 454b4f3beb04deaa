"""Reference data sets named by a configuration."""

from __future__ import annotations

from ase.formula import Formula
from ase.symbols import Symbols

from mdsim.config.schema import DataConfig
from mdsim.datasets.folder import Dataset, open_folder
from mdsim.datasets.mixed_folder import MixedDataset, opened
from mdsim.errors import ConfigError


def dataset(config: DataConfig, size: str | None = None) -> Dataset:
    """The data set of a configuration, of one composition, optionally in another size.

    Raises:
        ConfigError: the section names no composition of the data set.
        DatasetError: there is no such data set.
    """
    found, formula = labeled_data(config, size), None if config.composition is None else hill(config.composition)
    if isinstance(found, MixedDataset):
        return found.of_composition(formula)
    own = Symbols(found.metadata.atomic_numbers).get_chemical_formula()
    if formula not in (None, own):
        raise ConfigError(f"data.composition: found {config.composition}, but {found.folder} has frames of {own} only")
    return found


def labeled_data(config: DataConfig, size: str | None = None) -> Dataset | MixedDataset:
    """All frames of the data set of a configuration."""
    folder, _ = open_folder(config.path, config.name, config.molecule, size or config.size)
    return opened(folder)


def hill(formula: str, key: str = "data.composition") -> str:
    """The composition in Hill's order, for any order and any repetition of elements.

    Raises:
        ConfigError: it is none. The message names the key.
    """
    try:
        return Formula(formula).format("hill")
    except ValueError as error:
        raise ConfigError(f"{key}: {error}; write it as C2H6O") from error
