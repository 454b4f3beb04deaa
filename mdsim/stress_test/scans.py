"""Scans along paths: jumps of energies and slopes, holes, and missing repulsion.

*Jumps.* Between two points the energy must change by the integral of the slopes. Its error varies smoothly along a
path. An outlier is a jump of the energy, as of atoms that cross a cutoff where the potential is not zero. In the same
way an outlier of the second differences of the slopes is a jump of the forces. Each suspect is looked at again with 32
times smaller steps. A jump remains as large as it was, while everything smooth shrinks. Only points within a few eV of
the structure count, because no dynamics gets farther.

*Holes.* The rigid distortion of a structure near its minimum costs energy. Where it gains more than 0.3 eV beyond a
barrier, atoms fall into a region without training data. The barrier says whether dynamics gets there.

*Repulsion.* From 0.8 to 0.5 times the sum of covalent radii any two atoms repel each other. Where the energy falls
instead, nothing stops a collision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from mdsim.interfaces import Potential
from mdsim.stress_test.findings import Finding, Level
from mdsim.stress_test.paths import Path
from mdsim.typing import Float, Tensor
from mdsim.units import KB_EV_PER_K

REACHABLE_EV = 5.0
SEVERE_JUMP_EV = 1e-3
SMALLEST_JUMP_EV, SMALLEST_KINK_EV_PER_A = 1e-4, 5e-3
ABOVE_NOISE, ABOVE_NEIGHBORS = 20.0, 12.0
NEIGHBORS = 5  # points on each side
FINER, REMAINS = 32, 0.3  # smaller steps around a suspect, and the part of a jump that must remain
HOLE_EV, BARRIER_EV = 0.3, 0.05
UNREACHABLE_EV = 10.0  # a barrier that no dynamics crosses: the path runs into other atoms
SLIDE_EV = 2.0  # depth of a hole without a barrier: a structure off its minimum may gain less than that
NOT_FOR_HOLES = ("breathing", "line")  # all atoms move, towards a better density or structure perhaps
WALL = 0.8  # of the sum of covalent radii, from where atoms repel
LOW_BARRIER_KT = 20.0  # a barrier that dynamics of nanoseconds may cross
MOST_NAMED = 3


@dataclass(frozen=True)
class Scan:
    """Energies along a path relative to the structure, and what is wrong with them."""

    kind: str
    name: str
    unit: str
    coordinate: list[float]
    energy_eV: list[float]
    jump_eV: float | None  # largest jump of the energy
    jump_at: float | None
    kink_eV_per_A: float | None  # largest jump of the slope, per unit of the coordinate
    kink_at: float | None
    hole_eV: float | None  # lowest energy beyond the barrier
    hole_at: float | None
    barrier_eV: float | None  # highest energy on the way there
    wall_eV: float | None  # highest energy on the way to where repulsion ends; None if it does not end


def scan(potential: Potential, paths: Sequence[Path], noise_eV: float) -> list[Scan]:
    """Energies along paths.

    Args:
        potential: energies (eV) and forces (eV/Å), in double precision if possible.
        paths: of one system.
        noise_eV: rounding noise of the energies.
    """
    return [_scan(potential, path, noise_eV) for path in paths]


def _scan(potential: Potential, path: Path, noise_eV: float) -> Scan:
    """The scan of one path."""
    energy, forces = potential(path.positions)
    relative = (energy - energy[path.start]).double()
    jump, jump_at = _confirmed(_jump, potential, path, relative, _slopes(path, forces), noise_eV)
    kink, kink_at = _confirmed(_kink, potential, path, relative, _slopes(path, forces), noise_eV)
    hole, hole_at, barrier = _hole(path, relative)
    return Scan(
        path.kind,
        path.name,
        path.unit,
        path.coordinate.tolist(),
        relative.tolist(),
        jump,
        jump_at,
        kink,
        kink_at,
        hole,
        hole_at,
        barrier,
        _wall(path, relative),
    )


def judge(scans: Sequence[Scan], temperature_K: float) -> list[Finding]:
    """The findings on smoothness, holes and repulsion.

    Args:
        scans: of all paths.
        temperature_K: highest temperature of the test, which says which barriers matter.
    """
    low_eV = LOW_BARRIER_KT * KB_EV_PER_K * temperature_K
    return [_smoothness(scans), _holes(scans, low_eV), _repulsion(scans, low_eV)]


def as_json(scans: Sequence[Scan]) -> list[dict[str, Any]]:
    """The scans as plain data."""
    return [asdict(one) for one in scans]


def _smoothness(scans: Sequence[Scan]) -> Finding:
    jumps = sorted((s for s in scans if s.jump_eV is not None), key=lambda s: -abs(s.jump_eV or 0))
    kinks = sorted((s for s in scans if s.kink_eV_per_A is not None), key=lambda s: -abs(s.kink_eV_per_A or 0))
    values: dict[str, Any] = {"n_paths": len(scans), "n_with_jumps": len(jumps), "n_with_kinks": len(kinks)}
    if jumps:
        s = jumps[0]
        assert s.jump_eV is not None and s.jump_at is not None
        values |= {"largest_jump_eV": abs(s.jump_eV), "path": s.name, "at": s.jump_at}
        text = f"the energy jumps on {len(jumps)} of {len(scans)} paths, by up to {1000 * abs(s.jump_eV):.3g} meV"
        level: Level = "fail" if abs(s.jump_eV) >= SEVERE_JUMP_EV else "warn"
        return Finding("smoothness", level, f"{text} ({s.name}, at {s.jump_at:.3g} {s.unit}".rstrip() + ")", values)
    if kinks:
        s = kinks[0]
        assert s.kink_eV_per_A is not None and s.kink_at is not None
        values |= {"largest_kink_eV_per_A": abs(s.kink_eV_per_A), "path": s.name, "at": s.kink_at}
        text = f"forces jump on {len(kinks)} of {len(scans)} paths, by up to {abs(s.kink_eV_per_A):.3g} eV/Å ({s.name})"
        return Finding("smoothness", "warn", text, values)
    return Finding("smoothness", "pass", f"no jump of energies or forces on {len(scans)} paths", values)


def _holes(scans: Sequence[Scan], low_eV: float) -> Finding:
    found = sorted((s for s in scans if s.hole_eV is not None), key=lambda s: s.barrier_eV or 0)
    values = {"n_holes": len(found), "holes": [_hole_values(s) for s in found]}
    if not found:
        return Finding("holes", "pass", f"no hole on {len(scans)} paths", values)
    first = found[0]
    assert first.barrier_eV is not None and first.hole_at is not None
    text = (
        f"{len(found)} of {len(scans)} paths lead into a hole; the lowest barrier is {first.barrier_eV:.2f} eV "
        f"({first.name}, {first.hole_eV:.1f} eV at {first.hole_at:.3g} {first.unit})"
    )
    level: Level = "fail" if first.barrier_eV < low_eV else "warn"
    return Finding("holes", level, text, values)


def _repulsion(scans: Sequence[Scan], low_eV: float) -> Finding:
    pairs = [s for s in scans if s.kind in ("stretch", "approach")]
    found = sorted((s for s in pairs if s.wall_eV is not None), key=lambda s: s.wall_eV or 0)
    values = {"n_pairs": len(pairs), "missing": [{"path": s.name, "wall_eV": s.wall_eV} for s in found]}
    if not pairs:
        return Finding("repulsion", "skipped", "no pair of atoms to push together", values)
    if not found:
        return Finding("repulsion", "pass", f"all {len(pairs)} pairs of atoms repel each other at short range", values)
    first = found[0]
    assert first.wall_eV is not None
    named = ", ".join(s.name for s in found[:MOST_NAMED]) + (", ..." if len(found) > MOST_NAMED else "")
    text = f"{len(found)} of {len(pairs)} pairs stop repelling at short range, first beyond {first.wall_eV:.1f} eV"
    level: Level = "fail" if first.wall_eV < low_eV else "warn"
    return Finding("repulsion", level, f"{text} ({named})", values)


def _hole_values(s: Scan) -> dict[str, Any]:
    return {"path": s.name, "at": s.hole_at, "unit": s.unit, "energy_eV": s.hole_eV, "barrier_eV": s.barrier_eV}


def _slopes(path: Path, forces: Float[Tensor, "point atom 3"]) -> Float[Tensor, "point"]:
    """Slopes of the energy along the path, eV per unit of its coordinate."""
    return -(forces.double() * path.tangent).sum((-2, -1))


def _confirmed(
    search: Callable[[Path, Tensor, Tensor, float], tuple[float | None, float | None]],
    potential: Potential,
    path: Path,
    energy: Float[Tensor, "point"],
    slopes: Float[Tensor, "point"],
    noise_eV: float,
) -> tuple[float | None, float | None]:
    """Size and place of a jump, if it remains with smaller steps."""
    size, place = search(path, energy, slopes, noise_eV)
    if size is None or place is None:
        return None, None
    finer = _around(path, place)
    fine_energy, forces = potential(finer.positions)
    relative = (fine_energy - fine_energy[0]).double()
    again, exactly = search(finer, relative, _slopes(finer, forces), noise_eV)
    return (again, exactly) if again is not None and again > REMAINS * size else (None, None)


def _around(path: Path, place: float) -> Path:
    """Straight line through the points around a place of a path, with smaller steps."""
    index = int((path.coordinate - place).abs().argmin())
    low, high = max(0, index - 1), min(len(path.coordinate) - 1, index + 1)
    ends, places = path.positions[[low, high]], path.coordinate[[low, high]]
    values = torch.linspace(float(places[0]), float(places[1]), FINER * (high - low) + 1, dtype=torch.float64)
    tangent = (ends[1] - ends[0]) / (places[1] - places[0])
    positions = ends[0] + (values - places[0])[:, None, None] * tangent
    return replace(path, coordinate=values, start=0, positions=positions, tangent=tangent.expand_as(positions))


def _jump(path: Path, energy: Tensor, slopes: Tensor, noise_eV: float) -> tuple[float | None, float | None]:
    """The largest jump of the energy between two neighboring points, and its place."""
    steps = path.coordinate.diff()
    error = energy.diff() - 0.5 * (slopes[1:] + slopes[:-1]) * steps
    reachable = _reachable(energy)
    outlier, size = _outliers(error, reachable[1:] & reachable[:-1])
    outlier &= size > max(SMALLEST_JUMP_EV, ABOVE_NOISE * (noise_eV if noise_eV == noise_eV else 0.0))
    return _largest(outlier, size, 0.5 * (path.coordinate[1:] + path.coordinate[:-1]))


def _kink(path: Path, energy: Tensor, slopes: Tensor, noise_eV: float) -> tuple[float | None, float | None]:
    """The largest jump of the slope per Å of the fastest atom, and its place."""
    speed = path.tangent.square().sum(-1).amax(-1).sqrt()
    steepness = slopes / speed
    second = steepness[2:] - 2 * steepness[1:-1] + steepness[:-2]
    reachable = _reachable(energy)
    outlier, size = _outliers(second, reachable[2:] & reachable[1:-1] & reachable[:-2])
    return _largest(outlier & (size > SMALLEST_KINK_EV_PER_A), size, path.coordinate[1:-1])


def _outliers(error: Float[Tensor, "step"], reachable: Tensor) -> tuple[Tensor, Tensor]:
    """Steps whose error differs from those around it, and by how much."""
    n = len(error)
    padded = torch.nn.functional.pad(error[None, None], (NEIGHBORS, NEIGHBORS), mode="replicate")[0, 0]
    around = padded.unfold(0, 2 * NEIGHBORS + 1, 1)  # step, neighbor
    others = torch.cat([around[:, : NEIGHBORS - 1], around[:, NEIGHBORS + 2 :]], dim=1)
    middle = others.median(-1).values
    size = (error - middle).abs()
    spread = (others - middle[:, None]).abs().median(-1).values
    assert len(size) == n
    return reachable & torch.isfinite(size) & (size > ABOVE_NEIGHBORS * spread), size


def _largest(outlier: Tensor, size: Tensor, places: Tensor) -> tuple[float | None, float | None]:
    if not bool(outlier.any()):
        return None, None
    index = int(torch.where(outlier, size, 0.0).argmax())
    return float(size[index]), float(places[index])


def _reachable(energy: Float[Tensor, "point"]) -> Tensor:
    return torch.isfinite(energy) & (energy.abs() < REACHABLE_EV)


def _hole(path: Path, energy: Float[Tensor, "point"]) -> tuple[float | None, float | None, float | None]:
    """Depth, place and barrier of the hole with the lowest barrier."""
    best: tuple[float, float, float] | None = None
    if path.kind in NOT_FOR_HOLES:
        return None, None, None
    forward, backward = torch.arange(path.start, len(energy)), torch.arange(path.start, -1, -1)
    for way in (forward, backward):
        along = energy[way]
        passed = along.cummax(0).values > BARRIER_EV
        deep = ~(along > torch.where(passed, -HOLE_EV, -SLIDE_EV))  # not a number is a hole as well
        if not bool(deep.any()):
            continue
        first = int(deep.int().argmax())
        barrier = float(along[:first].max()) if first else 0.0
        if barrier < (UNREACHABLE_EV if best is None else best[2]):
            lowest = int(along.nan_to_num(nan=torch.inf, neginf=-torch.inf).argmin())
            best = float(along[lowest]), float(path.coordinate[way[lowest]]), barrier
    return best if best is not None else (None, None, None)


def _wall(path: Path, energy: Float[Tensor, "point"]) -> float | None:
    """Highest energy on the way to where repulsion ends. None if it does not end, or the path has no pair."""
    if not path.radii_A:
        return None
    near = torch.nonzero(path.coordinate < WALL * path.radii_A)[:, 0].flip(0)  # inwards
    inward = energy[near]
    falls = ~(inward.diff() > 0)
    if not bool(falls.any()):
        return None
    end = int(near[int(falls.int().argmax())])
    return float(energy[end : max(end, path.start) + 1].max())
