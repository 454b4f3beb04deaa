"""Errors of a fit on every split, as a table and for `metrics.json`."""

from __future__ import annotations

import logging
from typing import Any

import torch

from mdsim import assembly
from mdsim.datasets.folder import Dataset
from mdsim.datasets.mixed import MixedFrames
from mdsim.datasets.mixed_folder import MixedDataset
from mdsim.evaluation.errors import errors_on, evenly_spaced
from mdsim.force_field import ForceField
from mdsim.losses import Labeled, mixed_errors
from mdsim.reporting.console import format_table
from mdsim.training.mixed_labels import MixedLabels, predictions
from mdsim.typing import Int, Tensor

log = logging.getLogger("mdsim")

SPLITS = ("train", "val", "test")
MOST_COMPOSITIONS = 20  # with errors of their own


def errors_of_fit(
    model: ForceField,
    data: Dataset | MixedDataset,
    batch_size: int,
    device_name: str | None,
    most_frames: int | None = None,
) -> dict[str, Any]:
    """Errors by split. Several compositions, if they are few, have errors of their own in `compositions`.

    Args:
        model: the force field.
        data: the labeled frames.
        batch_size: frames at a time.
        device_name: see `assembly.device`.
        most_frames: of each split, evenly spaced; `of_frames` is then the number of all. None: all frames.
    """
    device = assembly.device(device_name)
    splits = {name: getattr(data, name) for name in SPLITS}
    some = {name: evenly_spaced(frames, most_frames) for name, frames in splits.items()}
    counts = {name: _counts(len(some[name]), len(frames)) for name, frames in splits.items()}
    if has_stress(data) or isinstance(data, MixedDataset):
        model = model.to(device, torch.float32)
        found = {name: _of_split(model, assembly.as_mixed(frames), batch_size) for name, frames in some.items()}
    else:
        system = data.system().to(device)
        model = model.to(device, system.masses.dtype)
        found = {name: errors_on(model, system, frames, batch_size) for name, frames in some.items()}
    return {name: {**counts[name], **found[name]} for name in SPLITS}


def _counts(evaluated: int, of_all: int) -> dict[str, int]:
    return {"frames": evaluated} | ({} if evaluated == of_all else {"of_frames": of_all})


def left_out(errors: dict[str, Any]) -> str:
    """The splits of which not all frames were evaluated, in words. Empty: there are none."""
    some = [f"{e['frames']} of {e['of_frames']} {name}" for name, e in errors.items() if "of_frames" in e]
    return f", of {', '.join(some)} frames, evenly spaced (optim.max_test_frames)" if some else ""


def has_stress(data: Dataset | MixedDataset) -> bool:
    """Whether any frame has a stress label."""
    return any(bool(assembly.mixed_split(data, name).has_stress.any()) for name in SPLITS)


def as_table(errors: dict[str, Any]) -> str:
    """A line per split, then one per composition of the test frames."""
    keys = list(dict.fromkeys(key for found in errors.values() for key in found if key != "compositions"))
    lines = dict(errors)
    lines |= {f"test, {formula}": found for formula, found in errors["test"].get("compositions", {}).items()}
    rows = [[name, *(f"{found[key]:.4g}" if key in found else "-" for key in keys)] for name, found in lines.items()]
    return format_table(["split", *keys], rows)


def _of_split(model: ForceField, frames: MixedFrames, batch_size: int) -> dict[str, Any]:
    labeled = MixedLabels.of(frames, next(model.parameters()), find_bonds=model.repulsion is not None)
    labels = labeled.labels(range(len(labeled)), labeled.relative_energy(model))
    found = predictions(model, labeled, batch_size, with_stress=bool(frames.has_stress.any()))
    errors: dict[str, Any] = mixed_errors(found, labels, labeled.n_atoms)
    compositions = frames.compositions
    if 1 < len(compositions) <= MOST_COMPOSITIONS:
        owners = torch.repeat_interleave(labeled.n_atoms)
        errors["compositions"] = {}
        for formula, count in compositions.items():
            chosen = torch.tensor([one == formula for one in frames.formulas], device=owners.device)
            some = mixed_errors(_part(found, chosen, owners), _part(labels, chosen, owners), labeled.n_atoms[chosen])
            errors["compositions"][formula] = {"frames": count, **some}
    return errors


def _part(of: Labeled, chosen: Tensor, owners: Int[Tensor, "atom"]) -> Labeled:
    return Labeled(of.energy[chosen], of.forces[chosen[owners]], None if of.stress is None else of.stress[chosen])
