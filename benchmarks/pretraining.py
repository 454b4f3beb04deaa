"""Benchmark of the energy/force fit of SchNet: samples per second, compared with the published style.

    python -m benchmarks.pretraining [--batch 100] [--threads 2]

Both fits step on minibatches of aspirin with the same frames, weights and loss. Both losses are printed first. The
published style loads frames with torch_geometric's DataLoader and does not use `torch.set_flush_denormal`.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import torch
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from benchmarks.cases import Case, load_case
from benchmarks.common import announce, arguments, median_seconds, print_table, ratio_rows
from benchmarks.peers import PublishedStyleSchNet
from mdsim.datasets.folder import load_dataset
from mdsim.datasets.npz import Frames
from mdsim.losses import energy_force_loss, mean_absolute_error
from mdsim.training.fit_data import OneSystem
from mdsim.training.pretrain import FitSettings, Pretraining
from mdsim.training.schedule import OptimizerSettings

PUBLISHED, OURS = "published style", "mdsim"
mae_loss = partial(
    energy_force_loss,
    energy_weight=0.05,
    force_weight=0.95,
    energy_loss=mean_absolute_error,
    force_loss=mean_absolute_error,
)


def our_fit(case: Case, frames: Frames, folder: Path, batch: int) -> Pretraining:
    """The fit of `pretraining.py`, from the bundled weights."""
    settings = FitSettings(OptimizerSettings(learning_rate=1e-5), batch, eval_batch_size=batch, max_epochs=1)
    return Pretraining(case.force_field, OneSystem(case.system, frames, frames, mae_loss), settings, folder)


class PublishedFit:
    """Epochs over a DataLoader, with the loss of each step."""

    def __init__(self, fit: Pretraining, batch: int) -> None:
        given = fit.data
        self.model = PublishedStyleSchNet(fit.model, given.system)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-5)
        numbers = given.system.atomic_numbers
        data = [
            Data(z=numbers, pos=r, y=e, force=f)
            for r, e, f in zip(given.positions, given.energy, given.forces, strict=True)
        ]
        self.loader = DataLoader(data, batch_size=batch, shuffle=False)

    def epoch(self) -> float:
        losses = [self.step(batch) for batch in self.loader]
        return sum(losses) / len(losses)

    def step(self, batch: Data) -> float:
        shape = (batch.num_graphs, -1, 3)
        energy, forces = self.model(batch.pos.reshape(shape))
        loss = mae_loss(energy, forces, batch.y, batch.force.reshape(shape))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--batches", type=int, default=3, help="steps in each measurement")
    known = parser.parse_args()
    torch.set_num_threads(known.threads)
    announce()
    case = load_case("schnet", "aspirin")
    frames = load_dataset("data/bundled", "aspirin_gfn2", "aspirin", "1k").train[: known.batch * known.batches]
    with tempfile.TemporaryDirectory() as folder:
        fit = our_fit(case, frames, Path(folder), known.batch)
        peer = PublishedFit(fit, known.batch)

        def ours() -> float:
            torch.set_flush_denormal(True)  # as the scripts do at their start
            losses = [fit._step(batch) for batch in torch.arange(len(frames)).split(known.batch)]
            torch.set_flush_denormal(False)
            return float(torch.stack(losses).mean())

        print(f"mean loss of the first steps: {OURS} {ours():.6f}, {PUBLISHED} {peer.epoch():.6f}")
        seconds = median_seconds({PUBLISHED: peer.epoch, OURS: ours}, repetitions=3)
    header = ["batch", "fit", "ms", "samples/s", "ratio"]
    title = f"SchNet 64/64/6, aspirin, energy/force fit, {known.batches} steps"
    print_table(title, header, ratio_rows([str(known.batch)], seconds, len(frames), PUBLISHED))


if __name__ == "__main__":
    main()
