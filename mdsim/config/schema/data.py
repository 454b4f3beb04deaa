"""The `data` section: the reference data of a run."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from mdsim.atomic_energies import fault_of_table
from mdsim.config.schema.base import FolderName, Section


def _is_a_table(table: dict[str, float]) -> dict[str, float]:
    if (fault := fault_of_table(table)) is not None:
        raise ValueError(f"must be {fault}")
    return table


class DataConfig(Section):
    """The data set `<path>/<name>/<molecule>/<size>`."""

    path: str = Field(description="Root folder of the data sets.")
    name: FolderName = Field(description="Family of data sets, e.g. md17 or aspirin_gfn2.")
    molecule: FolderName = Field(description="The system within the family, a folder name.")
    size: FolderName = Field(description="Size of the split: number of frames (40, 1k, 10k) or percentage (25percent).")
    composition: FolderName | None = Field(
        None,
        description="Composition to take from a data set of several, e.g. C2H6O. Dynamics need one; null: a fit uses "
        "all of them.",
    )


class PretrainDataConfig(DataConfig):
    """The data set `<path>/<name>/<molecule>/<size>` of a fit, and the energies of its isolated atoms."""

    atomic_energies_eV: Annotated[dict[str, float], AfterValidator(_is_a_table)] | None = Field(
        None,
        description="Energies of isolated atoms by chemical symbol, the reference energies of the fit; null: those in "
        "metadata.json; {}: none.",
    )
