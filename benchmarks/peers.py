"""Other programs that run SchNet with the same weights: the published style, torch-sim, and ASE.

"Published style" is `torch_geometric.nn.models.SchNet` with a neighbor search per evaluation, two directed edges per
pair, parameters that require gradients, and forces by `create_graph=True`, also in dynamics.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
from ase import Atoms
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.units import fs
from torch import nn
from torch_geometric.nn.models import SchNet as GeometricSchNet

from benchmarks.cases import Case
from mdsim.calculator import ForceFieldCalculator
from mdsim.interfaces import Potential
from mdsim.models import SchNet
from mdsim.state import System
from mdsim.typing import Float, Tensor
from mdsim.units import FS, kT_eV


class PublishedStyleSchNet(nn.Module):
    """Energies and forces with a graph to the parameters.

    Args:
        model: its weights are copied.
        system: open boundaries.
    """

    def __init__(self, model: SchNet, system: System) -> None:
        super().__init__()
        settings = {key: value for key, value in model.hyperparameters.items() if key != "cutoff"}
        self.network = GeometricSchNet(**settings, cutoff=model.cutoff, interaction_graph=radius_graph(model.cutoff))
        self.network.load_state_dict(model.state_dict(), strict=False)
        self.energy_scale = float(model.energy_scale)
        self.atomic_numbers = system.atomic_numbers

    def forward(
        self, positions: Float[Tensor, "replica atom 3"]
    ) -> tuple[Float[Tensor, "replica"], Float[Tensor, "replica atom 3"]]:
        """Energies (eV, relative to the model's shift) and forces (eV/Å)."""
        n_replicas, n_atoms, _ = positions.shape
        flat = positions.detach().reshape(-1, 3).requires_grad_()
        batch = torch.arange(n_replicas).repeat_interleave(n_atoms)
        energy = self.energy_scale * self.network(self.atomic_numbers.repeat(n_replicas), flat, batch)[:, 0]
        (gradient,) = torch.autograd.grad(energy.sum(), flat, create_graph=True)
        return energy, -gradient.reshape(positions.shape)


def radius_graph(cutoff: float) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Directed edges within the cutoff (Å) and their lengths, searched for in every batch of equal molecules."""

    def graph(positions: Float[Tensor, "node 3"], batch: Tensor) -> tuple[Tensor, Tensor]:
        n_atoms = len(batch) // (int(batch[-1]) + 1)
        with torch.no_grad():
            molecules = positions.reshape(-1, n_atoms, 3)
            near = torch.cdist(molecules, molecules) < cutoff
            near &= ~torch.eye(n_atoms, dtype=torch.bool)
            molecule, receiver, sender = near.nonzero(as_tuple=True)
        edges = torch.stack([sender, receiver]) + molecule * n_atoms
        return edges, torch.linalg.vector_norm(positions[edges[0]] - positions[edges[1]], dim=-1)

    return graph


def published_style_potential(model: SchNet, system: System) -> Potential:
    """A potential for dynamics. As in the published code, the graph of every step is built and discarded."""
    peer = PublishedStyleSchNet(model, system)

    def potential(positions: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            energy, forces = peer(positions)
        return energy.detach(), forces.detach()

    return potential


def torch_sim_stepper(case: Case, positions: Tensor, timestep_fs: float) -> Callable[[], None] | None:
    """One Langevin step of torch-sim with the plain SchNet as its model. None if torch-sim is not installed.

    The model keeps the neighbor list of `ForceField.bind`.
    """
    if find_spec("torch_sim") is None:
        return None
    import torch_sim
    from torch_sim.integrators.nvt import nvt_langevin
    from torch_sim.models.interface import ModelInterface

    class Model(ModelInterface):
        def __init__(self) -> None:
            super().__init__()
            self._device, self._dtype = torch.device("cpu"), torch.float32
            self._compute_forces, self._compute_stress = True, False
            self.potential = case.force_field.bind(case.system)

        def forward(self, state, **_) -> dict[str, Tensor]:
            energy, forces = self.potential(state.positions.reshape(-1, case.system.n_atoms, 3))
            return {"energy": energy, "forces": forces.reshape(-1, 3)}

    n_replicas, system = len(positions), case.system
    state = torch_sim.SimState(
        positions=positions.reshape(-1, 3).clone(),
        masses=system.masses.repeat(n_replicas),
        cell=(100 * torch.eye(3) if system.cell is None else system.cell.T).repeat(n_replicas, 1, 1),
        pbc=system.cell is not None,
        atomic_numbers=system.atomic_numbers.repeat(n_replicas),
        system_idx=torch.arange(n_replicas).repeat_interleave(system.n_atoms),
    )
    kT = torch.tensor(kT_eV(case.temperature_K))
    begin, advance = nvt_langevin(Model(), dt=torch.tensor(timestep_fs * FS), kT=kT)
    holder = [begin(state, seed=0)]

    def step() -> None:
        holder[0] = advance(holder[0])

    return step


def ase_stepper(case: Case, positions: Float[Tensor, "atom 3"], timestep_fs: float) -> Callable[[], None]:
    """One Langevin step of ASE for one replica, with the calculator of this package."""
    atoms = Atoms(case.system.atomic_numbers.numpy(), positions.numpy())
    if case.system.cell is not None:
        atoms.set_cell(case.system.cell.numpy())
        atoms.pbc = True
    atoms.calc = ForceFieldCalculator(case.force_field)
    MaxwellBoltzmannDistribution(atoms, temperature_K=case.temperature_K)
    dynamics = Langevin(atoms, timestep_fs * fs, temperature_K=case.temperature_K, friction=0.01 / fs, fixcm=False)
    return lambda: dynamics.run(1)
