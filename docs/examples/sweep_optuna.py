"""Search of training settings with Optuna: the longest stable time whose force errors stay within a bound.

Every trial is a StABlE training and a short held-out evaluation, in a run folder of its own. Stable times
differ between seeds: look at the best trials again with other seeds and a longer horizon.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import optuna

import mdsim
from mdsim.cli.main import main as run
from mdsim.config.loading import load_config
from mdsim.config.schema import SimulateConfig, TrainConfig


def suggested(trial: optuna.Trial) -> list[str]:
    """The settings that are searched, as flags. Any key of the configuration can stand here."""
    values = {
        "learning.learning_rate": trial.suggest_float("learning_rate", 3e-5, 1e-3, log=True),
        "terms.energies_forces.weight": trial.suggest_float("label_weight", 1.0, 100.0, log=True),
    }
    return [f"--{key}={value}" for key, value in values.items()]


class Objective:
    """Restricted mean stable time (ps) after training; trials beyond the bound of the force MAE are infeasible."""

    def __init__(self, known: argparse.Namespace, overrides: list[str]) -> None:
        self.known, self.overrides = known, overrides

    def __call__(self, trial: optuna.Trial) -> float:
        name, settings = f"{self.known.study}_trial{trial.number}", suggested(trial)
        evaluation = self.known.configs / "simulate.yml"
        shared = [f"--exp_name={name}", "--quiet", "--overwrite", *self.overrides]
        self._carry_out(["train", "--config-yml", str(self.known.configs / "train.yml"), *shared, *settings])
        self._carry_out(["simulate", "--config-yml", str(evaluation), "--eval_model", "post", *shared])
        changes = [flag.removeprefix("--") for flag in [f"exp_name={name}", *self.overrides]]
        folder = load_config(evaluation, {"simulate": SimulateConfig, "train": TrainConfig}, changes).run_path
        summary = mdsim.read_results(folder / "inference" / "post").summary
        force_mae = summary["force_mae_meV_per_A"]
        trial.set_user_attr("force_mae_meV_per_A", force_mae)
        trial.set_user_attr("run", str(folder))
        trial.set_constraint("force MAE", force_mae - self.known.max_force_mae)  # feasible if not positive
        return summary["stable_time_mean_ps"]

    @staticmethod
    def _carry_out(command: list[str]) -> None:
        status = run(command)
        if status == 130:
            raise KeyboardInterrupt
        if status:
            raise optuna.TrialPruned(f"mdsim {' '.join(command)} ended with status {status}")


def main() -> None:
    """Run the trials, and print the best one."""
    parser = argparse.ArgumentParser(description=__doc__, epilog="Further --key=value flags go to every trial.")
    parser.add_argument("--configs", type=Path, default=Path("configs/stable_training/aspirin_gfn2"))
    parser.add_argument("--trials", type=int, default=20)
    # a tenth more than before the training, for the bundled aspirin
    parser.add_argument("--max-force-mae", type=float, default=136.0, help="bound of the force MAE, meV/Å [136]")
    parser.add_argument("--study", default="sweep", help="name of the study and of its run folders")
    parser.add_argument("--storage", help="such as sqlite:///sweep.db: continued by the same command, or in parallel")
    known, overrides = parser.parse_known_args()
    study = optuna.create_study(
        study_name=known.study,
        storage=known.storage,
        load_if_exists=True,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=0),
    )
    study.optimize(Objective(known, overrides), n_trials=known.trials)
    for trial in study.trials:
        print(trial.number, trial.state.name, trial.value, trial.params, trial.user_attrs)
    try:
        print("best:", study.best_trial.user_attrs["run"])
    except ValueError:  # there is none
        print(f"no trial has a force MAE below {known.max_force_mae:g} meV/Å")


if __name__ == "__main__":
    main()
