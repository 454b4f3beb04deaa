"""The force field: a model of atomic energies, whose forces are minus the gradient of their sum."""

from __future__ import annotations

import copy
import fnmatch
import logging
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Generic, TypeVar

import torch

from mdsim.energy_zero import EnergyZero
from mdsim.errors import UnknownSpeciesError
from mdsim.interfaces import Potential
from mdsim.memory import announce_division, budget_bytes, bytes_for
from mdsim.neighbors import NeighborList, Neighbors, groups_of_replicas, neighbors
from mdsim.repulsion.zbl import ZBL
from mdsim.state import System
from mdsim.typing import Float, Tensor

FAST_TOLERANCE = 1e-6  # largest interpolation error, below float32 rounding of a network


log = logging.getLogger("mdsim")


#: Memory of the replicas evaluated together on a CPU. Larger arrays are allocated anew, page by page, in every call.
CPU_GROUP_BYTES = 1e9


class NoFastPath(Exception):
    """No fast path is available. The message gives the reason."""


def in_full_precision(like: Tensor) -> torch.autocast:
    """A context without autocast on the device of a tensor, for last layers and sums, whose digits are the energy's."""
    return torch.autocast(like.device.type, enabled=False)


class ForceField(EnergyZero):
    """A model of atomic energies. Forces are minus the gradient of their sum, and so are always conservative.

    A subclass implements `atomic_energies`, from which energies, forces and their derivatives follow. Model energies
    are relative to `zero_energy_eV`, because electronic energies (-17,000 eV for aspirin) would exhaust the digits of
    float32. Only `total_energy` adds it, in float64.

    Args:
        cutoff: distance beyond which atoms do not interact, Å.
        species: atomic numbers seen in training. `check_species` refuses others. Empty if unknown.
        energy_shift_eV: a constant in total energies, for a system that is not recorded, see `EnergyZero`.
    """

    cutoff: float  # Å
    hyperparameters: dict[str, Any]  # arguments that, with species and weights, build the same model again
    made_by: dict[str, Any] | None = None  # `factory` and `options` of a model from outside this package
    repulsion: ZBL | None = None  # part of the energies that is not learned, see `mdsim.models.repelled`
    _checked: tuple[Tensor, Tensor] | None = None  # atomic numbers of the latest system, and the species then
    message_steps: int | None = None  # from neighbor to neighbor, by which atoms affect an energy; None: unknown

    def __init__(self, cutoff: float, species: list[int] | tuple[int, ...] = (), energy_shift_eV: float = 0.0) -> None:
        super().__init__(species, energy_shift_eV)
        self.cutoff = float(cutoff)

    @property
    def interaction_range_A(self) -> float:
        """Distance beyond which atoms cannot affect the energy of an atom, infinite if it is unknown."""
        return math.inf if self.message_steps is None else self.message_steps * self.cutoff

    def atomic_energies(
        self, system: System, positions: Float[Tensor, "replica atom 3"], neighbors: Neighbors
    ) -> Float[Tensor, "replica atom"]:
        """Energy of each atom in eV; they sum to the energy of the replica, relative to `zero_energy_eV`."""
        raise NotImplementedError

    def energy(
        self,
        system: System,
        positions: Float[Tensor, "replica atom 3"],
        neighbors_of_all: Neighbors | None = None,
    ) -> Float[Tensor, "replica"]:
        """Energy of each replica in eV, relative to `zero_energy_eV`."""
        if neighbors_of_all is None:
            neighbors_of_all = neighbors(system, positions, self.cutoff)
        return self.atomic_energies(system, positions, neighbors_of_all).sum(-1)

    def total_energy(
        self,
        system: System,
        positions: Float[Tensor, "replica atom 3"],
        neighbors_of_all: Neighbors | None = None,
    ) -> Float[Tensor, "replica"]:
        """Energy of each replica in eV, float64, on the scale of the training labels.

        Raises:
            EnergyZeroError: the training data do not determine total energies of this composition.
        """
        self.check_energy_zero(system)
        return self.energy(system, positions, neighbors_of_all).double() + self.zero_energy_eV(system)

    def normalize_to(
        self,
        system: System,
        positions: Float[Tensor, "frame atom 3"],
        energy: Float[Tensor, "frame"],
        forces: Float[Tensor, "frame atom 3"],
    ) -> None:
        """Set the zero of energy, the scale and similar constants from the training set (Å, eV, eV/Å) before a fit."""
        self.fit_energy_zero([system], energy.double().mean()[None])

    def fit_scales(
        self, system: System, positions: Float[Tensor, "replica atom 3"], pairs: Neighbors, force_rms: float
    ) -> None:
        """Set scales and similar constants before a fit to frames of several compositions or cells, as `normalize_to`.

        Args:
            system, positions, pairs: some training frames as one replica, see `mdsim.flat_batch`.
            force_rms: root mean square of the force components of all training frames, eV/Å.
        """

    def recenter(
        self,
        system: System,
        positions: Float[Tensor, "frame atom 3"],
        energy: Float[Tensor, "frame"],
        batch_size: int = 32,
    ) -> float:
        """Shift the zero of energy to `fitted_zero_eV`, which has the same arguments.

        A fit learns forces sooner than the mean of the energies. Parameters and forces do not change.

        Returns:
            The shift of the zero, eV.
        """
        moved = self.fitted_zero_eV(system, positions, energy, batch_size) - float(self.zero_energy_eV(system))
        self.shift_energy_zero(system, moved)
        return moved

    def fitted_zero_eV(
        self,
        system: System,
        positions: Float[Tensor, "frame atom 3"],
        energy: Float[Tensor, "frame"],
        batch_size: int = 32,
    ) -> float:
        """The zero of energy (eV) with which total energies of labeled frames have no mean error.

        Args:
            system: the system of the frames, on the device and in the precision of the model.
            positions: Å.
            energy: labels, eV.
            batch_size: frames per batch.
        """
        potential = self.bind(system)
        batches = positions.to(system.masses).split(batch_size)
        model_energy = torch.cat([potential(batch)[0] for batch in batches]).double()
        return float((energy.to(model_energy) - model_energy).mean())

    @property
    def trainable_parameters(self) -> tuple[Tensor, ...]:
        """The parameters that require gradients, in the order of `parameters`. Others are frozen."""
        return tuple(parameter for parameter in self.parameters() if parameter.requires_grad)

    def freeze_all_but(self, patterns: Sequence[str]) -> None:
        """Freeze the parameters whose names match none of the shell patterns, such as ``interactions.2.*``.

        Parameters that the model has frozen itself stay frozen.

        Raises:
            ValueError: a pattern matches no parameter that can be trained.
        """
        names = [name for name, parameter in self.named_parameters() if parameter.requires_grad]
        for pattern in patterns:
            if not fnmatch.filter(names, pattern):
                groups = sorted({name.rsplit(".", 1)[0] for name in names})
                raise ValueError(f"{pattern!r} matches no trainable parameter; there are {', '.join(groups)}")
        for name, parameter in self.named_parameters():
            if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
                parameter.requires_grad_(False)

    def forward(
        self,
        system: System,
        positions: Float[Tensor, "replica atom 3"],
        neighbors_of_all: Neighbors | None = None,
        create_graph: bool = False,
    ) -> tuple[Float[Tensor, "replica"], Float[Tensor, "replica atom 3"]]:
        """Energies (eV) and forces (eV/Å).

        Args:
            system: the system of all replicas.
            positions: Å.
            neighbors_of_all: pairs of all replicas. Default: they are searched for.
            create_graph: keep the forces differentiable with respect to positions and parameters.
        """
        with torch.enable_grad():
            if not positions.requires_grad:
                positions = positions.detach().requires_grad_()
            energy = self.energy(system, positions, neighbors_of_all)
            (gradient,) = torch.autograd.grad(energy.sum(), positions, create_graph=create_graph)
        return (energy, -gradient) if create_graph else (energy.detach(), -gradient)

    def frozen_copy(self) -> ForceField:
        """A copy in evaluation mode, whose parameters require no gradients and never change."""
        return copy.deepcopy(self).eval().requires_grad_(False)

    def check_species(self, system: System) -> None:
        """Raise `UnknownSpeciesError` unless every element of the system was seen in training.

        A second check of the same system costs nothing. Each reading of numbers makes the host wait for a GPU.
        """
        if self._checked is not None and self._checked[0] is system.atomic_numbers and self._checked[1] is self.species:
            return
        unknown = sorted(set(system.atomic_numbers.tolist()) - set(self.species.tolist()))
        if len(self.species) and unknown:
            raise UnknownSpeciesError(
                f"the force field knows the atomic numbers {self.species.tolist()}, but the system has {unknown}"
            )
        self._checked = system.atomic_numbers, self.species

    def fast_potential(self, system: System, tolerance: float = FAST_TOLERANCE) -> Potential:
        """A faster potential with frozen parameters, equal to the plain one within rounding.

        Its attribute ``description``, if present, is shown in the log.

        Args:
            system: the system to simulate.
            tolerance: largest error of interpolated functions, relative to the largest value of each.

        Raises:
            NoFastPath: there is none for this system, machine and tolerance. The message gives the reason.
        """
        raise NoFastPath("not available for this model")

    def bind(
        self,
        system: System,
        differentiable: bool = False,
        skin: float = 0.5,
        fast: bool = False,
        tolerance: float = FAST_TOLERANCE,
    ) -> Potential:
        """The potential of a system, as integrators call it, with its own neighbor list.

        Args:
            system: the system to simulate.
            differentiable: keep the graph to parameters and positions. Otherwise the parameters are a frozen copy.
            skin: skin of the neighbor list, Å.
            fast: use `fast_potential` if there is one. Its preparation pays off for hundreds of steps. Each change of
                path is logged with the reason.
            tolerance: tolerance of `fast_potential`.
        """
        self.check_species(system)
        if fast and not differentiable:
            try:
                faster = self.fast_potential(system, tolerance)
            except NoFastPath as reason:
                announce(f"forces of {type(self).__name__}: plain path, no faster one: {reason}")
            else:
                announce(f"forces of {type(self).__name__}: {getattr(faster, 'description', 'fast path')}")
                return faster
        model = self if differentiable else self.frozen_copy()
        neighbor_list = NeighborList(system, self.cutoff, skin)
        if differentiable:  # no groups, because the graph of all replicas is kept anyway
            return lambda positions: model(system, positions, neighbor_list(positions), create_graph=True)
        in_groups = InGroups(lambda pairs, some: model(system, some, pairs))
        return lambda positions: neighbor_list.evaluate(positions, lambda pairs: in_groups(pairs, positions))


