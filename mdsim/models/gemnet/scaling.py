"""Scaling factors of GemNet: constants, fitted to data once, that preserve the variance of features.

The variance of a product with a basis, or of a sum over neighbors, does not follow from the weights. The output is
therefore multiplied by √(variance in / variance out), measured on training data (Gasteiger et al., arXiv 2106.08903,
section 6).
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from mdsim.errors import CheckpointError
from mdsim.typing import Float, Int, Tensor

log = logging.getLogger("mdsim")


class ScaleFactor(nn.Module):
    """A constant factor. It is 1 until it is fitted or read."""

    scale_factor: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale_factor", torch.tensor(1.0))
        self.fitting = False

    def forward(
        self,
        reference: Float[Tensor, "row channel"],
        x: Float[Tensor, "other channel_out"],
        counts: Int[Tensor, "row"] | None = None,
    ) -> Float[Tensor, "other channel_out"]:
        """The output of an operation times the factor.

        Args:
            reference: the input, used only while fitting.
            x: the output.
            counts: number of times that each row of the reference entered the operation.
        """
        if self.fitting:
            ratio = float(_variance(reference, counts) / _variance(x))
            if math.isfinite(ratio) and ratio > 0.0:  # false for a diatomic molecule, which has no triplets
                self.scale_factor.fill_(math.sqrt(ratio))
        return self.scale_factor * x


def _variance(x: Float[Tensor, "row channel"], counts: Int[Tensor, "row"] | None = None) -> Float[Tensor, ""]:
    """Variance over rows, averaged over channels. In float64, because there are many rows."""
    x = x.detach().double()
    weights = x.new_ones(len(x), 1) if counts is None else counts.to(x)[:, None]
    deviation = x - (weights * x).sum(0) / weights.sum()
    return (weights * deviation.square()).sum(0).mean() / (weights.sum() - 1.0)


def scale_factors(model: nn.Module) -> dict[str, ScaleFactor]:
    """The scaling factors of a model, by their names in the published files."""
    return {_published_name(path): module for path, module in model.named_modules() if isinstance(module, ScaleFactor)}


def _published_name(path: str) -> str:
    """Published name of a factor: `int_blocks.0.trip_interaction.scale_rbf` is TripInteraction_1_had_rbf."""
    blocks, number, *inner = path.split(".")
    if blocks == "out_blocks":
        return f"OutBlock_{number}_sum"
    block = {"trip_interaction": "TripInteraction", "atom_update": "AtomUpdate"}[inner[0]]
    operation = {"scale_rbf": "had_rbf", "scale_cbf_sum": "sum_cbf", "scale_sum": "sum"}[inner[1]]
    return f"{block}_{int(number) + 1}_{operation}"


@contextmanager
def fitting(model: nn.Module) -> Iterator[None]:
    """Within this context, each factor is fitted to the data that pass through it before it is applied.

    One evaluation on one batch fits all factors, because data reach the factors in the order of their dependence.
    """
    factors = scale_factors(model).values()
    for factor in factors:
        factor.fitting = True
    try:
        with torch.no_grad():
            yield
    finally:
        for factor in factors:
            factor.fitting = False


def write_scale_factors(model: nn.Module, path: str | os.PathLike) -> None:
    """Write the factors as JSON, name to number."""
    path = Path(path)
    values = {name: float(factor.scale_factor) for name, factor in scale_factors(model).items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_scale_factors(model: nn.Module, path: str | os.PathLike) -> None:
    """Take the factors from a JSON file, such as those published with GemNet.

    Other factors in the file, such as those of further blocks or of direct forces, are logged and ignored.

    Raises:
        CheckpointError: the file is missing or not JSON, lacks a factor of the model, or has one that is not positive.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds a {type(values).__name__}, not scaling factors by name")
    factors = scale_factors(model)
    if missing := sorted(factors.keys() - values.keys()):
        raise CheckpointError(f"{path} lacks the scaling factors {', '.join(missing)} of this model")
    for name in factors:
        value = values[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value < math.inf:
            raise CheckpointError(f"{path}: {name} is {value!r}, expected a positive number")
    if unused := sorted(values.keys() - factors.keys() - {"comment"}):
        log.warning("%s: not used, as the model has no such scaling factors: %s", path, ", ".join(unused))
    for name, factor in factors.items():
        factor.scale_factor.fill_(values[name])
