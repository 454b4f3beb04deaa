"""Shipping of a StABlE-trained force field: its weights, configuration, results and a card in `stable_checkpoints/`.

    python benchmarks/learning/ship.py RUN_DIR --eval_model post_cycle2 --command "mdsim train --config-yml ..."

The run folder must hold evaluations of the force field before (`pre`) and after training. The shipped file has no
training state, so that it is as small as the force field.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np

from mdsim import checkpoints, load_force_field, read_results, restricted_mean_interval, restricted_mean_ratio
from mdsim.config.loading import read_yaml
from mdsim.evaluation.files import write_json
from mdsim.evaluation.results import Results
from mdsim.models.registry import MODELS
from mdsim.models.saving import save_force_field
from mdsim.reporting.console import format_interval

ROOT = Path(__file__).resolve().parents[2]
FILES = {"post": "last.pt"}
LEFT_OUT = ("_low", "_high", "checkpoint", "eval_model", "interval_methods")  # of the metrics: the card has intervals
CARD = """# {model}, {molecule}, StABlE-trained

- **Made by**: `{command}`
  with the settings in `config.yml`, from
  `{pretrained}`.
- **Weights**: `{file}`. Evaluate them with
  `mdsim simulate --config-yml configs/stable_training/{system}/simulate.yml --data.size={size} --eval_model post`.
- **Data**: `data/bundled/{system}` ({level}); size `{size}`, {n_train} labeled training frames.

{replicas} held-out replicas, {horizon:g} ps at {temperature:g} K, Langevin dynamics with a friction of 0.1/ps; brackets
are 95 % intervals (`mdsim.stability.stable_times`).

| | before | after |
|---|---|---|
{rows}

Ratio of the mean stable times: {ratio}. One seed. More numbers of the evaluation after training: `metrics.json`.
"""


def rows(before: Results, after: Results) -> str:
    """Lines of the table: stable times, errors of observables, energies and forces."""
    pairs = [(before, "before"), (after, "after")]
    lines = ["| mean stable time (ps) | " + " | ".join(stable_time(results) for results, _ in pairs) + " |"]
    lines.append("| stable to the end | " + " | ".join(f"{np.mean(~r.lifetimes.broken):.0%}" for r, _ in pairs) + " |")
    first, second = before.summaries[0], after.summaries[0]
    for key in second:
        if key.endswith("_mae") or key in ("energy_mae_meV", "force_mae_meV_per_A"):
            values = [summary.get(key) for summary in (first, second)]
            lines.append(f"| {key} | " + " | ".join("-" if v is None else f"{v:.3g}" for v in values) + " |")
    return "\n".join(lines)


def stable_time(results: Results) -> str:
    """The restricted mean with its interval."""
    interval = restricted_mean_interval(results.lifetimes, results.horizon_ps, rng=np.random.default_rng(0))
    return format_interval(interval.estimate, interval.low, interval.high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--eval_model", default="post", help="what is shipped: post or post_cycle[i]")
    parser.add_argument("--command", required=True, help="that trained it, for the card")
    known = parser.parse_args()
    config = read_yaml(known.run_dir / "config.yml")
    out = ROOT / "stable_checkpoints" / known.run_dir.parent.name / known.run_dir.name
    file = FILES.get(known.eval_model, f"end_of_{known.eval_model.removeprefix('post_')}.pt")
    provenance = checkpoints.load(known.run_dir / file)["provenance"]
    before, after = (read_results(known.run_dir / "inference" / name) for name in ("pre", known.eval_model))
    ratio = restricted_mean_ratio(before.lifetimes, after.lifetimes, after.horizon_ps, rng=np.random.default_rng(0))
    summary = after.summaries[0]
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    save_force_field(load_force_field(known.run_dir / file), out / file, provenance)
    shutil.copy(known.run_dir / "config.yml", out)
    write_json(out / "metrics.json", {key: value for key, value in summary.items() if not key.endswith(LEFT_OUT)})
    card = CARD.format(
        model=MODELS[config["model"]["name"]].title,
        molecule=config["data"]["molecule"],
        command=known.command,
        pretrained=provenance["pretrained"],
        file=file,
        system=known.run_dir.parent.name,
        size=config["data"]["size"],
        level=provenance["level_of_theory"],
        n_train=provenance["n_train"],
        replicas=summary["replicas"],
        horizon=summary["horizon_ps"],
        temperature=summary["temperature_K"],
        rows=rows(before, after),
        ratio=format_interval(ratio.estimate, ratio.low, ratio.high),
    )
    (out / "README.md").write_text(card, encoding="utf-8")
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
