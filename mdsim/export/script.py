"""Scripts from templates: the names of the force field and of the script, filled in."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path
from string import Template

import torch
from ase import Atoms
from ase.data import chemical_symbols

import mdsim
from mdsim.calculator import check_energy_zero_name
from mdsim.datasets.sources.ase_files import read_images_in_A
from mdsim.errors import ConfigError
from mdsim.export.registry import Order
from mdsim.force_field import ForceField
from mdsim.models.loading import load_force_field


def write_script(template: str, order: Order, **more: str) -> Path:
    """Fill in a template and write it; its path.

    The names in a template, each after a dollar sign: ``script``, the name of the file; ``about``, a line on the force
    field; ``force_field``, the arguments of `ForceFieldCalculator` as a Python literal; and those of ``more``.

    Raises:
        CheckpointError: the checkpoint holds no force field.
        ConfigError: the energy zero is unknown, or the script would hide a package of its name.
    """
    check_energy_zero_name(order.energy_zero)
    _check_module_name(order.output)
    model = load_force_field(order.checkpoint, order.allow_factory)
    known = {"script": order.output.name, "about": about(model), "force_field": arguments(order), **more}
    return write_text(order.output, Template(template).substitute(known))


def structure_of(path: Path) -> Atoms:
    """The last frame of a file.

    Raises:
        DatasetError: the file cannot be read.
    """
    return read_images_in_A(path)[0][-1]


def about(model: ForceField) -> str:
    """The force field and the release in one line."""
    known = ", ".join(symbols(model)) or "unknown elements"
    repulsion = "" if model.repulsion is None else " with a repulsion of nuclei"
    return f"{type(model).__name__}{repulsion} for {known}, exported by mdsim {mdsim.__version__}."


def arguments(order: Order) -> str:
    """The arguments that load the force field, as a Python literal."""
    values = {"checkpoint": str(order.checkpoint.resolve()), "energy_zero": order.energy_zero}
    if order.allow_factory is not None:
        values["allow_factory"] = order.allow_factory
    return json.dumps(values, indent=4, ensure_ascii=False).replace("\n}", ",\n}")


def _check_module_name(path: Path) -> None:
    """Refuse names of packages: Python looks into the folder of a script first, and a script `ase.py` hides ASE."""
    if path.suffix != ".py" or not path.stem.isidentifier():
        return
    found = find_spec(path.stem)
    if found is not None and (found.origin is None or Path(found.origin).resolve() != path.resolve()):
        raise ConfigError(f"{path}: a script of this name hides the package {path.stem}; name it run_{path.name}")


def write_text(path: Path, text: str) -> Path:
    """Write a file under a temporary name and rename it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return path


def symbols(model: ForceField) -> list[str]:
    """The elements that the force field knows; none if the checkpoint does not say."""
    return [chemical_symbols[number] for number in elements(model)]


def elements(model: ForceField) -> list[int]:
    """Their atomic numbers: the species seen in training, or else the elements of the recorded compositions."""
    if len(model.species):
        return model.species.tolist()
    return torch.nonzero(model.reference_compositions.sum(0))[:, 0].tolist()
