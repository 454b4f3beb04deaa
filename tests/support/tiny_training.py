"""A small StABlE training, and criteria that break its replicas."""

from __future__ import annotations

import torch
from tiny import SHIFT_EV, frames, schnet, train_config, water

from mdsim import assembly, losses
from mdsim.dynamics.state_points import Conditions, StatePoint
from mdsim.dynamics.stretch import Stretch, initial_conditions
from mdsim.estimator.samples import Sampling
from mdsim.memory import PiecesAtOnce
from mdsim.training.joint_gradient import WeightedTerm
from mdsim.training.restarts import Restarts
from mdsim.training.stable import StableTraining
from mdsim.training.terms import EnergyForceTerm, LabeledFrames, ObservableTerm, Target
from mdsim.units import kT_eV

CHAINS = {"exploration": "persistent", "max_explore_epochs": 2}


class Distances:
    """Mean distance of the atoms from the first: cheap, and it has a gradient."""

    name = "distances"

    def __call__(self, system, trajectory):
        return (trajectory.positions[..., 1:, :] - trajectory.positions[..., :1, :]).norm(dim=-1)


class Script:
    """A criterion that says in advance how many of the moving replicas break in each stretch."""

    name = "script"

    def __init__(self, *broken: int) -> None:
        self.broken = list(broken)

    def __call__(self, system, trajectory):
        unstable = torch.zeros(trajectory.n_frames, trajectory.n_replicas, dtype=torch.bool)
        unstable[1:, : self.broken.pop(0)] = True
        return unstable


class Displacement:
    """A criterion that depends on the frames alone: the molecule has stretched."""

    name = "displacement"

    def __init__(self, tolerance_A: float = 0.12) -> None:
        self.tolerance_A = tolerance_A

    def __call__(self, system, trajectory):
        return (Distances()(system, trajectory) - 0.96).abs().amax(-1) > self.tolerance_A


def trainer(root, criterion, learning=None, dtype=torch.float64, observables=True, **changes) -> StableTraining:
    learning = {"learning_rate": 1e-3, **(learning or {})}
    config = train_config(root, learning=learning, **changes)
    system = water(dtype)
    stretch = Stretch(system, assembly.integrator(config.dynamics), 12, 4, (criterion,))
    model = schnet().to(dtype)
    data = frames(20, seed=1)
    start = initial_conditions(system, data.positions, 4, 300.0, torch.Generator().manual_seed(2))
    labels = LabeledFrames(data.positions.to(dtype), (data.energy - SHIFT_EV).to(dtype), data.forces.to(dtype))
    loss = assembly.energy_force_loss("mae", 0.05, 0.95)
    target = Target(Distances(), torch.tensor([0.96, 0.96], dtype=dtype), losses.mean_squared_error)
    terms = [WeightedTerm(ObservableTerm([target]), 1.0, None, 1.0)] if observables else []
    terms.append(WeightedTerm(EnergyForceTerm(system, labels, loss, batch_size=8), 10.0))
    (root / "run").mkdir(parents=True, exist_ok=True)
    return StableTraining(
        model,
        stretch,
        stretch.begin(model, *start),
        terms,
        Sampling(kT_eV(300.0), PiecesAtOnce(40, "structures of a minibatch")),
        assembly.stable_settings(config, terms),
        root / "run",
        torch.Generator().manual_seed(6),
        {"data": "toy"},
        Restarts([StatePoint(Conditions(300.0), data.positions)]),
    )
