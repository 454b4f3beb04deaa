"""Metrics of single observables: errors, means, energy offsets and diffusivities, with 95 % intervals over replicas."""

from __future__ import annotations

import logging

import numpy as np
import torch

from mdsim.evaluation.averages import area_between, error_interval, error_of_scatter, jackknife
from mdsim.evaluation.measures import ENDINGS, Measure
from mdsim.evaluation.plan import Compared
from mdsim.observables.bulk_modulus import BulkModulus, bulk_modulus_GPa
from mdsim.observables.densities import MUCH_UNVISITED, UNVISITED, unvisited
from mdsim.stability.intervals import mean_interval

log = logging.getLogger("mdsim")

DIFFUSIVITY_UNIT = "_1e-9_m2_per_s"
ENERGY_OFFSET = "potential_energy_minus_labels_meV"
BULK_MODULUS = f"{BulkModulus.name}_GPa"
MEAN_OF = "_mean"  # follows the name of a distribution whose mean is reported


def observable_errors(
    name: str,
    axis: np.ndarray,
    reference: np.ndarray,
    values: np.ndarray,
    weights: np.ndarray,
    measure: Measure | None = None,
) -> dict[str, float | None]:
    """Mean absolute error of the average over replicas weighted by their stable frames.

    Args:
        name: name of the observable.
        axis: bin centers or lags, evenly spaced.
        reference: one value per bin.
        values: one row per replica.
        weights: weights of the replicas.
        measure: of the observable. None: that of the axis.

    Returns:
        Range × mean |g - g_ref| over bins, the paper's measure: the area between the densities. For correlation
        functions, structure factors and single values, mean |g - g_ref|. The mean of a distribution and of its
        reference where the measure has one. No error without a reference.
    """
    measure = measure or Measure.of_axis(axis)
    known = (weights > 0) & np.isfinite(values).all(-1)
    if not known.any():
        return {f"{name}_mae": None} if measure.has_reference else {}
    values, weights = values[known], weights[known]
    means: dict[str, float | None] = {}
    if measure.mean_unit is not None:
        ending = ENDINGS.get(measure.mean_unit, "")
        means = _means(f"{name}{MEAN_OF}", ending, axis, reference, values, weights)
    return _errors(name, axis, reference, values, weights, measure) | means if measure.has_reference else means


def _errors(
    name: str, axis: np.ndarray, reference: np.ndarray, values: np.ndarray, weights: np.ndarray, measure: Measure
) -> dict[str, float | None]:
    """Errors of the average over replicas and of single replicas."""
    interval = error_interval(axis, reference, values, weights, measure.is_density)
    own = area_between(axis, reference, values, measure.is_density)
    return {
        f"{name}_mae": interval.estimate,
        f"{name}_mae_low": or_none(interval.low),
        f"{name}_mae_high": or_none(interval.high),
        f"{name}_mae_replica_mean": float(own.mean()),
        f"{name}_mae_replica_std": float(own.std()),
        f"{name}_mae_of_scatter": or_none(error_of_scatter(axis, values, weights, measure.is_density)),
    }


def _means(
    key: str, ending: str, axis: np.ndarray, reference: np.ndarray, values: np.ndarray, weights: np.ndarray
) -> dict[str, float | None]:
    """Mean of a distribution or a single value, averaged over replicas, and that of its reference."""

    def mean(rows: np.ndarray) -> np.ndarray:
        return rows[:, 0] if len(axis) == 1 else rows @ axis / rows.sum(-1)

    interval = jackknife(mean, values, weights)
    found = {
        f"{key}{ending}": interval.estimate,
        f"{key}{ending}_low": or_none(interval.low),
        f"{key}{ending}_high": or_none(interval.high),
    }
    expected = float(mean(reference[None])[0])
    return found if np.isnan(expected) else found | {f"{key}_reference{ending}": expected}


