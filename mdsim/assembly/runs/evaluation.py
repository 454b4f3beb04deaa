"""Held-out evaluation of a force field, and comparison of evaluations."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mdsim import assembly, distributed, memory
from mdsim.assembly.inputs import inputs_of
from mdsim.assembly.run_folder import check_folder, check_output_file, open_folder
from mdsim.assembly.runs.common import (
    datasets_of,
    mistakes_in_the_configuration,
    never,
    scalar_writer,
    starting_state,
)
from mdsim.config.schema import DynamicsConfig, SimulateConfig, StatePointConfig
from mdsim.datasets.folder import Dataset, sha256_of
from mdsim.distributed.launch import own_folder, restarted
from mdsim.dynamics.state_points import Conditions
from mdsim.errors import ConfigError
from mdsim.evaluation import metrics, report, state_points, tables
from mdsim.evaluation.errors import errors_on
from mdsim.evaluation.evaluate import Evaluation
from mdsim.evaluation.files import write_json
from mdsim.evaluation.provenance import commit, versions
from mdsim.evaluation.results import SUMMARY, read_results, write_summary
from mdsim.reporting.console import finished
from mdsim.reporting.live import waiting

log = logging.getLogger("mdsim")


def evaluate(
    config: SimulateConfig,
    resume: bool = False,
    overwrite: bool = False,
    stop_requested: Callable[[], bool] = never,
    debug: bool = False,
) -> bool:
    """Evaluate the force field that `eval_model` names; False where it was stopped before its end."""
    with own_folder(config.run_path / "inference" / config.eval_model) as out_dir:
        checkpoint = assembly.evaluated_checkpoint(config, config.eval_model, debug)
        carry_out = _evaluate if len(config.points) == 1 else _evaluate_each
        return carry_out(
            config, checkpoint, out_dir, resume or restarted(), overwrite, distributed.agreed(stop_requested)
        )


def _evaluate_each(
    config: SimulateConfig,
    checkpoint: Path,
    out_dir: Path,
    resume: bool,
    overwrite: bool,
    stop_requested: Callable[[], bool],
) -> bool:
    """One evaluation per state point, each in a folder of its own and with its share of the replicas, and their sum."""
    if config.reference_files:
        raise ConfigError("reference_files: have one temperature; list them below each of `state_points` instead")
    check_folder(out_dir, config, resume, overwrite)
    singles = {_label(single): single for single in single_state_points(config)}
    for name, single in singles.items():
        check_folder(out_dir / name, single, resume, overwrite)
    for name, single in singles.items():
        log.info("state point %s (%s)", name, out_dir / name)
        if not _evaluate(single, checkpoint, out_dir / name, resume, overwrite, stop_requested):
            return False
    with open_folder(out_dir, config, resume, overwrite, {}):
        of_points = {name: read_results(out_dir / name) for name in singles}
        summary = state_points.summary(config.eval_model, of_points)
        write_json(out_dir / SUMMARY, summary)
        log.info("%s\n%s", out_dir / SUMMARY, state_points.table(summary))
        finished(f"evaluated {config.eval_model} at {len(singles)} state points", {out_dir / SUMMARY: "all numbers"})
    return True


def single_state_points(config: SimulateConfig) -> list[SimulateConfig]:
    """The evaluation of each state point alone. Noise and initial conditions differ between them."""
    n_replicas = config.dynamics.replicas // len(config.points)
    return [
        config.model_copy(
            update={
                "state_points": (point,),
                "seed": config.seed + number,
                "dynamics": _dynamics_at(point, config.dynamics).model_copy(update={"replicas": n_replicas}),
            }
        )
        for number, point in enumerate(config.points)
    ]


def _label(single: SimulateConfig) -> str:
    (point,) = single.points
    return Conditions(point.temperature_K, point.pressure_bar).label


def _dynamics_at(point: StatePointConfig, dynamics: DynamicsConfig) -> DynamicsConfig:
    """The dynamics of a state point."""
    here: dict[str, Any] = {"temperature_K": point.temperature_K}
    if dynamics.barostat is not None and point.pressure_bar is not None:
        here["barostat"] = dynamics.barostat.model_copy(update={"pressure_bar": point.pressure_bar})
    return dynamics.model_copy(update=here)


def _evaluate(
    config: SimulateConfig,
    checkpoint: Path,
    out_dir: Path,
    resume: bool,
    overwrite: bool,
    stop_requested: Callable[[], bool],
) -> bool:
    check_folder(out_dir, config, resume, overwrite)
    memory.set_budget_GB(config.memory_budget_GB)
    with waiting("reading the data"):
        data = assembly.dataset(config.data)
    with mistakes_in_the_configuration():
        (point,) = assembly.state_points(config, data)
        evaluation = build_evaluation(config, data, checkpoint, out_dir, point)
    inputs = inputs_of(config, datasets_of(config, test=True, contiguous=bool(config.dynamical_observables)))
    with open_folder(out_dir, config, resume, overwrite, inputs) as run:
        evaluation.run_identity, evaluation.is_older_run = run.identity, run.is_older
        log.info(
            "evaluating %s: %d replicas for %g ps at %s",
            *(checkpoint, config.dynamics.replicas, config.horizon_ps, assembly.shown(config)),
        )
        if resume:
            evaluation.resume_from(out_dir / "state.pt")
        with scalar_writer(out_dir, config, evaluation.epoch + 1) as writer:
            if not evaluation.run(writer, stop_requested):
                return False
            figures = _write_results(evaluation, config, point.data, checkpoint, out_dir)
            writer.log_figures(evaluation.epoch, figures)
    return True


def _write_results(
    evaluation: Evaluation, config: SimulateConfig, data: Dataset, checkpoint: Path, out_dir: Path
) -> tuple[Path, ...]:
    """Write metrics, arrays, the table and the report of a finished evaluation. Returns the figures."""
    with waiting("errors on the test frames"):
        errors = errors_on(evaluation.force_field, evaluation.stretch.system, data.test, batch_size=100)
    dynamics = config.dynamics
    thermostat = dynamics.integrator.model_dump(mode="json")
    barostat = None if dynamics.barostat is None else dynamics.barostat.model_dump(mode="json")
    ensemble = (dynamics.temperature_K, thermostat, barostat)
    summary = metrics.final_metrics(evaluation, errors, config.eval_model, *ensemble)
    arrays = metrics.save_arrays(out_dir, evaluation)
    origin = {"checkpoint": checkpoint.as_posix(), "checkpoint_sha256": evaluation.checkpoint_sha256}
    made_by = {"seed": config.seed, "commit": commit(), "versions": versions()}
    write_summary(out_dir, {**origin, **made_by, **summary}, arrays)
    log.info("%s\n%s", out_dir / SUMMARY, tables.table({config.eval_model: summary}))
    with waiting("drawing the report"):
        written = report.report([out_dir])
    finished(
        written.verdict,
        {
            written.path: "the report, with a replay of the breaks",
            out_dir / SUMMARY: "all numbers",
            out_dir / report.SURVIVAL_FIGURE: "the fraction of stable replicas over time",
        },
    )
    return written.figures


def build_evaluation(
    config: SimulateConfig, data: Dataset, checkpoint: Path, out_dir: Path, point: assembly.Point | None = None
) -> Evaluation:
    """The evaluation of a configuration with one state point, which is opened unless it is given."""
    if point is None:
        (point,) = assembly.state_points(config, data)
    main = data.system().to(assembly.device(config.device_name))
    system = assembly.in_cell_of(point.data.train, main)
    force_field = assembly.run_force_field(config.model, checkpoint, main, data.train)
    if reason := force_field.why_undetermined(system):
        log.warning("energy errors are off by an unknown constant: %s", reason)
    stretch = replace(assembly.stretch(config, main, data), system=system, prior=assembly.prior(config, main, data))
    structural = assembly.compared_structural(config, system, point)
    of_potential = assembly.compared_energy(config, system, point, force_field)
    of_potential |= assembly.compared_pressure(config, point, stretch, force_field)
    dynamical = assembly.compared_dynamical(config, system, point.data)
    assembly.check_reference_files(config, [*structural, *dynamical])
    return Evaluation(
        force_field,
        stretch,
        starting_state(config, stretch, force_field, assembly.starts([point], system, lambda point: point.data.test)),
        structural | of_potential,
        dynamical,
        assembly.plan(config),
        out_dir,
        torch.Generator().manual_seed(config.seed),
        sha256_of(checkpoint),
        assembly.departures(config, system, point, stretch, force_field),
    )


def compare(run_dirs: Sequence[Path], before: str, after: str) -> None:
    """Compare evaluations before and after training, in one or several run folders, as one table and set of figures."""
    for name in state_points.common(run_dirs, (before, after)):
        words = "" if name is None else f" at {name}"
        log.info("%s against %s%s\n%s", after, before, words, report.compare(run_dirs, before, after, name))
        finished(
            f"compared {before} and {after}{words}",
            {report.place(run_dirs[0] / "inference", name) / report.REPORT: "figures and report"},
        )


def draw_report(paths: Sequence[Path], output: Path | None = None) -> None:
    """Draw the report of one or several evaluations anew from their files."""
    if output is not None:
        check_output_file(output)
    with waiting("drawing the report"):
        written = report.report(paths, output)
    finished(written.verdict, {written.path: "the report"})
