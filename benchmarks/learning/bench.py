"""Benchmark of training recipes: stability gained from fixed checkpoints at a fixed budget, with controls.

    python benchmarks/learning/bench.py --recipes default qm_steps random_steps --sizes 40 --horizon-ps 40

A recipe is a configuration of StABlE training, a YAML file in `recipes/`. It is run from the shipped checkpoint of each
data size, with each seed, until it has used ``--budget`` force evaluations. The result is evaluated like the checkpoint
itself, from held-out initial conditions that are the same for all recipes, for ``--horizon-ps``. Finished runs are
reused. Stopped runs and those with a shorter horizon are continued. Two controls need no training: the checkpoint as it
is, and the checkpoint with the bonded restraint as a physical prior.

For each size and recipe, over all seeds, the table shows the restricted mean stable time and its ratio to "no training"
with 95 % intervals (`mdsim.stability.stable_times`: Student's t over seeds, at least as wide as the Bayesian bootstrap
of all replicas, or the latter alone for a single seed), the fraction stable to the end, errors of observables, energies
and forces, the estimator's signal-to-noise ratio and its cosine with the QM gradient (medians over learning epochs),
and the cost.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from mdsim.evaluation.results import Results, read_results
from mdsim.reporting.console import format_interval, format_table
from mdsim.reporting.scalars import read_scalars
from mdsim.stability.intervals import Interval
from mdsim.stability.stable_times import restricted_mean_over_groups, restricted_mean_ratio_over_groups
from mdsim.stability.survival import Lifetimes

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NO_TRAINING = "no_training"
RESTRAINT = "bonded_restraint"
EVALUATION = {NO_TRAINING: "evaluate.yml", RESTRAINT: "evaluate_restrained.yml"}  # controls without training
PS_PER_EPOCH = 0.5  # of evaluate.yml
OBSERVABLES = ("rdf", "adf", "vacf")


@dataclass(frozen=True)
class Trial:
    """One training and one evaluation."""

    recipe: str
    size: str
    seed: int
    out: Path

    @property
    def run_dir(self) -> Path:
        return self.out / f"labels_{self.size}" / f"schnet_aspirin_{self.recipe}_{self.seed}"

    @property
    def trained(self) -> bool:
        return self.recipe not in EVALUATION

    @property
    def eval_model(self) -> str:
        return "post" if self.trained else "pre"

    @property
    def results(self) -> Path:
        return self.run_dir / "inference" / self.eval_model

    def overrides(self) -> list[str]:
        return [
            f"--log_dir={self.out}",
            f"--results_dir=labels_{self.size}",
            f"--exp_name={self.recipe}_{self.seed}",
            f"--data.size={self.size}",
            f"--seed={self.seed}",
            "--resume",
        ]


def carry_out(trial: Trial, budget: int, horizon_ps: float, threads: int) -> None:
    """Train (except for controls without training) and evaluate, each in a separate process."""
    if evaluated_ps(trial) >= horizon_ps:
        return
    trial.run_dir.mkdir(parents=True, exist_ok=True)
    train = [str(HERE / "recipes" / f"{trial.recipe}.yml"), f"--max_force_evaluations={budget}"]
    evaluate = [str(HERE / EVALUATION.get(trial.recipe, "evaluate.yml")), f"--eval_model={trial.eval_model}"]
    evaluate.append(f"--epochs={math.ceil(horizon_ps / PS_PER_EPOCH)}")
    start = time.monotonic()
    for arguments in (train, evaluate) if trial.trained else (evaluate,):
        command = [sys.executable, "stable_training.py", "--config-yml", *arguments, *trial.overrides()]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    print(f"{trial.recipe} from {trial.size}, seed {trial.seed}: {time.monotonic() - start:.0f} s", flush=True)


def evaluated_ps(trial: Trial) -> float:
    """Length of the evaluation of a finished run in ps, or zero."""
    path = trial.results / "final_metrics.json"
    return json.loads(path.read_text())["horizon_ps"] if path.exists() else 0.0


def row(trials: list[Trial], before: list[Trial]) -> list[str]:
    """One line of the table: all seeds of one recipe from one checkpoint."""
    results = [read_results(trial.results) for trial in trials]
    untrained = [read_results(trial.results) for trial in before]
    mean, ratio = stable_time(results, untrained)
    summaries = [result.summaries[0] for result in results]
    error = float(np.mean([s["force_mae_meV_per_A"] for s in summaries]))
    unchanged = float(np.mean([u.summaries[0]["force_mae_meV_per_A"] for u in untrained]))
    stable = np.concatenate([~result.lifetimes.broken for result in results]).mean()
    return [
        trials[0].size,
        trials[0].recipe,
        format_interval(mean.estimate, mean.low, mean.high),
        "1" if trials == before else format_interval(ratio.estimate, ratio.low, ratio.high),
        f"{100 * stable:.0f}",
        *(f"{np.mean([s[f'{name}_mae'] for s in summaries]):.3f}" for name in OBSERVABLES),
        f"{np.mean([s['energy_mae_meV'] for s in summaries]):.0f}",
        f"{error:.0f} ({100 * (error / unchanged - 1):+.0f} %)",
        *(median_of(trials, key) for key in ("learn/observables_signal_to_noise", "learn/observables_cosine")),
        *cost(trials),
    ]


HEADER = [
    *("labels", "recipe", "mean stable time (ps)", "ratio", "stable to end (%)"),
    *("RDF MAE", "ADF MAE", "VACF MAE", "energy MAE (meV)", "force MAE (meV/Å)"),
    *("signal/noise", "cosine", "steps", "10³ force evaluations"),
]


def stable_time(results: list[Results], untrained: list[Results]) -> tuple[Interval, Interval]:
    """Restricted mean stable time over all seeds, and its ratio to that without training."""
    horizon = min(r.summaries[0]["horizon_ps"] for r in results)

    def lifetimes(group: list[Results]) -> list[Lifetimes]:
        return [result.lifetimes for result in group]

    mean = restricted_mean_over_groups(lifetimes(results), horizon, rng=np.random.default_rng(0))
    pair = lifetimes(untrained), lifetimes(results)
    return mean, restricted_mean_ratio_over_groups(*pair, horizon, rng=np.random.default_rng(0))


def median_of(trials: list[Trial], key: str) -> str:
    """Median of a scalar over the learning epochs of all seeds."""
    values = [value for trial in trials for value in scalars(trial).get(key, ((), ()))[1]]
    return f"{np.median(values):.2f}" if values else "-"


def cost(trials: list[Trial]) -> list[str]:
    """Mean number of parameter steps and force evaluations per run."""
    if not trials[0].trained:
        return ["0", "0"]
    steps = [sum(scalars(trial).get("learn/steps", ((), ()))[1]) for trial in trials]
    spent = [scalars(trial)["cost/force_evaluations"][1][-1] for trial in trials]
    return [f"{np.mean(steps):.0f}", f"{np.mean(spent) / 1000:.0f}"]


@cache
def scalars(trial: Trial) -> dict:
    """The scalars of a training, read once."""
    return read_scalars(trial.run_dir) if trial.trained else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [RESTRAINT, *sorted(path.stem for path in (HERE / "recipes").glob("*.yml"))]
    parser.add_argument("--recipes", nargs="+", default=known, choices=known)
    parser.add_argument("--sizes", nargs="+", default=["40", "100", "1k"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[123, 124, 125])
    parser.add_argument("--budget", type=int, default=600_000, help="force evaluations per training")
    parser.add_argument("--horizon-ps", type=float, default=20.0, help="length of each evaluation")
    parser.add_argument("--jobs", type=int, default=2, help="parallel runs")
    parser.add_argument("--threads", type=int, default=1, help="threads per run")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "learning")
    arguments = parser.parse_args()
    out = arguments.out.resolve()

    def trials(recipe: str, size: str) -> list[Trial]:
        return [Trial(recipe, size, seed, out) for seed in arguments.seeds]

    cells = list(itertools.product(arguments.sizes, [NO_TRAINING, *arguments.recipes]))
    with ThreadPoolExecutor(arguments.jobs) as pool:
        running = [
            pool.submit(carry_out, trial, arguments.budget, arguments.horizon_ps, arguments.threads)
            for size, recipe in cells
            for trial in trials(recipe, size)
        ]
        for future in running:
            future.result()
    rows = [row(trials(recipe, size), trials(NO_TRAINING, size)) for size, recipe in cells]
    (out / "table.json").write_text(json.dumps([dict(zip(HEADER, line, strict=True)) for line in rows], indent=1))
    print(format_table(HEADER, rows))


if __name__ == "__main__":
    main()
