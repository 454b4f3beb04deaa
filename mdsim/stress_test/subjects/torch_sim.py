"""Models of torch-sim: all replicas are one batch of systems. Needs torch-sim (extra `engines`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch_sim import SimState

from mdsim.interfaces import Potential
from mdsim.state import System
from mdsim.typing import Float, Tensor


@dataclass(frozen=True, eq=False)
class TorchSimSubject:
    """A `torch_sim.models.interface.ModelInterface`.

    Args:
        model: the model, which says its own precision and device.
        name: as the user called it.
    """

    model: Any
    name: str

    kind = "torch-sim model"

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def device(self) -> torch.device:
        return self.model.device

    def potential(self, system: System, precise: bool = False) -> Potential:
        """The model for a system. It evaluates in its own precision."""
        numbers, masses = system.atomic_numbers, system.masses
        cell = torch.zeros(3, 3) if system.cell is None else system.cell
        like = {"device": self.model.device, "dtype": self.model.dtype}

        def evaluate(positions: Float[Tensor, "replica atom 3"]) -> tuple[Tensor, Tensor]:
            n_replicas, n_atoms, _ = positions.shape
            state = SimState(
                positions=positions.detach().reshape(-1, 3).to(**like),
                masses=masses.to(**like).repeat(n_replicas),
                cell=cell.to(**like).T.expand(n_replicas, 3, 3).contiguous(),  # lattice vectors are columns there
                pbc=system.cell is not None,
                atomic_numbers=numbers.to(self.model.device).repeat(n_replicas),
                system_idx=torch.arange(n_replicas, device=self.model.device).repeat_interleave(n_atoms),
            )
            with torch.enable_grad():
                results = self.model(state)
            energy, forces = results["energy"].detach(), results["forces"].detach()
            return energy.to(positions), forces.reshape(positions.shape).to(positions)

        return evaluate

    def close(self) -> None:
        """Nothing to release."""
