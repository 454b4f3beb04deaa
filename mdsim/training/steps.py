"""The parameter steps that are taken from the frames of one rerun."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from mdsim.config.schema import TrainConfig
from mdsim.dynamics.stretch import Outcome
from mdsim.estimator.neighborhoods import NeighborhoodSampler
from mdsim.estimator.samples import Samples, Target, collect, collect_neighborhoods, importance, usable
from mdsim.force_field import ForceField
from mdsim.state import System, Trajectory
from mdsim.training.learn import (
    QMData,
    apply_gradient,
    compare,
    observable_gradient,
    qm_gradient,
    randomize_step,
    signal_to_noise,
)
from mdsim.typing import Bool, Tensor
from mdsim.units import kT_eV

log = logging.getLogger("mdsim")

MIN_SAMPLES = 2  # a covariance needs two


@dataclass
class ParameterSteps:
    """Steps along the joint gradient of observables, energies and forces, or along one of the controls.

    Attributes:
        force_field: stepped in place.
        system: what the replicas are copies of.
        targets: the terms of the observable loss.
        qm: the labelled training frames.
        config: temperature, estimator and learning.
        optimizer: of the parameters.
        generator: of all that is drawn.
        count: is told of every structure that is evaluated.
        sampler: draws the neighborhoods of the local estimator; None: the global one.
    """

    force_field: ForceField
    system: System
    targets: Sequence[Target]
    qm: QMData
    config: TrainConfig
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    count: Callable[[int], None]
    sampler: NeighborhoodSampler | None = None

    def __call__(self, outcome: Outcome, cycle_epoch: int) -> dict[str, float]:
        """Take steps from one rerun while its reweighted frames can be trusted.

        Args:
            outcome: of the rerun.
            cycle_epoch: earlier learning epochs of the cycle, for what is only measured now and then.

        Returns:
            What is logged of the first step, and how many there were.
        """
        estimator, learning = self.config.estimator, self.config.learning
        if learning.direction != "joint":
            steps = [self._step(None, None) for _ in range(learning.steps_per_rerun)]
            return steps[0] | {"learn/steps": float(len(steps))}
        mask = usable(outcome, estimator)
        if int(mask.sum()) < MIN_SAMPLES:
            log.warning("only %d usable frames: this step is along the QM gradient alone", int(mask.sum()))
            return self._step(None, None)
        samples = self._samples(outcome.trajectory, mask)
        signal = {}
        if estimator.signal_every is not None and cycle_epoch % estimator.signal_every == 0:
            ratio = signal_to_noise(self.force_field, self.system, samples, self.targets, self._kT, estimator)
            signal["learn/signal_to_noise"] = ratio
        logged = self._step(samples, None) | signal
        for taken in range(1, learning.steps_per_rerun):
            self.count(len(samples.positions))
            reweighted = importance(self.force_field, self.system, samples, self._kT, estimator.minibatch_size)
            logged["learn/effective_fraction"] = reweighted.effective_sample_size / len(samples)
            if logged["learn/effective_fraction"] < learning.min_effective_fraction:
                break
            self._step(samples, reweighted.weights)
            logged["learn/steps"] = float(taken + 1)
        return logged

    @property
    def _kT(self) -> float:
        return kT_eV(self.config.dynamics.temperature_K)

    def _samples(self, trajectory: Trajectory, mask: Bool[Tensor, "frame replica"]) -> Samples:
        """What the estimator, global or local, takes from the chosen frames."""
        if self.sampler is None:
            return collect(self.system, trajectory, mask, self.targets)
        self.count(int(mask.sum()))
        at_once = self.config.estimator.minibatch_size
        return collect_neighborhoods(
            self.force_field, self.system, trajectory, mask, self.targets, self.sampler, at_once, self.generator
        )

    def _step(self, samples: Samples | None, weights: Tensor | None) -> dict[str, float]:
        """One step along the joint gradient."""
        learning, estimator = self.config.learning, self.config.estimator
        boltzmann = None
        if samples is not None:
            boltzmann = observable_gradient(
                self.force_field, self.system, samples, self.targets, self._kT, estimator, self.generator, weights
            )
            self.count(len(samples.positions))
        n_frames, at_once = learning.qm_batch_size, estimator.minibatch_size
        qm_loss, qm = qm_gradient(self.force_field, self.system, self.qm, at_once, self.generator, n_frames)
        self.count(min(n_frames or len(self.qm.positions), len(self.qm.positions)))
        observable = None if boltzmann is None else boltzmann.gradients
        random = learning.direction == "random"
        before = [parameter.detach().clone() for parameter in self.force_field.parameters()] if random else []
        norm = apply_gradient(self.force_field, self.optimizer, observable, qm, learning)
        if random:
            randomize_step(before, self.force_field, self.generator)
        relation = compare(observable or tuple(map(torch.zeros_like, qm)), qm)
        return {
            "learn/observable_loss": float("nan") if boltzmann is None else float(boltzmann.loss),
            "learn/qm_loss": qm_loss,
            "learn/samples": 0.0 if samples is None else float(len(samples)),
            "learn/steps": 1.0,
            "learn/gradient_norm": norm,
            "learn/observable_gradient_norm": relation.observable_norm,
            "learn/qm_gradient_norm": relation.qm_norm,
            "learn/gradient_cosine": relation.cosine,
            "learn/gradient_ratio": relation.ratio,
            "learn/learning_rate": self.optimizer.param_groups[0]["lr"],
        }
