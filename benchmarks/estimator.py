"""Benchmark of the Boltzmann estimator: time and memory of one gradient of SchNet for an RDF of 500 bins.

    python -m benchmarks.estimator [--structures 2560] [--minibatches 20 40 80]

The published code builds a sample × parameter matrix and takes the outer product with the bins: about 1,400 s and 20 GB
for 2,560 aspirin structures on two cores. This package takes one backward pass per minibatch. The parts of the gradient
are timed as well.
"""

from __future__ import annotations

import torch

from benchmarks.cases import Case, load_case
from benchmarks.common import announce, arguments, median_seconds, peak_memory_MiB, print_table
from mdsim.estimator.boltzmann import boltzmann_gradient
from mdsim.estimator.sample_energies import structure_energies
from mdsim.losses import sum_squared_error
from mdsim.observables.rdf import RDF
from mdsim.state import Trajectory
from mdsim.typing import Float, Tensor
from mdsim.units import kT_eV

PUBLISHED_S = 1400.0


class Gradient:
    """The gradient of the squared RDF error over all structures."""

    def __init__(self, case: Case, n_structures: int) -> None:
        self.case = case
        self.positions = case.frames.repeat(-(-n_structures // len(case.frames)), 1, 1)[:n_structures]
        self.rdf = RDF(10.0, 0.02)
        self.values = self.observable()
        self.reference = 0.9 * self.values.mean(0)

    def observable(self) -> Float[Tensor, "sample bin"]:
        return self.rdf(self.case.system, Trajectory(self.positions[:, None], None, None, 1.0))[:, 0]

    def __call__(self, minibatch: int) -> object:
        return boltzmann_gradient(
            structure_energies(self.case.force_field, self.case.system, self.positions),
            self.case.force_field.trainable_parameters,
            self.values,
            lambda mean: sum_squared_error(mean, self.reference),
            kT_eV(self.case.temperature_K),
            minibatch_size=minibatch,
        )

    def energies(self, minibatch: int) -> None:
        energies = structure_energies(self.case.force_field, self.case.system, self.positions)
        with torch.no_grad():
            for part in torch.arange(len(self.positions)).split(minibatch):
                energies(part)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--structures", type=int, default=2560)
    parser.add_argument("--minibatches", nargs="+", type=int, default=[40, 250, 640])
    known = parser.parse_args()
    torch.set_num_threads(known.threads)
    torch.set_flush_denormal(True)  # as the scripts do
    announce()
    gradient = Gradient(load_case("schnet", "aspirin"), known.structures)
    gradient(known.minibatches[0])
    memory = {size: peak_memory_MiB(lambda size=size: gradient(size)) for size in sorted(known.minibatches)}
    seconds = median_seconds({str(size): lambda size=size: gradient(size) for size in known.minibatches}, 3, warm_up=0)
    rows = [
        [size, f"{taken:.2f}", f"{1e3 * taken / known.structures:.3f}", f"{memory[int(size)]:.0f}"]
        for size, taken in seconds.items()
    ]
    header = ["minibatch", "s", "ms/structure", "MiB more"]
    if known.structures == 2560:
        header.append("published / s")
        rows = [[*row, f"{PUBLISHED_S / taken:.0f}"] for row, taken in zip(rows, seconds.values(), strict=True)]
    print_table(f"Boltzmann gradient, {known.structures} structures, 500 bins", header, rows)

    best = int(min(seconds, key=seconds.__getitem__))
    parts = {
        "energies, no graph": lambda: gradient.energies(best),
        "whole gradient": lambda: gradient(best),
        "RDF of the structures": gradient.observable,
    }
    taken = median_seconds(parts, 3, warm_up=0)
    print_table(f"Its parts, minibatches of {best}", ["part", "s"], [[k, f"{v:.3f}"] for k, v in taken.items()])


if __name__ == "__main__":
    main()
