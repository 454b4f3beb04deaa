"""Observables that are densities: their normalization, and the part of a reference that no sample visits."""

from __future__ import annotations

from mdsim.interfaces import BinnedObservable
from mdsim.observables.distances import DistanceDistribution
from mdsim.observables.rdf import RDF
from mdsim.typing import Float, Tensor

LEAST_AREA, LARGEST_AREA = 0.5, 1.1  # of a density; less if values lie beyond its range
LARGEST_LEVEL = 1.5  # of g(r) at large r, or its inverse

UNVISITED = "_unvisited"  # ends the name of the share of a reference that no sample visits
MUCH_UNVISITED = 0.1  # a larger share is worth a warning


def is_density(observable: BinnedObservable) -> bool:
    """Whether the bins of an observable divide a distribution, by its attribute ``is_density`` if it has one."""
    return getattr(observable, "is_density", len(observable.bin_centers) > 1)


def check_normalization(observable: BinnedObservable, reference: Float[Tensor, "bin"]) -> None:
    """Refuse a reference from elsewhere that cannot be the density that an observable computes.

    g(r) must be close to 1 at large distances, and the area of other densities must be close to 1. Distributions of
    distances are parts of a density, whose area may be small.

    Args:
        observable: the observable; other than densities pass.
        reference: value in each of its bins, in its unit.

    Raises:
        ValueError: a negative value, or another normalization.
    """
    if not is_density(observable):
        return
    centers = observable.bin_centers.to(reference)
    if bool((reference < 0).any()):
        raise ValueError(f"{observable.name} is a density, and the reference has the value {float(reference.min()):g}")
    if isinstance(observable, RDF) and observable.normalization == "ideal_gas":
        shells = centers.square() * (centers > centers.mean())
        level = float((shells * reference).sum() / shells.sum())
        if not 1 / LARGEST_LEVEL < level < LARGEST_LEVEL:
            raise ValueError(
                f"{observable.name} is g(r), which approaches 1, and beyond {float(centers.mean()):.3g} Å the "
                f"reference is {level:.3g} on average: normalize it by the ideal gas"
            )
        return
    area = float(reference.sum() * (centers[1] - centers[0]))
    least = 0.0 if isinstance(observable, RDF | DistanceDistribution) else LEAST_AREA
    if not least <= area <= LARGEST_AREA:
        raise ValueError(f"{observable.name} is a density of area 1, and the reference has the area {area:.3g}")


def unvisited(reference: Float[Tensor, "bin"], mean: Float[Tensor, "bin"]) -> Float[Tensor, ""]:
    """Share of a reference density in bins where the mean of all samples is zero.

    No estimator from these samples has a gradient toward this part.
    """
    reference = reference.to(mean)
    return (reference * (mean == 0)).sum() / reference.sum()
