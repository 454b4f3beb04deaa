"""A model of metatomic with other energies of isolated atoms, as a model of metatomic."""

# No `from __future__ import annotations`: TorchScript reads the annotations of what it compiles.

from typing import Dict, List, Optional

import torch
from metatensor.torch import Labels, TensorMap
from metatomic.torch import AtomisticModel, ModelOutput, NeighborListOptions, System, unit_conversion_factor


class Shifted(torch.nn.Module):
    """Adds an energy per atom to the output `energy`.

    Args:
        model: a model of metatomic, as it is exported.
        options: the neighbor lists that it asks for.
        shifts: by atomic number, in its unit of energy.
    """

    shifts: torch.Tensor

    def __init__(self, model: torch.nn.Module, options: List[NeighborListOptions], shifts: torch.Tensor) -> None:
        super().__init__()
        self.model, self.options = model, options
        self.register_buffer("shifts", shifts)

    def requested_neighbor_lists(self) -> List[NeighborListOptions]:
        return self.options

    def forward(
        self,
        systems: List[System],
        outputs: Dict[str, ModelOutput],
        selected_atoms: Optional[Labels],
    ) -> Dict[str, TensorMap]:
        results: Dict[str, TensorMap] = self.model(systems, outputs, selected_atoms)
        if "energy" not in results:
            return results
        block = results["energy"].block()
        of_atoms = outputs["energy"].sample_kind == "atom"
        for number, system in enumerate(systems):
            rows = torch.where(block.samples.column("system") == number)[0]
            shifts = self.shifts[system.types.to(torch.int64)]
            if of_atoms:
                added = shifts[block.samples.column("atom")[rows].to(torch.int64)]
            else:
                if selected_atoms is not None:
                    chosen = selected_atoms.column("system") == number
                    shifts = shifts[selected_atoms.column("atom")[chosen].to(torch.int64)]
                added = shifts.sum().reshape(1).expand(rows.shape[0])
            block.values[rows, 0] += added.to(block.values.dtype)
        return results


def with_shifts(network: AtomisticModel, shifts_eV: torch.Tensor) -> AtomisticModel:
    """The model with an energy (eV) added to each atom, by its atomic number; itself if all are zero."""
    capabilities = network.capabilities()
    if not shifts_eV.any():
        return network
    shifts = shifts_eV.double() * unit_conversion_factor("eV", capabilities.outputs["energy"].unit)
    shifted = Shifted(network.module, network.requested_neighbor_lists(), shifts)
    return AtomisticModel(shifted.eval(), network.metadata(), capabilities)
