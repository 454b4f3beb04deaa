"""The subject that a command line names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ase.calculators.calculator import BaseCalculator

from mdsim.errors import CheckpointError, ConfigError
from mdsim.force_field import ForceField
from mdsim.models import load_force_field
from mdsim.models.registry import MODELS
from mdsim.stress_test.subjects.base import Subject
from mdsim.stress_test.subjects.calculator_worker import ASE_PREFIX, KEY, make_calculator
from mdsim.stress_test.subjects.calculators import CalculatorSubject
from mdsim.stress_test.subjects.force_field import ForceFieldSubject

FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
WAYS = "a checkpoint, ase:NAME (a calculator of ASE), or package.module:factory (of a calculator or torch-sim model)"


def load_subject(
    specification: str,
    device: torch.device,
    model: str | None = None,
    options: Mapping[str, Any] | None = None,
    allow_unpickling: bool = False,
    allow_factory: str | None = None,
    n_processes: int = 1,
) -> Subject:
    """What a stress test examines.

    Args:
        specification: a file that `load_force_field` reads (or the name of a model that a package ships), ``ase:NAME``,
            or ``package.module:factory``, whose result is an ASE calculator, a torch-sim model or a `ForceField`.
        device: of force fields of mdsim.
        model, options, allow_unpickling, allow_factory: see `load_force_field`.
        n_processes: processes of an ASE calculator.

    Raises:
        UserError: there is nothing like that, or it cannot be loaded.
    """
    if not Path(specification).exists() and (specification.startswith(ASE_PREFIX) or FACTORY.fullmatch(specification)):
        return _made(specification, device, n_processes)
    located = MODELS[model].located(specification) if model is not None else Path(specification)
    if model is None and not located.exists():
        raise CheckpointError(
            f"{KEY}: there is no file {specification}; name {WAYS}. Names of models that a package ships, such as "
            "7net-0, need --model"
        )
    force_field = load_force_field(located, allow_factory, model, options, allow_unpickling)
    return _of_force_field(force_field, specification, device)


def _of_force_field(force_field: ForceField, specification: str, device: torch.device) -> ForceFieldSubject:
    factory = f"{type(force_field).__module__}:{type(force_field).__qualname__}"
    names = [name for name, record in MODELS.items() if record.factory == factory]
    return ForceFieldSubject(force_field.to(device), specification, (*names, type(force_field).__name__)[0])


def _made(specification: str, device: torch.device, n_processes: int) -> Subject:
    """The subject of what a factory returns."""
    found = make_calculator(specification)
    if isinstance(found, ForceField):
        return _of_force_field(found, specification, device)
    if isinstance(found, BaseCalculator) or (hasattr(found, "get_forces") and hasattr(found, "get_potential_energy")):
        return CalculatorSubject(found, specification, n_processes)
    if isinstance(found, torch.nn.Module) and hasattr(found, "compute_forces"):  # a ModelInterface
        try:
            from mdsim.stress_test.subjects.torch_sim import TorchSimSubject
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"{KEY}: {specification} returned a model of torch-sim: pip install 'mdsim[engines]'"
            ) from error
        return TorchSimSubject(found, specification)
    raise ConfigError(
        f"{KEY}: {specification} returned a {type(found).__name__}, but it must return an ASE calculator, a torch-sim "
        "model or a ForceField of mdsim"
    )
