"""A fast test system: one water molecule held by springs, its labels, and small force fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from mdsim.assembly import Point
from mdsim.checkpoints import force_field_payload, save_atomically
from mdsim.config.schema import RunConfig, SimulateConfig, TrainConfig
from mdsim.datasets.folder import Dataset, Metadata, write_dataset
from mdsim.datasets.npz import UNITS, Frames
from mdsim.force_field import ForceField
from mdsim.geometry import all_pairs, pair_distances
from mdsim.models.loading import model_config
from mdsim.models.schnet.model import SchNet
from mdsim.reporting.scalars import ScalarWriter
from mdsim.state import System

NUMBERS = torch.tensor([8, 1, 1])
GEOMETRY = torch.tensor([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]], dtype=torch.float64)
PAIRS = all_pairs(3)
LENGTHS = pair_distances(GEOMETRY, PAIRS)
STIFFNESS = torch.tensor([30.0, 30.0, 10.0], dtype=torch.float64)  # eV/Å²
SHIFT_EV = -2000.0


class Springs(ForceField):
    """U = Σ k (r - r0)²/2 over all pairs: linear in its parameters, so that every gradient has a closed form."""

    def __init__(self, stiffness: torch.Tensor = STIFFNESS) -> None:
        super().__init__(cutoff=5.0)
        self.stiffness = nn.Parameter(stiffness.clone())

    def atomic_energies(self, system, positions, neighbors):
        stretched = pair_distances(positions, PAIRS) - LENGTHS.to(positions)
        energy = 0.5 * (self.stiffness * stretched.square()).sum(-1, keepdim=True)
        return (energy / system.n_atoms).expand(-1, system.n_atoms)


class SilentWriter(ScalarWriter):
    """Keeps scalars in a list, and opens nothing."""

    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, float]]] = []

    def log(self, step, values) -> None:
        self.logged.append((step, dict(values)))

    def flush(self) -> None:
        pass

    def all(self, name: str) -> list[tuple[int, float]]:
        return [(step, values[name]) for step, values in self.logged if name in values]


def water(dtype: torch.dtype = torch.float64) -> System:
    return System.from_geometry(NUMBERS, GEOMETRY, dtype=dtype)


def frames(n: int, seed: int = 0) -> Frames:
    """Distorted molecules labeled by the springs."""
    generator = torch.Generator().manual_seed(seed)
    positions = GEOMETRY + 0.04 * torch.randn(n, 3, 3, generator=generator, dtype=torch.float64)
    energy, forces = Springs()(water(), positions)
    velocities = 0.05 * torch.randn(n, 3, 3, generator=generator, dtype=torch.float64)
    return Frames(NUMBERS, positions.float(), SHIFT_EV + energy, forces.float(), velocities.float())


def point(config: RunConfig, data: Dataset, references: Dataset | None = None) -> Point:
    """The only state point of a configuration, with given data sets."""
    return Point(config.points[0], data, references or data)


def write_data(root: Path, sizes: tuple[str, ...] = ("20",)) -> None:
    """`<root>/toy/water/<size>`, with contiguous frames 2 fs apart."""
    metadata = Metadata(
        source="springs",
        level_of_theory="harmonic",
        license="MIT",
        atomic_numbers=NUMBERS.tolist(),
        temperature_K=300.0,
        timestep_fs=1.0,
        structural_frame_interval_fs=None,
        contiguous_frame_interval_fs=2.0,
        split={"seed": 0},
        program_versions={},
        command="pytest",
        settings={},
        units=UNITS,
        n_frames={},
        sha256={},
    )
    shared = {"test": frames(12, seed=3), "contiguous": frames(40, seed=4)}
    for size in sizes:
        own = {"train": frames(int(size), seed=1), "val": frames(6, seed=2)}
        write_dataset(root / "toy" / "water" / size, own, shared, metadata)


def schnet(seed: int = 0, species: tuple[int, ...] = (1, 8)) -> SchNet:
    """Random weights: the molecule falls apart within some tens of femtoseconds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SchNet(8, 8, 1, 10, cutoff=2.5, species=species, energy_shift_eV=SHIFT_EV)
    return model.eval()


