"""Optimizers, learning-rate schedules and stopping rules, shared by pretraining and StABlE training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from mdsim.stability.intervals import wilson_interval


@dataclass(frozen=True)
class OptimizerSettings:
    """An optimizer by name, and its learning-rate schedule."""

    optimizer: str = "adam"  # adam, adamw or sgd
    learning_rate: float = 1e-3
    eps: float = 1e-8  # Adam and AdamW
    amsgrad: bool = False  # Adam and AdamW
    momentum: float = 0.0  # SGD
    weight_decay: float = 0.0
    warmup_steps: int = 0  # in which the rate grows linearly
    warmup_factor: float = 1.0  # fraction of the rate at the first step
    plateau_factor: float = 0.8  # on the rate when the loss stops falling
    plateau_patience: int = 5  # losses without improvement before that


def make_optimizer(parameters: Iterable[Tensor], settings: OptimizerSettings) -> torch.optim.Optimizer:
    """The optimizer that the settings name.

    Raises:
        ValueError: the name is unknown.
    """
    shared: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    match settings.optimizer:
        case "adam" | "adamw":
            kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
            return kind(parameters, eps=settings.eps, amsgrad=settings.amsgrad, **shared)
        case "sgd":
            return torch.optim.SGD(parameters, momentum=settings.momentum, **shared)
    raise ValueError(f"optimizer: found {settings.optimizer!r}, expected adam, adamw or sgd")


class Schedule:
    """An optimizer whose learning rate warms up, and falls when a monitored loss stops falling.

    Args:
        parameters: the parameters to optimize.
        settings: optimizer and schedule.
    """

    def __init__(self, parameters: Iterable[Tensor], settings: OptimizerSettings) -> None:
        self.settings = settings
        self.optimizer = make_optimizer(parameters, settings)
        self.steps = 0
        self.restart()

    def restart(self, factor: float = 1.0) -> None:
        """Restart at a multiple of the initial learning rate. The optimizer keeps its moments."""
        self.learning_rate = self.settings.learning_rate * factor  # without warm-up
        self.reductions = 0
        self.plateau = self._new_plateau()

    @property
    def last_rate(self) -> float:
        """The learning rate of the latest step."""
        return self.optimizer.param_groups[0]["lr"]

    @property
    def current_rate(self) -> float:
        """The learning rate of the next step."""
        s = self.settings
        done = min(1.0, self.steps / s.warmup_steps) if s.warmup_steps else 1.0
        return self.learning_rate * (s.warmup_factor + (1.0 - s.warmup_factor) * done)

    def step(self) -> None:
        """One step of the optimizer along the gradients in the parameters."""
        self._set_rate(self.current_rate)
        self.optimizer.step()
        self.steps += 1

    def observe(self, loss: float) -> None:
        """Report the monitored loss. On a plateau the learning rate is reduced."""
        self._set_rate(self.learning_rate)
        self.plateau.step(loss)
        rate = self.optimizer.param_groups[0]["lr"]
        self.reductions += rate < self.learning_rate
        self.learning_rate = rate

    def _set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _new_plateau(self) -> torch.optim.lr_scheduler.ReduceLROnPlateau:
        s = self.settings
        return torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimizer, factor=s.plateau_factor, patience=s.plateau_patience
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that later steps depend on."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "plateau": self.plateau.state_dict(),
            "learning_rate": self.learning_rate,
            "steps": self.steps,
            "reductions": self.reductions,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.plateau = self._new_plateau()
        self.plateau.load_state_dict(state["plateau"])
        self.learning_rate, self.steps = float(state["learning_rate"]), state["steps"]
        self.reductions = state["reductions"]


@dataclass(frozen=True)
class UnstableFraction:
    """The rule that ends a learning phase when few of the latest reruns break.

    Attributes:
        limit: largest fraction that may still break.
        window: number of latest reruns that are pooled.
        confidence: two-sided confidence of the upper bound that is compared. None: compare the fraction itself.
    """

    limit: float = 0.0
    window: int = 1
    confidence: float | None = None

    def holds(self, recent: list[tuple[int, int]]) -> bool:
        """Whether the rule is met, given (unstable, all) replicas of the latest reruns, oldest first."""
        broken, trials = (sum(counts) for counts in zip(*recent[-self.window :], strict=True))
        if self.confidence is None:
            return broken / trials <= self.limit
        return wilson_interval(broken, trials, self.confidence).high <= self.limit
