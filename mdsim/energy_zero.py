"""The zero of energy of a force field: the difference between total energies and model energies."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import scipy.linalg
import torch
from torch import nn

from mdsim.errors import EnergyZeroError
from mdsim.reference_energies import N_ELEMENTS, composition, fitted, formula, undetermined_part
from mdsim.state import System
from mdsim.typing import Float, Int, Tensor

log = logging.getLogger("mdsim")

MOST_RECORDED = 64  # compositions; of more, independent ones determine the same energies
SHOWN = 12  # compositions in messages
_REMEDY = (
    'ask for energies relative to the model\'s zero or for an estimate, energy_zero="relative" or "estimated" '
    "(--energy-zero on the command line); forces need neither"
)


class EnergyZero(nn.Module):
    """Reference energies of atoms, and the compositions that they were fitted to.

    Model energies are relative to a zero that is the sum of one reference energy per atom, so that total energies are
    extensive. The sum is *determined* for linear combinations of the recorded compositions: for a force field fitted
    to aspirin, any number of aspirin molecules. For others it is an estimate (see `mdsim.reference_energies.fitted`).

    Files of earlier releases and of other programs have one constant per system instead, `energy_shift_eV`, without the
    composition that it belongs to. `record_composition` adds the composition.

    Args:
        species: atomic numbers seen in training.
        energy_shift_eV: a constant for any system, in addition to the reference energies.
    """

    species: Tensor  # atomic numbers, a buffer
    energy_shift_eV: Tensor  # a float64 buffer
    reference_energies_eV: Tensor  # by atomic number; a float64 buffer
    reference_compositions: Tensor  # a row of atom counts by atomic number for each; no rows: not recorded
    float64_buffers: ClassVar[tuple[str, ...]] = ("energy_shift_eV", "reference_energies_eV")

    def __init__(self, species: Sequence[int], energy_shift_eV: float) -> None:
        super().__init__()
        self.register_buffer("species", torch.tensor(sorted(set(species)), dtype=torch.long))
        self.register_buffer("energy_shift_eV", torch.tensor(energy_shift_eV, dtype=torch.float64))
        self.register_buffer("reference_energies_eV", torch.zeros(N_ELEMENTS, dtype=torch.float64))
        self.register_buffer("reference_compositions", torch.zeros(0, N_ELEMENTS, dtype=torch.long))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> EnergyZero:
        # `.to(dtype)`, `.float()` and `.half()` come through here; these buffers move with the device alone.
        precise = {name: getattr(self, name) for name in self.float64_buffers}
        super()._apply(fn, recurse)
        for name, buffer in precise.items():
            setattr(self, name, buffer.to(getattr(self, name).device))
        return self

    def zero_energy_eV(self, system: System) -> Float[Tensor, ""]:
        """Total energy (eV, float64) of a replica at which the model energy is zero, determined or estimated."""
        return self.reference_energies_eV[system.atomic_numbers].sum() + self.energy_shift_eV

    def zero_energies_eV(self, system: System) -> Float[Tensor, "atom"]:
        """Contribution of each atom to `zero_energy_eV`."""
        of_elements = self.reference_energies_eV[system.atomic_numbers]
        return of_elements + (self.zero_energy_eV(system) - of_elements.sum()) / system.n_atoms

    def check_energy_zero(self, system: System) -> None:
        """Raise `EnergyZeroError` unless total energies of this composition are determined.

        If no composition is recorded, systems that cannot be the training system are refused, and others get a warning.
        """
        if reason := self.why_undetermined(system):
            raise EnergyZeroError(f"{reason}; {_REMEDY}")
        if self._has_unrecorded_constants():
            _warn(
                "the checkpoint does not record the composition that its zero of energy belongs to: total energies "
                "are right for the training system only"
            )

    def why_undetermined(self, system: System) -> str | None:
        """The reason why total energies of this composition are not determined, or None if they are."""
        counts = composition(system.atomic_numbers).cpu()
        asked = formula(counts)
        if self._has_unrecorded_constants():
            elements = torch.nonzero(counts)[:, 0].tolist()
            if len(self.species) and elements != self.species.tolist():
                return (
                    f"the total energy of {asked} is not determined: the zero of energy is that of a system with the "
                    f"atomic numbers {self.species.tolist()}"
                )
            return None
        known = self.reference_compositions.cpu()
        if len(known) and undetermined_part(counts, known).any():
            more = f" and {len(known) - SHOWN} others" if len(known) > SHOWN else ""
            fitted_to = ", ".join(map(formula, known[:SHOWN])) + more
            return f"the total energy of {asked} is not determined: the zero of energy was fitted to {fitted_to}"
        return None

    def fit_energy_zero(
        self,
        systems: Sequence[System],
        energies: Float[Tensor, "system"],
        atoms: Mapping[int, float] | None = None,
    ) -> None:
        """Replace the zero of energy by a fit to total energies; see `mdsim.reference_energies.fitted`.

        Args:
            systems: the compositions. Those of one atom are isolated atoms.
            energies: mean total energy of each, eV.
            atoms: energies of further isolated atoms by atomic number, eV; None: those that are known already.
        """
        rows = [composition(system.atomic_numbers).cpu() for system in systems]
        counts = torch.stack(rows) if rows else torch.zeros(0, N_ELEMENTS, dtype=torch.long)
        energies = energies.detach().cpu().double()
        isolated = self._isolated_atoms() if atoms is None else _table(atoms)
        single = counts.sum(1) == 1
        isolated[counts[single].argmax(1)] = energies[single]
        self.reference_energies_eV.copy_(fitted(counts[~single], energies[~single], isolated))
        self.energy_shift_eV.zero_()
        pure = torch.eye(N_ELEMENTS, dtype=torch.long)[~isolated.isnan()]
        self._record(torch.cat([pure, counts[~single]]))

    def correct_energy_zero(self, systems: Sequence[System], errors: Float[Tensor, "system"]) -> None:
        """Change the reference energies by the smallest change that is a least-squares fit to errors.

        Args:
            systems: the compositions, which are recorded besides those that are known already.
            errors: mean label minus mean total energy of each, eV.
        """
        counts = torch.stack([composition(system.atomic_numbers).cpu() for system in systems])
        unknown = torch.full((N_ELEMENTS,), torch.nan, dtype=torch.float64)
        change = fitted(counts, errors.detach().cpu().double(), unknown)
        self.reference_energies_eV += change.to(self.reference_energies_eV.device)
        self._record(torch.cat([self.reference_compositions.cpu(), counts]))

    def record_composition(self, atomic_numbers: Int[Tensor, "atom"]) -> None:
        """Record the composition of the constant of an earlier release, which is divided equally among its atoms.

        Raises:
            ValueError: a composition is recorded already.
        """
        if len(self.reference_compositions):
            raise ValueError(f"recorded already: {', '.join(map(formula, self.reference_compositions))}")
        counts = composition(atomic_numbers.to(self.species.device))
        self.reference_energies_eV[counts > 0] += self.energy_shift_eV / len(atomic_numbers)
        self.energy_shift_eV.zero_()
        self._record(counts[None])

    def shift_energy_zero(self, system: System, by_eV: float) -> None:
        """Move the zero of energy of one composition.

        Where it is determined, every atom of every recorded composition moves alike. Where it is not, the recorded
        compositions keep their zero, and this one is recorded.
        """
        if self._has_unrecorded_constants() or not len(self.reference_compositions):
            self.record_composition(system.atomic_numbers)
        counts = composition(system.atomic_numbers).cpu()
        known = self.reference_compositions.cpu()
        new = undetermined_part(counts, known)
        if new.any():
            change = by_eV * new / (new @ counts.double())
            self._record(torch.cat([known, counts[None]]))
        else:
            change = by_eV / system.n_atoms * (known.sum(0) > 0).double()
        self.reference_energies_eV += change.to(self.reference_energies_eV.device)

    def energy_zero_state(self) -> dict[str, Tensor]:
        """A copy of all that determines the zero of energy, for `load_energy_zero_state`."""
        names = (*self.float64_buffers, "reference_compositions")
        return {name: getattr(self, name).clone() for name in names}

    def load_energy_zero_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore an earlier zero of energy."""
        for name, value in state.items():
            setattr(self, name, value.clone())

    def _has_unrecorded_constants(self) -> bool:
        constants = bool(self.energy_shift_eV != 0) or bool(self.reference_energies_eV.any())
        return constants and not len(self.reference_compositions)

    def _isolated_atoms(self) -> Float[Tensor, "element"]:
        """Energies of elements that are recorded as isolated atoms. NaN for others."""
        known = self.reference_compositions.cpu()
        elements = known[known.sum(1) == 1].argmax(1)
        table = torch.full((N_ELEMENTS,), torch.nan, dtype=torch.float64)
        table[elements] = self.reference_energies_eV.cpu()[elements]
        return table

    def _record(self, compositions: Int[Tensor, "composition element"]) -> None:
        compositions = compositions.unique(dim=0)
        if len(compositions) > MOST_RECORDED:
            compositions = _independent(compositions)
        self.reference_compositions = compositions.to(self.reference_compositions.device)

    def upgraded(self, state: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
        """A state of any release, under current names. Earlier releases had one constant per system."""
        state = dict(state)
        of_species = state.pop(f"{prefix}atomic_shifts_eV", None)  # NequIP in earlier releases
        if not state.keys() & {f"{prefix}reference_energies_eV", f"{prefix}reference_compositions"}:
            table = torch.zeros_like(self.reference_energies_eV)
            if of_species is not None:
                table[state[f"{prefix}species"]] = of_species.to(table)
            state[f"{prefix}reference_energies_eV"] = table
            state[f"{prefix}reference_compositions"] = self.reference_compositions.new_zeros(0, N_ELEMENTS)
        return state

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """Load states with any number of compositions."""
        upgraded = self.upgraded(state_dict, prefix)
        for name in state_dict.keys() - upgraded.keys():
            del state_dict[name]
        state_dict.update(upgraded)
        rows = state_dict.get(f"{prefix}reference_compositions", self.reference_compositions)
        self.reference_compositions = self.reference_compositions.new_zeros(len(rows), N_ELEMENTS)
        super()._load_from_state_dict(state_dict, prefix, *arguments)


def _independent(compositions: Int[Tensor, "composition element"]) -> Int[Tensor, "kept element"]:
    """All isolated atoms, and as many independent compositions as determine all others."""
    isolated = compositions.sum(1) == 1
    others = compositions[~isolated]
    beyond = others.double() * (compositions[isolated].sum(0) == 0)
    _, triangular, order = scipy.linalg.qr(beyond.T.numpy(), mode="economic", pivoting=True)
    rank = int(np.linalg.matrix_rank(triangular))
    return torch.cat([compositions[isolated], others[torch.from_numpy(order[:rank]).long()]]).unique(dim=0)


def _table(atoms: Mapping[int, float]) -> Float[Tensor, "element"]:
    table = torch.full((N_ELEMENTS,), torch.nan, dtype=torch.float64)
    for number, energy in atoms.items():
        table[number] = energy
    return table


@lru_cache(maxsize=1)
def _warn(message: str) -> None:
    """Warn once, not for every frame."""
    log.warning(message)
