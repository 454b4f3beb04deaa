"""`mdsim train`, `simulate`, `compare` and `report`: StABlE training, evaluation, comparison, reports."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdsim.cli import shared
from mdsim.errors import ConfigError

if TYPE_CHECKING:
    from mdsim.config.schema import Section

log = logging.getLogger("mdsim")

MODES = ("train", "simulate")
DEBUG_DUMP_EVERY = 4
DEBUG_REPLICAS_AT_EACH = 2  # of several state points
STABLE_DEBUG = (
    "exp_name=debug",
    "dynamics.replicas=4",
    "dynamics.steps_per_epoch=60",
    f"dynamics.dump_every_steps={DEBUG_DUMP_EVERY}",
    "epochs=4",
)
# With a limit of 1 K every replica is unstable: all are parked in the first epoch, and the next epochs learn.
TRAIN_DEBUG = (*STABLE_DEBUG, "max_temperature_K=1", "learning.reruns=4")
LABELS, DEBUG_BATCH_SIZE = "energies_forces", 8
SIMULATE_DEBUG = (*STABLE_DEBUG, "dense_window.epochs=4")
NO_DENSE_WINDOW = ("dense_window=null", "dynamical_observables=[]")


def stable_training(arguments: Sequence[str] | None = None) -> int:
    """`stable_training.py`, which trains or simulates according to the mode of the configuration."""
    parser = shared.run_parser(None, "StABlE training (mode: train) and held-out evaluation (mode: simulate).")
    _eval_model(parser)
    return shared.run(lambda: _carry_out(*shared.parse(parser, arguments), modes=MODES))


def train_parser() -> argparse.ArgumentParser:
    """The arguments of `mdsim train`."""
    return shared.run_parser("mdsim train", "Run StABlE training (a configuration with mode: train).")


def train(arguments: Sequence[str] | None = None) -> int:
    """`mdsim train`."""
    return shared.run(lambda: _carry_out(*shared.parse(train_parser(), arguments), modes=("train",)))


def simulate_parser() -> argparse.ArgumentParser:
    """The arguments of `mdsim simulate`."""
    parser = shared.run_parser(
        "mdsim simulate",
        "Evaluate a force field from held-out initial conditions (a configuration with mode: simulate).",
    )
    _eval_model(parser)
    return parser


def simulate(arguments: Sequence[str] | None = None) -> int:
    """`mdsim simulate`."""
    return shared.run(lambda: _carry_out(*shared.parse(simulate_parser(), arguments), modes=("simulate",)))


def compare_parser() -> argparse.ArgumentParser:
    """The arguments of `mdsim compare`."""
    parser = argparse.ArgumentParser(prog="mdsim compare", description="Compare evaluations before and after training.")
    parser.add_argument("run_dir", type=Path, nargs="+", help="run folders with two evaluations each; seeds are pooled")
    parser.add_argument("--before", default="pre", help="eval_model of the first evaluation [pre]")
    parser.add_argument("--after", default="post", help="eval_model of the second evaluation [post]")
    return parser


def compare(arguments: Sequence[str] | None = None) -> int:
    """`mdsim compare`."""
    known = compare_parser().parse_args(arguments)
    return shared.run(lambda: shared.runs().compare(known.run_dir, known.before, known.after))


def report_parser() -> argparse.ArgumentParser:
    """The arguments of `mdsim report`."""
    parser = argparse.ArgumentParser(
        prog="mdsim report",
        description="Write the HTML report of evaluations anew from their files. Several are compared in one report.",
    )
    parser.add_argument(
        "run", type=Path, nargs="+", help="run folders, with all their evaluations, or folders of single evaluations"
    )
    words = "the HTML file; figures are drawn beside it [report.html of the evaluation, or of inference/ if several]"
    parser.add_argument("--output", type=Path, help=words)
    return parser


def report(arguments: Sequence[str] | None = None) -> int:
    """`mdsim report`."""
    known = report_parser().parse_args(arguments)
    return shared.run(lambda: shared.runs().draw_report(known.run, known.output))


def stable_debug(config: Section) -> tuple[str, ...]:
    """Overrides that run every step of a configuration once at a tiny size, without long dense windows."""
    from mdsim.config.schema import RunConfig, SimulateConfig, TrainConfig

    assert isinstance(config, RunConfig)
    n_points = len(config.points)
    replicas = [] if n_points == 1 else [f"dynamics.replicas={DEBUG_REPLICAS_AT_EACH * n_points}"]
    if isinstance(config, TrainConfig):
        labels = [f"terms.{LABELS}.batch_size={DEBUG_BATCH_SIZE}" for term in config.terms if term.name == LABELS]
        return (*TRAIN_DEBUG, *labels, *replicas)
    assert isinstance(config, SimulateConfig)
    window = config.dense_window
    fits = window is not None and DEBUG_DUMP_EVERY % window.dump_every_steps == 0
    return (*(SIMULATE_DEBUG if fits else (*STABLE_DEBUG, *NO_DENSE_WINDOW)), *replicas)


def _eval_model(parser: argparse.ArgumentParser) -> None:
    words = "pre, a data size, lmax=N, post, post_cycle[i] or post_cycle[i]_epoch[j]"
    shared.flag(parser, "--eval_model", help=words)


def _carry_out(known: argparse.Namespace, overrides: list[str], modes: Sequence[str]) -> int:
    from mdsim.config.paths import located
    from mdsim.config.schema import TrainConfig

    path = shared.config_path(known)
    named = {"eval_model": getattr(known, "eval_model", None), "seed": known.seed, "cpu": known.cpu or None}
    changes = [*shared.as_overrides(named), *overrides]
    debug = stable_debug(_load(path, modes, [])) if known.debug else ()
    config = located(_load(path, modes, [*debug, *changes]), path, changes)
    if debug and isinstance(config, TrainConfig):
        log.info("--debug: a temperature bound of 1 K makes every replica unstable, so that learning runs too")

    def action(stop_requested: Callable[[], bool]) -> bool:
        carry_out = shared.runs().train_stable if isinstance(config, TrainConfig) else shared.runs().evaluate
        return carry_out(config, known.resume, shared.overwrites(known), stop_requested, known.debug)

    return shared.until_stopped(known, action)


def _load(path: Path, modes: Sequence[str], overrides: Sequence[str]) -> Any:
    """The configuration. If it is for another command, the error names that command."""
    from mdsim.config.loading import load_config
    from mdsim.config.schema import SimulateConfig, TrainConfig

    schemas: dict[str, type[Section]] = {"train": TrainConfig, "simulate": SimulateConfig}
    config = load_config(path, schemas, overrides)
    if config.mode not in modes:
        raise ConfigError(
            f"{path}: mode: found {config.mode!r}, and this command takes {' or '.join(modes)}; "
            f"run `mdsim {config.mode} --config-yml {path}`"
        )
    return config
