"""Benchmark of scaling: time and memory against the number of atoms and replicas of liquid water.

    python -m benchmarks.scaling [--threads 2] [--only atoms rdf replicas memory]

Larger systems are supercells of equal density, so linear scaling means a constant time per atom.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import torch

from benchmarks.cases import load_model, load_system, repeated
from benchmarks.common import Action, announce, arguments, median_seconds, peak_memory_MiB, print_table
from mdsim import interfaces, memory
from mdsim.force_field import ForceField
from mdsim.geometry import pair_distances
from mdsim.neighbors.cell_list import cell_list_search
from mdsim.neighbors.direct import direct_search
from mdsim.observables import RDF, MinimumDistance
from mdsim.observables.histogram import tuple_histogram
from mdsim.observables.pairs import PairKind
from mdsim.state import System, Trajectory
from mdsim.typing import Float, Tensor

REPLICAS = (1, 2, 4, 8)
COPIES = (1, 2, 4)  # along each axis: 192, 1536 and 12288 atoms
REACH_A = 5.5  # cutoff and skin
DIRECT_UP_TO = 1536  # atoms for which all pairs are searched as well
FORCES_UP_TO = {"schnet": 12288, "nequip": 1536}  # atoms; plain NequIP needs too much memory for more
BUDGETS_GB = (0.5, 2.0, 8.0)


def water(n: int, n_frames: int = 1) -> tuple[System, Float[Tensor, "frame atom 3"]]:
    """A supercell of n × n × n copies of the bundled water."""
    system, frames, _ = load_system("water")
    return repeated(system, frames[:n_frames], n)


def forces(force_field: ForceField, system: System, positions: Tensor) -> Action:
    """A force call by the plain path, with a valid neighbor list."""
    return partial(force_field.bind(system), positions)


def over_atoms() -> None:
    """Neighbor search and force calls for one replica."""
    rows = []
    for n in COPIES:
        system, positions = water(n)
        actions: dict[str, Action] = {"neighbors, cells": partial(cell_list_search, system.cell, positions, REACH_A)}
        if system.n_atoms <= DIRECT_UP_TO:
            actions["neighbors, direct"] = partial(direct_search, system.cell, positions, REACH_A)
        for model, most in FORCES_UP_TO.items():
            if system.n_atoms <= most:
                actions[f"forces, {model}"] = forces(load_model(model, "water", system), system, positions)
        rows += _rows(system.n_atoms, median_seconds(actions, repetitions=3))
    print_table("one replica", HEADER, rows)


def over_atoms_observables() -> None:
    """RDF up to 6 Å and closest contact of one frame, and the same RDF from all pairs of atoms."""
    rows = []
    for n in COPIES:
        system, positions = water(n)
        frame = Trajectory(positions[:, None], None, None, 1.0)
        rdf, oxygens = (RDF(6.0, 0.02, pair, "ideal_gas") for pair in (None, ("O", "O")))
        actions: dict[str, Action] = {
            "RDF": partial(rdf, system, frame),
            "RDF of O-O": partial(oxygens, system, frame),
            "closest contact": partial(MinimumDistance(), system, frame),
        }
        if system.n_atoms <= DIRECT_UP_TO:
            everything = PairKind().all_of(system)
            actions["RDF, all pairs"] = partial(
                tuple_histogram, pair_distances, frame.positions, everything, system.cell, rdf.bins
            )
        rows += _rows(system.n_atoms, median_seconds(actions, repetitions=3))
    print_table("one frame", HEADER, rows)


def over_replicas() -> None:
    """Neighbor search and SchNet forces for several replicas of 192 and 1536 atoms."""
    rows = []
    for n in COPIES[:2]:
        for n_replicas in REPLICAS:
            system, positions = water(n, n_replicas)
            actions = {
                "neighbors, cells": partial(cell_list_search, system.cell, positions, REACH_A),
                "forces, schnet": forces(load_model("schnet", "water", system), system, positions),
            }
            taken = median_seconds(actions, repetitions=3)
            rows += [[str(n_replicas), *row] for row in _rows(system.n_atoms, taken, n_replicas)]
    print_table("replicas", ["replicas", *HEADER], rows)


def over_budgets() -> None:
    """Time and peak memory of SchNet forces of 8 replicas of 1536 atoms, for increasing budgets."""
    rows = []
    for budget_GB in BUDGETS_GB:
        # In a separate process, because memory kept by the allocator would not be counted again.
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            peak, seconds = process.submit(_under_budget, budget_GB, torch.get_num_threads()).result()
        rows.append([str(budget_GB), f"{peak:.0f}", f"{seconds:.2f}"])
    print_table("SchNet forces, 8 replicas of 1536 atoms", ["budget (GB)", "peak (MiB)", "s"], rows)


def _under_budget(budget_GB: float, threads: int) -> tuple[float, float]:
    """Peak memory (MiB) of a first force call, and seconds of a second one."""
    torch.set_num_threads(threads)
    memory.set_budget_GB(budget_GB)
    interfaces.CPU_GROUP_BYTES = float("inf")  # the budget alone decides
    system, positions = water(2, 8)
    action = forces(load_model("schnet", "water", system), system, positions)
    peak = peak_memory_MiB(action)
    return peak, median_seconds({"": action}, repetitions=1, warm_up=0)[""]


HEADER = ["atoms", "work", "ms", "µs per atom"]


def _rows(n_atoms: int, seconds: dict[str, float], n_replicas: int = 1) -> list[list[str]]:
    return [
        [str(n_atoms), name, f"{1e3 * taken:.3g}", f"{1e6 * taken / n_atoms / n_replicas:.3g}"]
        for name, taken in seconds.items()
    ]


PARTS = {"atoms": over_atoms, "rdf": over_atoms_observables, "replicas": over_replicas, "memory": over_budgets}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    announce()
    for name in chosen.only:
        PARTS[name]()


if __name__ == "__main__":
    main()
