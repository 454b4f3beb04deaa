"""Registry of models: one record for each model of this package and for each of another one."""

from __future__ import annotations

from importlib import import_module

from mdsim.models.adapters.records import RECORDS as FOREIGN
from mdsim.models.record import ModelRecord

#: Folders beside this file, each with the ``RECORD`` of a model in its ``record.py``.
FOLDERS = (
    "schnet",
    "nequip",
    "gemnet",
)

#: Records by the names of models in configurations and checkpoints.
MODELS: dict[str, ModelRecord] = {
    record.name: record
    for record in (*(import_module(f"mdsim.models.{folder}.record").RECORD for folder in FOLDERS), *FOREIGN)
}
