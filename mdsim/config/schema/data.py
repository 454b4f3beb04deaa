"""The `data` section: the reference data of a run."""

from __future__ import annotations

from pydantic import Field

from mdsim.config.schema.base import FolderName, Section


class DataConfig(Section):
    """The data set `<path>/<name>/<molecule>/<size>`."""

    path: str = Field(description="Root folder of the data sets.")
    name: FolderName = Field(description="Family of data sets, e.g. md17 or aspirin_gfn2.")
    molecule: FolderName = Field(description="The system within the family, a folder name.")
    size: FolderName = Field(description="Size of the split: number of frames (40, 1k, 10k) or percentage (25percent).")
