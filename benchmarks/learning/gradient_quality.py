"""Quality of the gradients of loss terms, measured before any training with them.

    python benchmarks/learning/gradient_quality.py --recipes default contrast --size 40 --reruns 24 96

Replicas of the bundled aspirin explore with the shipped force field until half of them have broken, and the stretches
in which they broke are rerun. For every loss term of the recipes that uses these samples, the table shows the norm of
its gradient divided by its standard error (a jackknife over reruns), and its cosines with two gradients that labels
give: that of the mean absolute force error on the rerun frames themselves, labeled with GFN2-xTB (needs tblite) for
this measurement alone, and that of the labeled training frames. A step against a gradient with a positive cosine
improves the forces where the simulation goes wrong.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from ase import Atoms

from mdsim import assembly
from mdsim.config.loading import load_config
from mdsim.config.schema import TrainConfig
from mdsim.dynamics.stretch import Outcome, initial_conditions
from mdsim.estimator.loss_term import LossTerm
from mdsim.estimator.parameter_gradient import flat
from mdsim.estimator.samples import Samples
from mdsim.estimator.signal import signal_to_noise
from mdsim.force_field import ForceField
from mdsim.reporting.console import format_table
from mdsim.state import System
from mdsim.training.explore import Replicas, explore
from mdsim.training.terms import EnergyForceTerm, LabeledFrames
from mdsim.typing import Float, Tensor

HERE = Path(__file__).resolve().parent
EXPLORED = 0.5  # fraction of parked replicas at which reruns begin


def configuration(recipe: str, size: str) -> TrainConfig:
    return load_config(HERE / "recipes" / f"{recipe}.yml", TrainConfig, [f"--data.size={size}"])


def rerun(config: TrainConfig, force_field: ForceField, n_reruns: int) -> tuple[System, Outcome]:
    """Explore until enough replicas are parked, and rerun their stretches."""
    data, generator = assembly.dataset(config.data), torch.Generator().manual_seed(config.seed)
    system = data.system()
    stretch = assembly.stretch(config, system, data)
    temperature_K = config.dynamics.temperature_K
    start = initial_conditions(system, data.train.positions, 2 * config.dynamics.replicas, temperature_K, generator)
    replicas = Replicas.at(stretch.begin(force_field, *start))
    while replicas.fraction_parked < EXPLORED:
        replicas, _ = explore(replicas, force_field, stretch, generator)
    parked = torch.nonzero(replicas.parked).squeeze(-1)
    reruns = replicas.state[parked[torch.arange(n_reruns) % len(parked)]]
    return system, stretch.run(force_field, reruns, generator)


def gfn2_labels(system: System, positions: Float[Tensor, "structure atom 3"]) -> tuple[np.ndarray, np.ndarray]:
    """GFN2-xTB energies (eV) and forces (eV/Å) of structures in Å. NaN where the calculation fails."""
    from tblite.ase import TBLite

    calculator = TBLite(method="GFN2-xTB", verbosity=0)
    energies, forces = [], []
    for structure in positions:
        atoms = Atoms(system.atomic_numbers.numpy(), structure.double().numpy(), calculator=calculator)
        try:
            energies.append(atoms.get_potential_energy())
            forces.append(atoms.get_forces())
        except Exception:  # the charges of a torn molecule need not converge, and the errors have many types
            energies.append(np.nan)
            forces.append(np.full((system.n_atoms, 3), np.nan))
    return np.array(energies), np.stack(forces)


def sampled_terms(config: TrainConfig, system: System, zero_energy_eV: float) -> dict[str, LossTerm]:
    """The loss terms of a recipe that use samples, by name."""
    data = assembly.dataset(config.data)
    points = assembly.state_points(config, data)
    weighted = assembly.weighted_terms(config, system, data, points, zero_energy_eV)
    return {entry.term.name: entry.term for entry in weighted if entry.term.uses_samples}


def force_error_gradient(force_field: ForceField, samples: Samples, frames: LabeledFrames) -> Tensor:
    """Gradient of the mean absolute force error of labeled frames."""
    loss = assembly.energy_force_loss("mae", 0.0, 1.0)
    return flat(EnergyForceTerm(samples.system, frames, loss).gradient(force_field, samples).gradients)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=["default", "contrast"])
    parser.add_argument("--size", default="40")
    parser.add_argument("--reruns", nargs="+", type=int, default=[24, 96])
    parser.add_argument("--labels", type=Path, help="file that keeps the GFN2-xTB labels of the largest rerun")
    arguments = parser.parse_args()

    base = configuration(arguments.recipes[0], arguments.size)
    data = assembly.dataset(base.data)
    force_field = assembly.saved_force_field(base.model, assembly.pretrained_checkpoint(base))
    system, outcome = rerun(base, force_field, max(arguments.reruns))
    zero = float(force_field.zero_energy_eV(system))
    samples = assembly.sampling(base, system, data)(force_field, system, outcome, torch.Generator().manual_seed(1))
    broke = float(outcome.verdict.unstable.double().mean())
    print(f"{len(samples)} frames of {max(arguments.reruns)} reruns, of which {broke:.0%} broke")
    energies, forces = kept_labels(arguments.labels, system, samples)
    labeled = torch.from_numpy(np.isfinite(energies))
    oracle_frames = LabeledFrames(
        samples.positions[labeled],
        torch.from_numpy(energies)[labeled].sub(zero).to(samples.positions),
        torch.from_numpy(forces)[labeled].to(samples.positions),
    )
    oracle = force_error_gradient(force_field, samples, oracle_frames)
    training = force_error_gradient(force_field, samples, LabeledFrames.of(data.train, system, zero))
    rows = []
    for recipe in arguments.recipes:
        for name, term in sampled_terms(configuration(recipe, arguments.size), system, zero).items():
            for reruns in arguments.reruns:
                some = samples.subset(torch.nonzero(samples.replica < reruns).squeeze(-1))
                rows.append([recipe, name, str(reruns), *quality(term, force_field, some, oracle, training)])
    header = [
        "recipe",
        "term",
        "reruns",
        "signal/noise",
        "cosine with labels there",
        "cosine with training labels",
        "s",
    ]
    print(format_table(header, rows))


def kept_labels(path: Path | None, system: System, samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Labels of the samples, from the file if it has labels of the same structures."""
    positions = samples.positions.numpy()
    if path is not None and path.exists():
        with np.load(path) as kept:
            if np.array_equal(kept["R"], positions):
                return kept["E"], kept["F"]
    energies, forces = gfn2_labels(system, samples.positions)
    if path is not None:
        np.savez(path, R=positions, E=energies, F=forces)
    return energies, forces


def quality(term: LossTerm, force_field: ForceField, samples: Samples, oracle: Tensor, training: Tensor) -> list[str]:
    """Signal-to-noise ratio, cosines, and seconds per gradient."""
    started = time.perf_counter()
    found = term.gradient(force_field, samples)
    seconds = time.perf_counter() - started
    signal = signal_to_noise(term, force_field, samples)
    if found is None or signal is None:
        return ["-"] * 4
    vector = flat(found.gradients)
    cosines = (torch.nn.functional.cosine_similarity(vector, other, dim=0) for other in (oracle, training))
    return [f"{signal.ratio:.2f}", *(f"{float(cosine):+.3f}" for cosine in cosines), f"{seconds:.1f}"]


if __name__ == "__main__":
    main()