def write_pretrained(root: Path, size: str = "20", seed: int = 0, **arguments: Any) -> Path:
    """A checkpoint where a run looks for its QM-pretrained force field."""
    model = schnet(seed, **arguments)
    path = root / "schnet" / f"toy-water_{size}_schnet" / "checkpoints" / "best_checkpoint.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_atomically(path, force_field_payload(model, model_config(model), {}))
    return path


def run_values(root: Path) -> dict[str, Any]:
    """What training and evaluation share, with everything below one folder."""
    return {
        "seed": 5,
        "data": {"path": str(root / "data"), "name": "toy", "molecule": "water", "size": "20"},
        "model": {"name": "schnet"},
        "model_dir": str(root / "models"),
        "log_dir": str(root / "runs"),
        "cpu": True,
        "dynamics": {
            "integrator": {"name": "langevin", "friction_per_ps": 10.0},
            "temperature_K": 300,
            "timestep_fs": 1.0,
            "replicas": 4,
            "steps_per_epoch": 12,
            "dump_every_steps": 4,
        },
        "stability": [{"name": "bond_length_deviation", "bond_dev_tol_A": 0.15}],
    }


def train_values(root: Path) -> dict[str, Any]:
    return {
        **run_values(root),
        "mode": "train",
        "epochs": 6,
        "start_learning_at": 0.5,
        "reset_probability": 0.2,
        "terms": [
            {
                "name": "observables",
                "targets": [{"observable": {"name": "rdf", "max_distance_A": 4.0, "bin_width_A": 0.1}}],
            },
            {"name": "energies_forces", "batch_size": 8},
        ],
        "learning": {"learning_rate": 1e-3, "max_epochs_per_cycle": 2},
    }


def simulate_values(root: Path) -> dict[str, Any]:
    return {
        **run_values(root),
        "mode": "simulate",
        "eval_model": "pre",
        "epochs": 4,
        "end_when_unstable": 1.0,
        "observables": [{"name": "rdf", "max_distance_A": 4.0, "bin_width_A": 0.1}],
        "dynamical_observables": [{"name": "vacf", "max_lag_fs": 8.0}],
        "dense_window": {"epochs": 1, "dump_every_steps": 2},
        "frames_before_break": 3,
    }


def pretrain_values(root: Path) -> dict[str, Any]:
    return {
        "data": run_values(root)["data"],
        "model": {"name": "schnet", "hidden_channels": 8, "num_filters": 8, "num_interactions": 1, "num_gaussians": 6},
        "optim": {"batch_size": 5, "warmup_steps": 0, "max_epochs": 3, "checkpoint_every_epochs": 1, "ema_decay": 0.9},
        "run_dir": str(root / "fits"),
        "cpu": True,
        "print_every": 2,
    }


def write_world(root: Path) -> Path:
    """Data sets, a pretrained force field, and `pretrain.yml`, `train.yml` and `simulate.yml` that use them."""
    write_data(root / "data", ("20", "10"))
    write_pretrained(root / "models")
    for name, values in {"pretrain": pretrain_values, "train": train_values, "simulate": simulate_values}.items():
        (root / f"{name}.yml").write_text(yaml.safe_dump(values(root)), encoding="utf-8")
    return root


def train_config(root: Path, **changes: Any) -> TrainConfig:
    return TrainConfig.model_validate(train_values(root) | changes)


def simulate_config(root: Path, **changes: Any) -> SimulateConfig:
    return SimulateConfig.model_validate(simulate_values(root) | changes)


def same_bits(first: Any, second: Any) -> bool:
    """Whether two nested structures of tensors and plain data are equal, NaN being equal to NaN."""
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first.nan_to_num(1e30), second.nan_to_num(1e30))
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same_bits(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same_bits, first, second))
    return first == second or (first != first and second != second)