def bulk_modulus(moments: np.ndarray, weights: np.ndarray, temperature_K: float) -> dict[str, float | None]:
    """The isothermal bulk modulus in GPa by the fluctuations of all replicas, with a jackknife interval over them.

    The interval is that of the logarithm, because a modulus is positive.

    Args:
        moments: means of volume (Å³) and squared volume (Å⁶) of each replica.
        weights: weights of the replicas.
        temperature_K: temperature.
    """
    known = (weights > 0) & np.isfinite(moments).all(-1)
    if not known.any():
        return {BULK_MODULUS: None}
    interval = jackknife(lambda rows: np.log(bulk_modulus_GPa(rows, temperature_K)), moments[known], weights[known])
    return {
        BULK_MODULUS: or_none(float(np.exp(interval.estimate))),
        f"{BULK_MODULUS}_low": or_none(float(np.exp(interval.low))),
        f"{BULK_MODULUS}_high": or_none(float(np.exp(interval.high))),
    }


def unvisited_share(
    name: str, reference: np.ndarray, values: np.ndarray, weights: np.ndarray
) -> dict[str, float | None]:
    """Share of a reference density in bins that no stable frame of any replica visits, with a warning if it is large.

    Args:
        name: name of the observable.
        reference: one value per bin.
        values: one row per replica.
        weights: weights of the replicas.
    """
    known = (weights > 0) & np.isfinite(values).all(-1)
    if not known.any() or not reference.sum() > 0:
        return {f"{name}{UNVISITED}": None}
    share = float(unvisited(torch.from_numpy(reference), torch.from_numpy(values[known].sum(0))))
    if share > MUCH_UNVISITED:
        log.warning("%s: no stable frame is where %.0f %% of the reference is", name, 100 * share)
    return {f"{name}{UNVISITED}": share}


def energy_offset(
    axis: np.ndarray, reference: np.ndarray, values: np.ndarray, weights: np.ndarray
) -> dict[str, float | None]:
    """Mean potential energy of the simulation minus that of the labels, meV, by the distributions of both.

    Args:
        axis: bin centers, eV.
        reference: distribution of the labels, 1/eV.
        values: distribution of the energies of each replica, 1/eV.
        weights: weights of the replicas.
    """
    known = (weights > 0) & np.isfinite(values).all(-1)
    if not known.any():
        return {ENERGY_OFFSET: None}
    to_meV = 1000 * axis * (axis[1] - axis[0])
    interval = jackknife(lambda rows: (rows - reference) @ to_meV, values[known], weights[known])
    return {
        ENERGY_OFFSET: interval.estimate,
        f"{ENERGY_OFFSET}_low": or_none(interval.low),
        f"{ENERGY_OFFSET}_high": or_none(interval.high),
    }


def diffusivity_values(
    name: str, compared: Compared, values: np.ndarray, correction: float | None
) -> dict[str, float | None]:
    """The diffusivity, its reference, and its value in an infinite box, all in 1e-9 m²/s.

    Args:
        name: name of the observable.
        compared: the observable and its reference in a box of the same size.
        values: one per replica; NaN if it broke.
        correction: finite-size correction, the same for reference and simulation. None if unknown.
    """
    reference, error = float(compared.reference[0]), compared.standard_error
    interval = value_interval(name, values)
    mean = interval[f"{name}{DIFFUSIVITY_UNIT}"]
    return interval | {
        f"{name}_reference{DIFFUSIVITY_UNIT}": reference,
        f"{name}_reference_standard_error{DIFFUSIVITY_UNIT}": None if error is None else float(error[0]),
        f"{name}_finite_size_correction{DIFFUSIVITY_UNIT}": correction,
        f"{name}_infinite_box{DIFFUSIVITY_UNIT}": None if mean is None or correction is None else mean + correction,
    }


def value_interval(name: str, values: np.ndarray) -> dict[str, float | None]:
    """Mean over the replicas that have a diffusivity (1e-9 m²/s), with a 95 % interval from their scatter."""
    known = values[np.isfinite(values)]
    if not len(known):
        return dict.fromkeys([f"{name}{DIFFUSIVITY_UNIT}{bound}" for bound in ("", "_low", "_high")])
    interval = mean_interval(known)
    found = zip(("", "_low", "_high"), (interval.estimate, interval.low, interval.high), strict=True)
    return {f"{name}{DIFFUSIVITY_UNIT}{bound}": or_none(value) for bound, value in found}


def or_none(value: float) -> float | None:
    """The value, or None if it is not finite."""
    return value if np.isfinite(value) else None
