"""`mdsim pretrain` and `mdsim predict`: the energy/force fit, its validation, and predictions for frames."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from mdsim.cli import shared
from mdsim.errors import ConfigError

PRETRAIN_DEBUG = ("optim.max_epochs=3", "optim.warmup_steps=0", "identifier=debug", "print_every=1")


def pretraining(arguments: Sequence[str] | None = None) -> int:
    """`pretraining.py`: all modes in one command."""
    parser = _fit_parser(None, "Fit a force field to energies and forces; validate the fit; predict frames.")
    parser.add_argument("--mode", choices=("train", "validate", "predict"), help="default: the configuration's")
    parser.add_argument("--checkpoint", type=Path, help="validate, predict: the checkpoint (default: the run's best)")
    _prediction_flags(parser, "predict: ")

    def action() -> int:
        known, overrides = shared.parse(parser, arguments)
        if known.mode == "predict":
            missing = [name for name in ("checkpoint", "frames", "output") if getattr(known, name) is None]
            if missing:
                raise ConfigError(f"--mode predict needs {', '.join('--' + name for name in missing)}")
            _predict(known)
            return 0
        return _fit(known, overrides)

    return shared.run(action)


def pretrain_parser() -> argparse.ArgumentParser:
    """The arguments of `mdsim pretrain`."""
    parser = _fit_parser("mdsim pretrain", "Fit a force field to energies and forces, or print the errors of a fit.")
    parser.add_argument("--mode", choices=("train", "validate"), help="default: the configuration's")
    parser.add_argument("--checkpoint", type=Path, help="validate: the checkpoint (default: the run's best)")
    return parser


def pretrain(arguments: Sequence[str] | None = None) -> int:
    """`mdsim pretrain`."""
    return shared.run(lambda: _fit(*shared.parse(pretrain_parser(), arguments)))


def predict_parser() -> argparse.ArgumentParser:
    """The arguments of `mdsim predict`."""
    parser = argparse.ArgumentParser(
        prog="mdsim predict", description="Write energies (eV), forces (eV/Å) and atomic energies (eV) of frames."
    )
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="checkpoint of mdsim, or published with the StABlE paper"
    )
    _prediction_flags(parser, "", required=True)
    parser.add_argument("--cpu", action="store_true", help="use no GPU")
    shared.output_flags(parser)
    return parser


def predict(arguments: Sequence[str] | None = None) -> int:
    """`mdsim predict`."""
    known = predict_parser().parse_args(arguments)
    return shared.run(lambda: _predict(known))


def _fit_parser(prog: str | None, description: str) -> argparse.ArgumentParser:
    parser = shared.run_parser(prog, description)
    parser.add_argument("--molecule", help="overrides data.molecule")
    parser.add_argument("--size", help="overrides data.size")
    parser.add_argument("--l_max", type=int, help="overrides model.l_max of NequIP")
    parser.add_argument("--nequip", action="store_true", help="check that the configuration is for NequIP")
    parser.add_argument("--identifier", help="appended to the name of the run")
    parser.add_argument("--run-dir", help="root folder of the checkpoints")
    parser.add_argument("--amp", action="store_true", help="mixed precision")
    parser.add_argument("--print-every", type=int, help="optimizer steps between console lines")
    return parser


def _prediction_flags(parser: argparse.ArgumentParser, mode: str, required: bool = False) -> None:
    parser.add_argument("--frames", type=Path, required=required, help=f"{mode}any file that ASE reads")
    parser.add_argument("--output", type=Path, required=required, help=f"{mode}the extended xyz file to write")
    parser.add_argument("--format", help=f"{mode}name of the frames' format in ASE")
    parser.add_argument("--energy-key", help=f"{mode}name of the energies in the file, for errors [recognized]")
    parser.add_argument("--forces-key", help=f"{mode}name of the forces in the file, for errors [recognized]")
    parser.add_argument("--stress", action="store_true", help=f"{mode}also write the stress of periodic frames, eV/Å³")
    parser.add_argument("--stress-key", help=f"{mode}name of the stresses or virials in the file [recognized]")
    parser.add_argument("--allow-factory", metavar="MODULE:FUNCTION", help=f"{mode}factory of a custom model")
    shared.foreign_flags(parser, mode)
    parser.add_argument(
        "--energy-zero",
        default="labels",
        metavar="labels|estimated|relative",
        help=f"{mode}zero of energy of systems whose total energies the training data do not determine",
    )


def _predict(known: argparse.Namespace) -> None:
    shared.set_output(known)
    shared.runs().predict(
        known.checkpoint,
        known.frames,
        known.output,
        known.cpu,
        known.allow_factory,
        known.energy_zero,
        known.energy_key,
        known.forces_key,
        known.format,
        known.model,
        dict(known.model_option),
        known.allow_unpickling,
        known.stress,
        known.stress_key,
    )


def _fit(known: argparse.Namespace, overrides: list[str]) -> int:
    from mdsim.config.loading import load_config
    from mdsim.config.paths import located
    from mdsim.config.schema import PretrainConfig

    named = {
        "mode": known.mode,
        "data.molecule": known.molecule,
        "data.size": known.size,
        "model.l_max": known.l_max,
        "identifier": known.identifier,
        "run_dir": known.run_dir,
        "seed": known.seed,
        "amp": known.amp or None,
        "cpu": known.cpu or None,
        "print_every": known.print_every,
    }
    debug = PRETRAIN_DEBUG if known.debug else ()
    changes = [*debug, *shared.as_overrides(named), *overrides]
    path = shared.config_path(known)
    config = load_config(path, PretrainConfig, changes)
    config = located(config, path, changes, also=("run_dir",) if config.mode == "validate" else ())
    if known.nequip and config.model.name != "nequip":
        raise ConfigError(f"--nequip: the configuration is one of {config.model.name}")
    if config.mode == "validate":
        if known.time_limit is not None:
            raise ConfigError("--time-limit: a validation cannot be stopped and resumed; leave it out")
        shared.runs().validate(config, known.checkpoint)
        return 0

    def action(stop_requested: Callable[[], bool]) -> bool:
        return shared.runs().pretrain(config, known.resume, shared.overwrites(known), stop_requested)

    return shared.until_stopped(known, action)
