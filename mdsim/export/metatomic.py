"""Export to metatomic: one file with the traced model, which its engines run without mdsim.

The file is for the CPU, in float64. The engine finds the pairs; the model is traced as a function of their vectors, so
that one file serves systems of any size. Energies are total energies; where the training data do not determine their
zero it is estimated, as by ``energy_zero="estimated"``.

Needs `metatomic-torch`.
"""

# No `from __future__ import annotations`: TorchScript reads the annotations of what it compiles.

import os
import warnings
from pathlib import Path
from typing import Dict, List, Optional, Tuple, Union

import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import (
    AtomisticModel,
    ModelCapabilities,
    ModelMetadata,
    ModelOutput,
    NeighborListOptions,
    System,
)

from mdsim.boundaries import cell_of
from mdsim.errors import ConfigError, one_line
from mdsim.export.registry import Order
from mdsim.export.script import about, elements, structure_of
from mdsim.force_field import ForceField
from mdsim.models.loading import load_force_field
from mdsim.neighbors import Neighbors, pairs_within
from mdsim.state import System as MdsimSystem

TOLERANCE = 1e-9  # of the trace, see `_difference`
SIZES = (9, 1, 2, 5, 40)  # atoms; the trace is made with the first number and checked with the others

#: Arguments of `TotalEnergies`: atomic numbers, first and second atoms of the pairs, their vectors (Å).
Structure = Tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


class TotalEnergies(torch.nn.Module):
    """The energy of each atom, its share of the zero of energy included, as a function of the vectors of pairs.

    Args:
        force_field: the force field.
        topology: a system with the bonds and molecules of all that the model is given. None: no bonds.
    """

    def __init__(self, force_field: ForceField, topology: Optional[MdsimSystem] = None) -> None:
        super().__init__()
        self.force_field, self.topology = force_field, topology

    def forward(
        self, atomic_numbers: torch.Tensor, first: torch.Tensor, second: torch.Tensor, vectors: torch.Tensor
    ) -> torch.Tensor:
        n_atoms = atomic_numbers.shape[0]
        bonds, molecules = atomic_numbers.new_zeros(0, 2), atomic_numbers.new_zeros(n_atoms)
        if self.topology is not None:
            bonds, molecules = self.topology.bonds, self.topology.molecules
        system = MdsimSystem(atomic_numbers, vectors.new_ones(n_atoms), None, bonds, molecules)
        # With all atoms in the origin, the shift of a pair is its vector.
        pairs = Neighbors(first, second, vectors)
        atomic = self.force_field.atomic_energies(system, vectors.new_zeros(1, n_atoms, 3), pairs)[0]
        return atomic.double() + self.force_field.zero_energies_eV(system)


class MetatomicModel(torch.nn.Module):
    """The interface of metatomic around the traced energies.

    Args:
        energies: traced `TotalEnergies`.
        cutoff: Å.
        only_for: atomic numbers of the only system that the model is for. Empty: any.
    """

    only_for: torch.Tensor

    def __init__(self, energies: torch.nn.Module, cutoff: float, only_for: torch.Tensor) -> None:
        super().__init__()
        self.energies = energies
        self.options = NeighborListOptions(cutoff=cutoff, full_list=False, strict=True)
        self.register_buffer("only_for", only_for)

    def requested_neighbor_lists(self) -> List[NeighborListOptions]:
        return [self.options]

    def forward(
        self,
        systems: List[System],
        outputs: Dict[str, ModelOutput],
        selected_atoms: Optional[Labels],
    ) -> Dict[str, TensorMap]:
        results: Dict[str, TensorMap] = {}
        if "energy" not in outputs:
            return results
        of_atoms = outputs["energy"].sample_kind == "atom"
        values: List[torch.Tensor] = []
        samples: List[torch.Tensor] = []
        for number, system in enumerate(systems):
            energies, atoms = self.of_system(system)
            if selected_atoms is not None:
                chosen = selected_atoms.column("atom")[selected_atoms.column("system") == number].to(torch.int64)
                energies, atoms = energies[chosen], atoms[chosen]
            if of_atoms:
                values.append(energies[:, None])
                samples.append(torch.stack([torch.full_like(atoms, number), atoms], dim=1))
            else:
                values.append(energies.sum().reshape(1, 1))
                samples.append(torch.full_like(system.types[:1].to(torch.int64), number)[:, None])
        names = ["system", "atom"] if of_atoms else ["system"]
        block = TensorBlock(
            values=torch.cat(values),
            samples=Labels(names, torch.cat(samples)),
            components=torch.jit.annotate(List[Labels], []),
            properties=Labels(["energy"], torch.zeros(1, 1, dtype=torch.int64, device=values[0].device)),
        )
        keys = Labels(["_"], torch.zeros(1, 1, dtype=torch.int64, device=values[0].device))
        results["energy"] = TensorMap(keys, [block])
        return results

    def of_system(self, system: System) -> Tuple[torch.Tensor, torch.Tensor]:
        """The energy and the number of each atom."""
        atomic_numbers = system.types.to(torch.int64)
        if self.only_for.shape[0] > 0 and not torch.equal(atomic_numbers, self.only_for):
            raise ValueError("the model was exported with --structure, and is for these atoms in this order only")
        pairs = system.get_neighbor_list(self.options)
        first, second = pairs.samples.column("first_atom"), pairs.samples.column("second_atom")
        vectors = pairs.values.squeeze(-1)
        energies = self.energies(atomic_numbers, first.to(torch.int64), second.to(torch.int64), vectors)
        return energies.to(vectors.dtype), torch.arange(len(system), device=energies.device)


