"""Averages of observables over replicas, and measures and units of their errors, as stated in results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mdsim.interfaces import BinnedObservable, Observable
from mdsim.observables.densities import is_density as is_a_density

KEY = "observables"  # in the summary: the measure of each observable by name
STABLE_FRAMES, REPLICAS = "stable frames", "whole replicas"
AREA, MEAN = "area between", "mean absolute difference"
ENDINGS = {
    "1": "",
    "Å": "_A",
    "kJ/mol": "_kJ_per_mol",
    "g/cm³": "_g_per_cm3",
    "bar": "_bar",
}  # of keys of means, by unit


@dataclass(frozen=True)
class Measure:
    """How an observable is averaged and compared.

    Args:
        structural: replicas have the weights of their stable frames, otherwise equal weights.
        is_density: the error is the area between the curves, otherwise the mean absolute difference.
        error_unit: unit of the error, "1" for none. None: unknown.
        mean_unit: unit of the mean of the distribution, or of the single value, that is reported too. None: it is not.
        has_reference: whether there is a reference, and so an error.
    """

    structural: bool
    is_density: bool
    error_unit: str | None = None
    mean_unit: str | None = None
    has_reference: bool = True

    @classmethod
    def of(cls, observable: Observable, structural: bool, has_reference: bool = True) -> Measure:
        """The measure of an observable, by its attributes ``is_density``, ``error_unit`` and ``has_mean``, if any."""
        is_density = isinstance(observable, BinnedObservable) and is_a_density(observable)
        unit = getattr(observable, "unit", None)
        error_unit = getattr(observable, "error_unit", "1" if is_density else unit)
        mean_unit = unit if getattr(observable, "has_mean", False) else None
        return cls(structural, is_density, error_unit, mean_unit, has_reference)

    @classmethod
    def of_axis(cls, axis: np.ndarray) -> Measure:
        """The measure by the axis alone, for results that do not state it: lags begin with zero, and bins do not."""
        is_binned = len(axis) > 1 and bool(axis[0] != 0)
        return cls(is_binned, is_binned)

    @classmethod
    def read(cls, summary: Mapping[str, Any], name: str, axis: np.ndarray) -> Measure:
        """The measure that a summary states, or that of the axis."""
        stated = summary.get(KEY)
        found = stated.get(name) if isinstance(stated, dict) else None
        if not isinstance(found, dict):
            return cls.of_axis(axis)
        return cls(
            found.get("average_over") == STABLE_FRAMES,
            found.get("error") == AREA,
            found.get("error_unit"),
            found.get("mean_unit"),
            found.get("has_reference") is not False,
        )

    def stated(self) -> dict[str, str | bool | None]:
        """What a summary states."""
        stated: dict[str, str | bool | None] = {
            "average_over": STABLE_FRAMES if self.structural else REPLICAS,
            "error": AREA if self.is_density else MEAN,
            "error_unit": self.error_unit,
            "mean_unit": self.mean_unit,
        }
        return stated if self.has_reference else stated | {"has_reference": False}


def error_units(summary: Mapping[str, Any]) -> dict[str, str]:
    """Units of the errors by observable, where a summary states one other than 1."""
    stated = summary.get(KEY)
    found = stated.items() if isinstance(stated, dict) else ()
    units = {name: one.get("error_unit") for name, one in found if isinstance(one, dict)}
    return {name: unit for name, unit in units.items() if unit not in (None, "1")}
