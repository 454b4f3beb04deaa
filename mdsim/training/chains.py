"""Persistent chains: replicas that move on after every parameter step, and restart from data when they break.

The samples then follow the ensemble of the current parameters without any rerun. Source: Tieleman, ICML 2008
(persistent contrastive divergence).
"""

from __future__ import annotations

from dataclasses import replace

import torch

from mdsim.dynamics.stretch import Outcome, Stretch
from mdsim.force_field import ForceField
from mdsim.training.explore import Replicas
from mdsim.training.restarts import Restarts


def move_chains(
    replicas: Replicas, force_field: ForceField, stretch: Stretch, restarts: Restarts, generator: torch.Generator
) -> tuple[Replicas, Outcome]:
    """Run all replicas for one stretch. Those that break restart.

    Returns:
        The replicas afterward, and the outcome of the stretch before the restarts.
    """
    outcome = stretch.run(force_field, replicas.state, generator)
    broke = outcome.verdict.unstable
    stable_ps = replicas.stable_ps + outcome.stable_ps.to(replicas.stable_ps)
    state = outcome.state
    if bool(broke.any()):
        state = state.assign(broke, restarts.begin(state[broke], force_field, stretch, generator))
    return replace(replicas, state=state, stable_ps=torch.where(broke, 0.0, stable_ps)), outcome
