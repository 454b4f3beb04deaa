"""Soak test: resident memory over hundreds of parameter steps and evaluation stretches, for each model.

    python -m benchmarks.soak [--models schnet nequip gemnet_t] [--steps 300] [--stretches 200]

The memory of a long run must not grow. Each model is trained on its bundled system in rounds of parameter steps, with
every replica counted as broken, and then evaluated in short stretches. After each round, garbage is collected and freed
memory is returned to the system (malloc_trim). The growth is the slope of a line through the resident memory in the
second half, since caches and memory pools fill in the first half. Each model and kind has its own process.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import announce, arguments, print_table, resident_MiB

RECIPES = "configs/stable_training"
#: The bundled system of each model, and overrides that make its epochs short.
CASES = {
    "schnet": (f"{RECIPES}/aspirin_gfn2", ["terms.contrast.structures_per_gradient=4"]),
    "nequip": (f"{RECIPES}/ac_ala3_nhme_gfn2", []),
    "gemnet_t": (
        f"{RECIPES}/water_spcfw",
        ["model.name=gemnet_t", "model_dir=qm_pretrained_checkpoints/tiny", "reference_run=false"],
    ),
    "constant_pressure": (
        f"{RECIPES}/water_spcfw",
        ["dynamics.barostat={name: cell_rescaling, relaxation_time_ps: 0.1}", "reference_run=false"],
    ),
}
SHORT = ["dynamics.replicas=3", "dynamics.steps_per_epoch=8", "dynamics.dump_every_steps=4", "cpu=true"]
#: At a bound of 1 K every replica is unstable. Steps are so small that the force field hardly changes.
ALWAYS_LEARNING = [
    "max_temperature_K=1", "learn_while_exploring=false", "epochs=1000000", "max_force_evaluations=null",
    "learning.learning_rate=1e-9", "learning.reruns=3", "learning.steps_per_rerun=5",
    "learning.min_effective_fraction=0", "learning.max_times_reduce_lr=1000000", "learning.max_epochs_per_cycle=null",
    "terms.energies_forces.batch_size=4", "estimator.minibatch_size=4",
]  # fmt: skip
NO_DENSE_WINDOW = ["dense_window=null", "dynamical_observables=[]", "end_when_unstable=1.0", "epochs=1000000"]


@dataclass(frozen=True)
class Growth:
    """Resident memory after each round of work."""

    done: list[int]  # parameter steps, or stretches
    resident_MiB: list[float]

    @property
    def per_hundred_MiB(self) -> float:
        """Slope through the second half."""
        half = len(self.done) // 2
        return 100 * float(np.polyfit(self.done[half:], self.resident_MiB[half:], 1)[0])


def training(model: str, rounds: int, root: Path) -> Growth:
    """Memory of StABlE training; each round has the parameter steps of one rerun."""
    from mdsim.assembly import pretrained_checkpoint, runs
    from mdsim.config.loading import load_config
    from mdsim.config.schema import TrainConfig
    from mdsim.reporting.scalars import ScalarWriter

    folder, changes = CASES[model]
    config: TrainConfig = load_config(
        f"{folder}/train.yml", TrainConfig, [*changes, *SHORT, *ALWAYS_LEARNING, f"log_dir={root}"]
    )
    trainer = runs.build_stable_training(config, pretrained_checkpoint(config))
    config.run_path.mkdir(parents=True)
    with ScalarWriter(config.run_path) as writer:
        trainer._explore(writer)
        return _grown(lambda: _learning_epoch(trainer, writer), rounds, config.learning.steps_per_rerun)


def _learning_epoch(trainer, writer) -> None:
    trainer.progress.epoch += 1
    trainer._learn(writer)
    trainer._save_last()
    for path in trainer.run_dir.glob("cycle*_epoch*.pt"):
        path.unlink()


def evaluation(model: str, rounds: int, root: Path) -> Growth:
    """Memory of a held-out evaluation; each round is one stretch."""
    from mdsim.assembly import dataset, pretrained_checkpoint, runs
    from mdsim.config.loading import load_config
    from mdsim.config.schema import SimulateConfig

    folder, changes = CASES[model]
    config: SimulateConfig = load_config(
        f"{folder}/simulate.yml", SimulateConfig, [*changes, *SHORT, *NO_DENSE_WINDOW, f"log_dir={root}"]
    )
    out = config.run_path / "inference" / "pre"
    out.mkdir(parents=True)
    running = runs.build_evaluation(config, dataset(config.data), pretrained_checkpoint(config), out)

    def stretch() -> None:
        running._advance()
        running._save()

    return _grown(stretch, rounds, 1)


def _grown(work: Callable[[], None], rounds: int, steps_each: int) -> Growth:
    done, held = [], []
    for number in range(rounds):
        work()
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        done.append((number + 1) * steps_each)
        held.append(resident_MiB())
    return Growth(done, held)


def _in_a_process(kind: str, model: str, rounds: int, threads: int) -> Growth:
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        return {"training": training, "evaluation": evaluation}[kind](model, rounds, Path(folder))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--models", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--steps", type=int, default=300, help="parameter steps")
    parser.add_argument("--stretches", type=int, default=200, help="stretches of an evaluation")
    known = parser.parse_args()
    announce()
    rows = []
    for model in known.models:
        for kind, rounds in (("training", known.steps // 5), ("evaluation", known.stretches)):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                grown = pool.apply(_in_a_process, (kind, model, rounds, known.threads))
            first, middle, last = (grown.resident_MiB[place] for place in (0, rounds // 2, -1))
            held = [f"{value:.0f}" for value in (first, middle, last)]
            rows.append([model, kind, str(grown.done[-1]), *held, f"{grown.per_hundred_MiB:+.1f}"])
    header = ["model", "kind", "steps or stretches", "MiB at first", "in the middle", "at last", "MiB per hundred"]
    print_table("Resident memory", header, rows)


if __name__ == "__main__":
    main()
