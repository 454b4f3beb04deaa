"""Benchmark of StABlE training and evaluation: time per exploring, learning and evaluating epoch, by part.

    python -m benchmarks.epoch [--config TRAIN_YML] [--simulate SIMULATE_YML] [--epochs 3]

Parts are timed inside the real run of the configuration, in a temporary folder. "rest" is the time outside all parts.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import announce, arguments, print_table
from mdsim import assembly, checkpoints
from mdsim.assembly import runs
from mdsim.config.loading import load_config
from mdsim.config.schema import SimulateConfig, TrainConfig
from mdsim.dynamics import stretch
from mdsim.estimator.samples import Samples, Sampling
from mdsim.evaluation.evaluate import Evaluation
from mdsim.reporting.scalars import ScalarWriter
from mdsim.training.schedule import Schedule
from mdsim.training.stable import StableTraining
from mdsim.training.terms import EnergyForceTerm, ObservableTerm

#: Parts of an epoch, each with the object and name of its function.
PARTS: tuple[tuple[str, Any, str], ...] = (
    ("dynamics", stretch, "simulate"),
    ("binding the force field", stretch.Stretch, "_potential"),
    ("stability criteria", stretch, "first_unstable"),
    ("choice of samples", Sampling, "__call__"),
    ("observable term", ObservableTerm, "gradient"),
    ("reweighting", Samples, "reweighted"),
    ("energy/force term", EnergyForceTerm, "gradient"),
    ("optimizer", Schedule, "step"),
    ("observables of the frames", Evaluation, "_count"),
    ("trajectories and their files", Evaluation, "_keep_frames"),
    ("checkpoints", checkpoints, "save_atomically"),
    ("scalars", ScalarWriter, "log"),
)


class Stopwatch:
    """Seconds of each part since the last `reset`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def timed(self, part: str, function: Callable) -> Callable:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[part] += time.perf_counter() - start

        return run


@contextmanager
def instrumented(watch: Stopwatch) -> Iterator[None]:
    """Time all `PARTS` within this block."""
    originals = [(owner, name, getattr(owner, name)) for _, owner, name in PARTS]
    for part, owner, name in PARTS:
        setattr(owner, name, watch.timed(part, getattr(owner, name)))
    try:
        yield
    finally:
        for owner, name, function in originals:
            setattr(owner, name, function)


def shares(watch: Stopwatch, total_s: float, epochs: int) -> list[list[str]]:
    """Rows of the table: seconds per epoch of each part, and its percentage."""
    parts = sorted(watch.seconds.items(), key=lambda item: -item[1])
    parts.append(("rest", total_s - sum(watch.seconds.values())))
    rows = [[part, f"{s / epochs:.3f}", f"{100 * s / total_s:.1f}"] for part, s in parts]
    return [*rows, ["all", f"{total_s / epochs:.3f}", "100.0"]]


def measure(title: str, epochs: int, epoch: Callable[[], None]) -> None:
    """Print the time of some epochs by part, after one that is not counted (compilation)."""
    epoch()
    watch = Stopwatch()
    with instrumented(watch):
        start = time.perf_counter()
        for _ in range(epochs):
            epoch()
        total_s = time.perf_counter() - start
    print_table(title, ["part", "s per epoch", "%"], shares(watch, total_s, epochs))


def training_epochs(config: TrainConfig, epochs: int) -> None:
    """Time exploring and learning. Replicas are parked by hand, so that every learning epoch reruns all of them."""
    trainer = runs.build_stable_training(config, assembly.pretrained_checkpoint(config))
    config.run_path.mkdir(parents=True)
    with ScalarWriter(config.run_path) as writer:

        def epoch(learning: bool) -> None:
            prepare(trainer, learning)
            trainer.progress.epoch += 1
            (trainer._learn if learning else trainer._explore)(writer)
            trainer._save_last()

        name = f"{config.dynamics.replicas} replicas, {config.dynamics.steps_per_epoch} steps"
        measure(f"Exploring, {name}", epochs, lambda: epoch(False))
        measure(f"Learning, {name}, {config.learning.steps_per_rerun} parameter steps", epochs, lambda: epoch(True))


def prepare(trainer: StableTraining, learning: bool) -> None:
    """Release all replicas, or park them all within a learning phase."""
    trainer.replicas = trainer.replicas.released()
    trainer.replicas.parked.fill_(learning)
    trainer.progress.learning = learning
    trainer.progress.recent = []


def evaluation_epochs(config: SimulateConfig, epochs: int) -> None:
    """Time stretches of the held-out evaluation, including all output."""
    folder = config.run_path / "inference" / "pre"
    folder.mkdir(parents=True)
    checkpoint = assembly.evaluated_checkpoint(config, "pre")
    evaluation = runs.build_evaluation(config, assembly.dataset(config.data), checkpoint, folder)
    with ScalarWriter(folder) as writer:

        def epoch() -> None:
            evaluation._advance()
            evaluation._report(writer)
            evaluation._save()

        name = f"{config.dynamics.replicas} replicas, {config.dynamics.steps_per_epoch} steps"
        measure(f"Evaluating, {name}", epochs, epoch)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/stable_training/aspirin_gfn2/train.yml"))
    parser.add_argument("--simulate", type=Path, default=Path("configs/stable_training/aspirin_gfn2/simulate.yml"))
    parser.add_argument("--epochs", type=int, default=3)
    known = parser.parse_args()
    torch.set_num_threads(known.threads)
    runs.flush_denormals()
    announce()
    with tempfile.TemporaryDirectory() as folder:
        training_epochs(load_config(known.config, TrainConfig, [f"log_dir={folder}/train"]), known.epochs)
        evaluation_epochs(load_config(known.simulate, SimulateConfig, [f"log_dir={folder}/simulate"]), known.epochs)


if __name__ == "__main__":
    main()
