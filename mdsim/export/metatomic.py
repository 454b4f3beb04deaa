"""Export to metatomic: one file with the traced model, which its engines run without mdsim.

The file is for the CPU, in float64. The engine finds the pairs; the model is traced as a function of their vectors, so
that one file serves systems of any size. Energies are total energies; where the training data do not determine their
zero it is estimated, as by ``energy_zero="estimated"``.

Needs `metatomic-torch`.
"""

# No `from __future__ import annotations`: TorchScript reads the annotations of what it compiles.

import os
import warnings
from typing import Dict, List, Optional, Tuple

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

from mdsim.calculator import cell_of
from mdsim.errors import ConfigError
from mdsim.export.registry import Order
from mdsim.export.script import about, elements, structure_of
from mdsim.force_field import ForceField
from mdsim.models.loading import load_force_field
from mdsim.neighbors import Neighbors, pairs_within
from mdsim.state import System as MdsimSystem

TOLERANCE = 1e-9  # of energies (eV) and their gradients, relative to the largest
CHECKED_SIZES = (1, 2, 5, 40)  # atoms; the trace is made with another number


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


def write(order: Order) -> List[os.PathLike]:
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
        example, *others = (_structure(known, n, force_field.cutoff, random) for n in (9, *CHECKED_SIZES))
    else:
        example, *others = (_structure(topology.atomic_numbers, 0, force_field.cutoff, random) for _ in range(3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        traced = torch.jit.trace(energies, example, check_trace=False)
    for structure in others:
        _check(energies, traced, structure)
    only_for = torch.zeros(0, dtype=torch.int64) if topology is None else topology.atomic_numbers
    capabilities = ModelCapabilities(
        outputs={"energy": ModelOutput(unit="eV", sample_kind="system")},
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


def _structure(known, n_atoms: int, cutoff: float, random: torch.Generator) -> Tuple[torch.Tensor, ...]:
    """Random atoms as the arguments of `TotalEnergies`: of the known elements, or all of them if none are asked for."""
    numbers = torch.as_tensor(known)
    if n_atoms:
        numbers = numbers[torch.randint(len(numbers), (n_atoms,), generator=random)]
    n_atoms = len(numbers)
    positions = 1.2 * n_atoms ** (1 / 3) * torch.randn(1, n_atoms, 3, generator=random, dtype=torch.float64)
    pairs = pairs_within(None, positions, cutoff)
    return numbers, pairs.first, pairs.second, pairs.displacements(positions)


def _check(energies: TotalEnergies, traced: torch.nn.Module, structure: Tuple[torch.Tensor, ...]) -> None:
    """Compare the traced function and its gradient with the model."""
    results = []
    for function in (energies, traced):
        *rest, vectors = structure
        vectors = vectors.clone().requires_grad_()
        values = function(*rest, vectors)
        (gradient,) = torch.autograd.grad(values.sum(), vectors, allow_unused=True)
        results.append((values.detach(), torch.zeros_like(vectors) if gradient is None else gradient))
    for expected, found in zip(*results, strict=True):
        if not torch.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE):
            raise ConfigError(
                f"{type(energies.force_field).__name__} cannot be traced: for {len(structure[0])} atoms the traced "
                f"model differs by {float((found - expected).abs().max()):.1e} eV; it must use pairs and shapes only"
            )
