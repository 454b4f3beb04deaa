"""Models of metatomic, as engines read them: TorchScript programs, whose parameters are trained in place.

There is no architecture to rebuild: a checkpoint of such a model names the file of the program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from metatensor.torch import Labels, TensorBlock
from metatomic.torch import (
    AtomisticModel,
    ModelEvaluationOptions,
    ModelOutput,
    System,
    load_atomistic_model,
)

from mdsim.errors import CheckpointError, ConfigError, one_line
from mdsim.models.adapters.common import origin_of
from mdsim.models.adapters.metatomic_zero import with_shifts
from mdsim.models.edge_model import EdgeModel, Graph
from mdsim.models.frozen import frozen_copy
from mdsim.reference_energies import N_ELEMENTS
from mdsim.typing import Float, Tensor

PACKAGE = "metatomic-torch"
PAIRS = ["first_atom", "second_atom", "cell_shift_a", "cell_shift_b", "cell_shift_c"]
SHIFTS_PER_A = 1000  # whole numbers that tell the images of a pair apart, where metatomic has numbers of cells
FAR = 10.0  # cutoffs between isolated atoms


class Metatomic(EdgeModel):
    """A model of metatomic. All replicas are one of its systems, without a cell: neighbors are across boundaries.

    The energies of isolated atoms, which are part of the program, are left to the zero of energy.

    Args:
        species: atomic numbers that the model knows.
        cutoff: Å.
        file: path of the program.
        origin: the file as it was when the model was first read, see `origin_of`.

    Raises:
        ConfigError: the file is missing, or is another one.
        CheckpointError: it is no model of energies per atom.
    """

    def __init__(self, species: Sequence[int], cutoff: float, file: str, origin: dict[str, str]) -> None:
        super().__init__(cutoff, tuple(species))
        self.hyperparameters = {"cutoff": self.cutoff, "file": file, "origin": origin}
        if not Path(file).is_file() or origin_of(Path(file), PACKAGE)["sha256"] != origin["sha256"]:
            raise ConfigError(f"{file}: is missing or has changed, and is the program of the model: put it back")
        self.network = loaded(Path(file))
        self.network.requires_grad_(True)  # files have all parameters frozen
        self.precision = getattr(torch, self.network.capabilities().dtype)
        self.asked = ModelEvaluationOptions("angstrom", {"energy": ModelOutput(unit="eV", sample_kind="atom")})
        self.isolated_eV = torch.zeros(N_ELEMENTS, dtype=torch.float64)
        with torch.no_grad():
            self.isolated_eV[list(species)] = self.node_energies(_isolated(species, cutoff))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Metatomic:
        # A program is for one precision.
        network = self.network
        del self._modules["network"]
        super()._apply(fn, recurse)
        self.network = network.to(self.species.device)
        self.isolated_eV = self.isolated_eV.to(self.species.device)
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Metatomic:
        # The parameters of a copied program would be results of the original ones.
        copied = memo[id(self)] = frozen_copy(self)
        for mine, theirs in zip(copied.parameters(), self.parameters(), strict=True):
            mine.requires_grad_(theirs.requires_grad)
        return copied.train(self.training)

    def node_energies(self, graph: Graph) -> Float[Tensor, "node"]:
        """Energy of each node in eV, without that of the isolated atom in the file."""
        positions = graph.positions.to(self.precision)
        open_cell = positions.new_zeros(3, 3), torch.zeros(3, dtype=torch.bool, device=positions.device)
        system = System(graph.atomic_numbers.int(), positions, *open_cell)
        for options in self.network.requested_neighbor_lists():
            system.add_neighbor_list(options, self._neighbors(graph, options))
        with torch.jit.optimized_execution(False):  # the last bit of optimized code depends on how often it has run
            energies = self.network([system], self.asked, False)["energy"].block()
        atoms = energies.samples.column("atom").long()
        in_order = torch.zeros_like(self.isolated_eV[graph.atomic_numbers])
        in_order = in_order.index_copy(0, atoms, energies.values[:, 0].double())
        return in_order - self.isolated_eV[graph.atomic_numbers]

    def _neighbors(self, graph: Graph, options: Any) -> Any:
        """One of the neighbor lists that the program asks for, by its options, with the images of pairs told apart."""
        one_direction = graph.edges.shape[1] // 2
        kept = torch.arange(graph.edges.shape[1] if options.full_list else one_direction, device=graph.edges.device)
        reach = options.engine_cutoff("angstrom")
        if reach < self.cutoff:
            kept = kept[~(graph.vectors[kept].detach().square().sum(-1) >= reach**2)]
        images = (SHIFTS_PER_A * graph.shifts[kept].detach()).round().int()
        samples = torch.cat([graph.edges[:, kept].T.int(), images], dim=1)
        xyz, distance = (Labels.range(name, n).to(samples.device) for name, n in (("xyz", 3), ("distance", 1)))
        vectors = graph.vectors[kept].to(self.precision)[:, :, None]
        return TensorBlock(vectors, Labels(PAIRS, samples, assume_unique=True), [xyz], distance)


def _isolated(species: Sequence[int], cutoff: float) -> Graph:
    """One atom of each species, far from the others."""
    along = FAR * cutoff * torch.arange(len(species), dtype=torch.float64)
    none = torch.zeros(0, 3, dtype=torch.float64)
    edges, batch = torch.zeros(2, 0, dtype=torch.long), torch.zeros(len(species), dtype=torch.long)
    return Graph(torch.tensor(species), along[:, None] * torch.eye(3).double()[0], edges, none, none, batch, 1)


def loaded(path: Path) -> AtomisticModel:
    """The program in a file.

    Raises:
        CheckpointError: it is none, or does not give the energy of each atom from its neighbors.
    """
    try:
        network = load_atomistic_model(path)
    except Exception as error:  # a program can raise anything
        raise CheckpointError(f"{path}: metatomic cannot read it ({one_line(error, 200)})") from error
    found = network.capabilities()
    energy = found.outputs.get("energy")
    if energy is None or energy.sample_kind != "atom":
        raise CheckpointError(f"{path}: the model does not give the energy of each atom, which is needed here")
    if found.length_unit == "" or energy.unit == "":
        raise CheckpointError(f"{path}: the model does not say its units of lengths and energies")
    if network.requested_inputs(use_new_names=True) or not network.requested_neighbor_lists():
        raise CheckpointError(f"{path}: the model needs more than atoms and their neighbors, or no neighbors at all")
    return network


def read(path: Path) -> Metatomic:
    """The force field in a file that `AtomisticModel.save` of metatomic wrote.

    Args:
        path: the file. It is a program, which is run.

    Raises:
        CheckpointError: see `loaded`; or it has no parameters, or types of atoms that are no elements.
    """
    network = loaded(path)
    numbers = sorted(network.capabilities().atomic_types)
    if not list(network.parameters()) or not all(0 < number < N_ELEMENTS for number in numbers):
        raise CheckpointError(f"{path}: holds a model without parameters, or with types of atoms that are no elements")
    cutoff = max(options.engine_cutoff("angstrom") for options in network.requested_neighbor_lists())
    model = Metatomic(numbers, cutoff, str(path.resolve()), origin_of(path, PACKAGE))
    model.fit_energy_zero([], torch.zeros(0), {number: float(model.isolated_eV[number]) for number in numbers})
    return model


def write(model: Metatomic, path: Path) -> None:
    """Write the program with its parameters, and with the zero of energy where that has moved."""
    network = model.frozen_copy().network
    with_shifts(network, (model.reference_energies_eV - model.isolated_eV).cpu()).save(str(path))
