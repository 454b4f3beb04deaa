"""Systems and force fields for the benchmarks: bundled structures, with bundled weights if available."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch

from mdsim.datasets.folder import load_dataset
from mdsim.dynamics.stretch import initial_conditions
from mdsim.force_field import ForceField
from mdsim.models import GemNetT, NequIP, SchNet, load_force_field
from mdsim.state import System
from mdsim.typing import Float, Tensor

CHECKPOINTS = Path("qm_pretrained_checkpoints")
SYSTEMS = {
    "aspirin": ("aspirin_gfn2", "aspirin", "1k", 500.0),
    "tetrapeptide": ("ac_ala3_nhme_gfn2", "ac_Ala3_NHMe", "5percent", 500.0),
    "water": ("water_spcfw", "water", "100", 300.0),
}
TRAINED = {
    ("schnet", "aspirin"): "schnet/aspirin_gfn2-aspirin_1k_schnet",
    ("nequip", "tetrapeptide"): "nequip/ac_ala3_nhme_gfn2-ac_Ala3_NHMe_5percent_nequip_lmax=1",
}
WEAK = 1e-3  # scale of random weights; large forces would drive the atoms apart and leave fewer pairs to compute
NEW: dict[str, Callable[[tuple[int, ...]], ForceField]] = {  # with the settings of the paper
    "schnet": lambda species: SchNet(species=species),
    "nequip": lambda species: NequIP(species, cutoff=5.0, l_max=1),
    "gemnet": lambda species: GemNetT(species=species),
}


@dataclass(frozen=True)
class Case:
    """A force field and a system, with initial structures."""

    system: System
    force_field: ForceField
    frames: Float[Tensor, "frame atom 3"]
    temperature_K: float

    def start(self, n_replicas: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Initial positions (Å) and velocities (ASE units) of the replicas."""
        generator = torch.Generator().manual_seed(seed)
        return initial_conditions(self.system, self.frames, n_replicas, self.temperature_K, generator)


def load_case(model: str, system: str) -> Case:
    """A model (`schnet`, `nequip`, `gemnet`) on a system (`aspirin`, `tetrapeptide`, `water`, `water_2x2x2`).

    Weights are the bundled ones if available, and random otherwise. Speed does not depend on them.
    """
    found, frames, temperature_K = load_system(system)
    return Case(found, load_model(model, system, found), frames, temperature_K)


@cache
def load_system(name: str) -> tuple[System, Float[Tensor, "frame atom 3"], float]:
    """A bundled system, its test frames (Å) and their temperature (K)."""
    if name.endswith("_2x2x2"):
        system, frames, temperature_K = load_system(name.removesuffix("_2x2x2"))
        return *repeated(system, frames, 2), temperature_K
    *where, temperature_K = SYSTEMS[name]
    data = load_dataset("data/bundled", *where)
    return data.system(), data.test.positions.float(), temperature_K


def load_model(name: str, system_name: str, system: System) -> ForceField:
    """A model with bundled weights if they were fitted to this system, otherwise with random weights (fixed seed)."""
    folder = TRAINED.get((name, system_name))
    if folder is not None:
        return load_force_field(CHECKPOINTS / folder / "checkpoints" / "best_checkpoint.pt")
    torch.manual_seed(0)
    model = NEW[name](tuple(sorted(set(system.atomic_numbers.tolist())))).eval()
    model.get_buffer("energy_scale").fill_(WEAK)
    return model


def repeated(
    system: System, frames: Float[Tensor, "frame atom 3"], n: int
) -> tuple[System, Float[Tensor, "frame all_atoms 3"]]:
    """A supercell of n × n × n copies of a periodic system."""
    if system.cell is None:
        raise ValueError("only a periodic system can be repeated")
    corners = torch.cartesian_prod(*[torch.arange(float(n))] * 3).reshape(-1, 3) @ system.cell
    positions = (frames[:, None] + corners[:, None]).flatten(1, 2)
    copies = torch.arange(len(corners))
    larger = replace(
        system,
        atomic_numbers=system.atomic_numbers.repeat(len(corners)),
        masses=system.masses.repeat(len(corners)),
        cell=n * system.cell,
        bonds=(system.bonds + copies[:, None, None] * system.n_atoms).flatten(0, 1),
        molecules=(system.molecules + copies[:, None] * system.n_molecules).flatten(),
    )
    return larger, positions