def write(order: Order) -> List[Path]:
    """Write the file.

    Raises:
        ConfigError: the force field needs a structure and there is none, or it cannot be traced.
    """
    model = load_force_field(order.checkpoint, order.allow_factory)
    topology = None
    if _needs_bonds(model):
        if order.structure is None:
            raise ConfigError(
                "--structure is missing: the repulsion of the force field depends on bonds, which no engine tells its "
                "models; name the atoms to simulate"
            )
        atoms = structure_of(order.structure)
        topology = MdsimSystem.from_geometry(atoms.numbers, atoms.positions, cell_of(atoms), torch.float64)
    elif order.structure is not None:
        raise ConfigError(
            "--structure: the force field depends on no bonds, and its file serves any atoms; leave it out"
        )
    temporary = order.output.with_name(f".{order.output.name}.{os.getpid()}.tmp")
    atomistic_model(model, topology).save(str(temporary))
    temporary.replace(order.output)
    return [order.output]


def atomistic_model(force_field: ForceField, topology: Optional[MdsimSystem] = None) -> AtomisticModel:
    """A force field as a model of metatomic.

    Args:
        force_field: it is moved to float64 and frozen.
        topology: the only system that the model is for, with its bonds. None: any system.

    Raises:
        ConfigError: its elements are not known, or it cannot be traced.
    """
    known = elements(force_field)
    if not known:
        raise ConfigError("the checkpoint does not say which elements the force field was trained for")
    force_field = force_field.double().eval().requires_grad_(False)
    energies = TotalEnergies(force_field, topology)
    random = torch.Generator().manual_seed(0)
    if topology is None:
        structures = [_structure(known, n_atoms, force_field.cutoff, random) for n_atoms in SIZES]
    else:
        structures = [_structure(topology.atomic_numbers, None, force_field.cutoff, random) for _ in range(3)]
    traced = _traced(energies, structures)
    only_for = torch.zeros(0, dtype=torch.int64) if topology is None else topology.atomic_numbers
    capabilities = ModelCapabilities(
        outputs={"energy": ModelOutput(unit="eV", sample_kind="atom")},
        atomic_types=known,
        interaction_range=force_field.interaction_range_A,
        length_unit="angstrom",
        supported_devices=["cpu"],
        dtype="float64",
    )
    metadata = ModelMetadata(name="mdsim", description=about(force_field))
    return AtomisticModel(MetatomicModel(traced, force_field.cutoff, only_for).eval(), metadata, capabilities)


def _needs_bonds(model: ForceField) -> bool:
    return model.repulsion is not None and model.repulsion.selection != "all"


def _structure(
    numbers: Union[List[int], torch.Tensor], n_atoms: Optional[int], cutoff: float, random: torch.Generator
) -> Structure:
    """Atoms at random positions: of random elements among the numbers, or without `n_atoms` one of each number."""
    numbers = torch.as_tensor(numbers)
    if n_atoms is not None:
        numbers = numbers[torch.randint(len(numbers), (n_atoms,), generator=random)]
    spread = 1.2 * len(numbers) ** (1 / 3)
    positions = spread * torch.randn(1, len(numbers), 3, generator=random, dtype=torch.float64)
    pairs = pairs_within(None, positions, cutoff)
    return numbers, pairs.first, pairs.second, pairs.displacements(positions)


def _traced(energies: TotalEnergies, structures: List[Structure]) -> torch.jit.ScriptModule:
    """The function traced with the first structure, and compared with the model at the others."""
    name = type(energies.force_field).__name__
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            traced = torch.jit.trace(energies, structures[0], check_trace=False)
            differences = [_difference(energies, traced, structure) for structure in structures[1:]]
    except Exception as error:  # models of any kind raise errors of any kind
        raise ConfigError(f"{name} cannot be traced: {one_line(error)}") from error
    if not all(difference <= TOLERANCE for difference in differences):
        raise ConfigError(
            f"{name} cannot be traced: the trace differs from it by {max(differences):.1e} for another number of "
            "atoms; a model must use the pairs alone, and sizes from shapes"
        )
    return traced


def _difference(energies: TotalEnergies, traced: torch.jit.ScriptModule, structure: Structure) -> float:
    """Largest difference of energies (eV) and gradients (eV/Å), relative to the largest value where that exceeds 1."""
    *arguments, vectors = structure
    results = []
    for function in (energies, traced):
        at = vectors.clone().requires_grad_()
        values = function(*arguments, at)
        (gradient,) = torch.autograd.grad(values.sum(), at, allow_unused=True)
        results.append(torch.cat([values.detach(), (torch.zeros_like(at) if gradient is None else gradient).flatten()]))
    expected, found = results
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1.0))
