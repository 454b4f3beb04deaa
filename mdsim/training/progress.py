"""The progress of StABlE training."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Progress:
    """The progress of a run, saved in its checkpoints."""

    epoch: int = 0
    cycle: int = 1
    explore_epochs: int = 0  # in this cycle
    cycle_epoch: int = 0  # learning epochs with parameter steps, in this cycle
    learning: bool = False
    force_evaluations: int = 0  # structures evaluated so far, in dynamics and in gradients
    recent: list[tuple[int, int]] = field(default_factory=list)  # unstable replicas and all, in the latest reruns

    def count(self, force_evaluations: int) -> None:
        """Add to the structures evaluated."""
        self.force_evaluations += force_evaluations

    def start_cycle(self) -> None:
        """Begin the next cycle with an exploring phase."""
        self.cycle += 1
        self.explore_epochs = self.cycle_epoch = 0
        self.learning = False
        self.recent = []
