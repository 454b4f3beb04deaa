"""Expected efficiency of StABlE training on several ranks, from times of one process and the bytes that ranks exchange.

    python -m benchmarks.ranks                                             # SchNet on aspirin, 1,024 replicas
    python -m benchmarks.ranks --replicas 128 --ranks 2 4 --bandwidth-GB-per-s 10 --latency-us 20

One learning epoch is profiled in this process. What `mdsim.distributed` divides among ranks takes 1/R of its time, all
other work takes the same time on every rank, and communication takes its bytes over the bandwidth plus a latency for
each operation. Ranks wait for the slowest one: all have equally many replicas, up to one. A replica that breaks early
is simulated to the end of its stretch, so that breaks do not unbalance them.
"""

from __future__ import annotations

import cProfile
import pstats
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.common import announce, arguments, print_table
from mdsim.assembly import pretrained_checkpoint, runs
from mdsim.config.loading import load_config
from mdsim.config.schema import TrainConfig
from mdsim.reporting.scalars import ScalarWriter
from mdsim.training.stable import StableTraining

CONFIG = "configs/stable_training/aspirin_gfn2/train.yml"
DIVIDED = {  # functions by the end of their file's name
    ("dynamics/stretch.py", "run"),
    ("dynamics/by_rank.py", "by_rank"),
    ("estimator/parameter_gradient.py", "energy_gradient"),
    ("estimator/samples.py", "current_energies"),
    ("terms/energies_forces.py", "gradient_of"),
}
REDUCED = {("estimator/parameter_gradient.py", "energy_gradient"), ("terms/energies_forces.py", "gradient_of")}


@dataclass(frozen=True)
class Epoch:
    """Times (s), bytes and collective operations of one learning epoch of one process."""

    divided_s: float
    replicated_s: float
    gathered_bytes: int
    reduced_bytes: int
    n_operations: int

    def seconds(self, n_ranks: int, bandwidth_GB_per_s: float, latency_s: float) -> float:
        """Expected time of the epoch."""
        if n_ranks == 1:
            return self.divided_s + self.replicated_s
        received = self.gathered_bytes * (n_ranks - 1) / n_ranks + 2 * self.reduced_bytes * (n_ranks - 1) / n_ranks
        communication = received / (1e9 * bandwidth_GB_per_s) + self.n_operations * latency_s
        return self.divided_s / n_ranks + self.replicated_s + communication


def measured(n_replicas: int, n_steps: int) -> Epoch:
    """A learning epoch, after one that compiles."""
    with tempfile.TemporaryDirectory() as folder:
        trainer, writer = training(n_replicas, n_steps, Path(folder))
        with writer:
            trainer._explore(writer)
            trainer.learner.begin(trainer.progress)
            trainer._learn(writer)
            profile = cProfile.Profile()
            profile.runcall(trainer._learn, writer)
    stats = pstats.Stats(profile)
    times = {(file, name): (calls, total) for (file, _, name), (_, calls, _, total, _) in stats.stats.items()}
    of_divided = [values for (file, name), values in times.items() if _among(file, name, DIVIDED)]
    n_reductions = sum(calls for (file, name), (calls, _) in times.items() if _among(file, name, REDUCED))
    divided_s = sum(total for _, total in of_divided)
    n_frames = n_steps // trainer.stretch.dump_every
    per_replica = 4 * trainer.stretch.system.n_atoms * (6 * n_frames + 9)  # frames, and the last state
    n_parameters = sum(parameter.numel() for parameter in trainer.force_field.trainable_parameters)
    return Epoch(
        divided_s,
        stats.total_tt - divided_s,
        n_replicas * per_replica,
        4 * n_parameters * n_reductions,
        sum(calls for calls, _ in of_divided) + 8,  # a stretch gathers nine tensors
    )


def training(n_replicas: int, n_steps: int, folder: Path) -> tuple[StableTraining, ScalarWriter]:
    """A training in which every replica breaks, so that as many are rerun."""
    changes = [
        *(f"log_dir={folder}", f"dynamics.replicas={n_replicas}", f"dynamics.steps_per_epoch={n_steps}"),
        *("max_temperature_K=1", f"learning.reruns={n_replicas}", "cpu=true", "stop_learning_at=0.0"),
    ]
    config: TrainConfig = load_config(CONFIG, TrainConfig, changes)
    trainer = runs.build_stable_training(config, pretrained_checkpoint(config))
    config.run_path.mkdir(parents=True)
    return trainer, ScalarWriter(config.run_path)


def _among(file: str, name: str, functions: set[tuple[str, str]]) -> bool:
    return any(name == function and file.endswith(ending) for ending, function in functions)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--replicas", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=500, help="steps of a stretch")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--bandwidth-GB-per-s", type=float, default=1.0, help="per rank; 1: Ethernet of 10 Gbit/s")
    parser.add_argument("--latency-us", type=float, default=100.0, help="of a collective operation")
    known = parser.parse_args()
    torch.set_num_threads(known.threads)
    announce()
    epoch = measured(known.replicas, known.steps)
    print(
        f"one epoch: {epoch.divided_s:.2f} s divided, {epoch.replicated_s:.3f} s replicated, "
        f"{epoch.gathered_bytes / 1e6:.1f} MB gathered, {epoch.reduced_bytes / 1e6:.1f} MB reduced"
    )
    alone = epoch.seconds(1, 1.0, 0.0)
    rows = []
    for n_ranks in known.ranks:
        seconds = epoch.seconds(n_ranks, known.bandwidth_GB_per_s, known.latency_us / 1e6)
        rows.append(
            [str(n_ranks), f"{seconds:.2f}", f"{alone / seconds:.1f}", f"{100 * alone / seconds / n_ranks:.0f} %"]
        )
    title = f"{known.replicas} replicas, {known.bandwidth_GB_per_s:g} GB/s, {known.latency_us:g} us"
    print_table(title, ["ranks", "s per epoch", "speed-up", "efficiency"], rows)


if __name__ == "__main__":
    main()