class Together:
    """The sum of two potentials.

    Args:
        potential: e.g. that of a force field.
        other: added to it.
        description: of the sum, shown in the log.
    """

    def __init__(self, potential: Any, other: Any, description: str = "") -> None:
        self.potential, self.other, self.description = potential, other, description

    def __call__(
        self, positions: Float[Tensor, "replica atom 3"]
    ) -> tuple[Float[Tensor, "replica"], Float[Tensor, "replica atom 3"]]:
        """Energies (eV) and forces (eV/Å)."""
        (energy, forces), (more_energy, more_forces) = self.potential(positions), self.other(positions)
        return energy + more_energy, forces + more_forces

    def in_cells(
        self, positions: Float[Tensor, "replica atom 3"], cells: Float[Tensor, "replica 3 3"]
    ) -> tuple[Float[Tensor, "replica"], Float[Tensor, "replica atom 3"], Float[Tensor, "replica 3 3"]]:
        """Energies (eV), forces (eV/Å) and virials (eV) in moving cells (Å), if both potentials have them."""
        (energy, forces, virials), more = (part.in_cells(positions, cells) for part in (self.potential, self.other))
        return energy + more[0], forces + more[1], virials + more[2]


Results = TypeVar("Results", bound=tuple[Tensor, ...])


class InGroups(Generic[Results]):
    """Energies, forces and the like, for as many replicas at a time as the memory budget allows.

    Args:
        evaluate: function of the pairs of some replicas and of what belongs to these, first their positions (Å).
    """

    def __init__(self, evaluate: Callable[..., Results]) -> None:
        self.evaluate = evaluate
        self._bytes_per_pair: float | None = None
        self._neighbors: Neighbors | None = None  # for which the groups were made
        self._groups: list[tuple[slice, Neighbors]] = []

    def __call__(self, neighbors_of_all: Neighbors, *of_replicas: Float[Tensor, "replica ..."]) -> Results:
        """The results for all replicas."""
        if neighbors_of_all is not self._neighbors:
            self._groups = self._divided(neighbors_of_all, *of_replicas)
            self._neighbors = neighbors_of_all
        if len(self._groups) == 1:
            return self.evaluate(neighbors_of_all, *of_replicas)
        results = [self._of_group(*group, *of_replicas) for group in self._groups]
        return tuple(torch.cat(parts) for parts in zip(*results, strict=True))  # type: ignore[return-value]

    def _of_group(self, replicas: slice, pairs: Neighbors, *of_replicas: Tensor) -> Results:
        return self.evaluate(pairs, *(tensor[replicas] for tensor in of_replicas))

    def _divided(self, neighbors_of_all: Neighbors, *of_replicas: Tensor) -> list[tuple[slice, Neighbors]]:
        positions = of_replicas[0]
        n_replicas, n_atoms, _ = positions.shape
        if n_replicas < 2:
            return [(slice(0, n_replicas), neighbors_of_all)]
        if self._bytes_per_pair is None:
            one_each = groups_of_replicas(neighbors_of_all, n_replicas, n_atoms, most_pairs=0)
            largest = max(one_each, key=lambda group: group[1].n_pairs)
            taken = bytes_for(lambda: self._of_group(*largest, *of_replicas))
            self._bytes_per_pair = max(1.0, taken / max(1, largest[1].n_pairs))
        budget = budget_bytes(positions.device)
        if positions.device.type == "cpu":
            budget = min(budget, CPU_GROUP_BYTES)
        most_pairs = int(budget / self._bytes_per_pair)
        groups = groups_of_replicas(neighbors_of_all, n_replicas, n_atoms, most_pairs)
        announce_division("structures", n_replicas, len(groups), self._bytes_per_pair * neighbors_of_all.n_pairs)
        return groups


@lru_cache(maxsize=1)
def announce(message: str) -> None:
    """Log a message unless it repeats the last one, because every stretch of dynamics binds the force field anew."""
    log.info(message)
