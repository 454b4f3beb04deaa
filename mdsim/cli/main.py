"""The command line: arguments and overrides become a validated configuration, which is carried out.

python pretraining.py --config-yml CONFIG          fit energies and forces, validate a fit, predict frames
python stable_training.py --config-yml CONFIG      StABlE training, held-out evaluation
python -m mdsim.cli compare RUN_DIR [RUN_DIR ...]  before against after, as a table and figures
python -m mdsim.cli data convert FILE ...          your own frames become a data set
python -m mdsim.cli data check PATH                what to look at before training on a data set
python -m mdsim.cli init --data PATH --model NAME  configurations for a data set, with values chosen from it
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from mdsim.config.loading import load_config
from mdsim.config.schema import PretrainConfig, Section, SimulateConfig, TrainConfig
from mdsim.errors import ConfigError
from mdsim.reporting.console import setup_logging
from mdsim.reporting.interrupts import orderly_interrupts

PRETRAIN_DEBUG = ("optim.max_epochs=3", "optim.warmup_steps=0", "identifier=debug", "print_every=1")
DEBUG_DUMP_EVERY = 4
STABLE_DEBUG = (
    "exp_name=debug",
    "dynamics.replicas=4",
    "dynamics.steps_per_epoch=60",
    f"dynamics.dump_every_steps={DEBUG_DUMP_EVERY}",
    "epochs=4",
)
# At a bound of 1 K every replica is unstable: all park in the first epoch, and the next ones learn.
TRAIN_DEBUG = (*STABLE_DEBUG, "max_temperature_K=1", "learning.qm_batch_size=8", "learning.reruns=4")
SIMULATE_DEBUG = (*STABLE_DEBUG, "dense_window.epochs=4")
NO_DENSE_WINDOW = ("dense_window=null", "dynamical_observables=[]")


def pretraining(arguments: Sequence[str] | None = None) -> int:
    """`pretraining.py`."""
    parser = _parser("Fit a force field to energies and forces; validate the fit; predict frames.")
    parser.add_argument("--mode", choices=("train", "validate", "predict"), help="default: the configuration's")
    parser.add_argument("--molecule", help="overrides data.molecule")
    parser.add_argument("--size", help="overrides data.size")
    parser.add_argument("--l_max", type=int, help="overrides model.l_max of NequIP")
    parser.add_argument("--nequip", action="store_true", help="check that the configuration is one of NequIP")
    parser.add_argument("--identifier", help="appended to the name of the run")
    parser.add_argument("--run-dir", help="root below which checkpoints are written")
    parser.add_argument("--amp", action="store_true", help="mixed precision")
    parser.add_argument("--print-every", type=int, help="optimizer steps between console lines")
    parser.add_argument("--checkpoint", type=Path, help="validate, predict: the checkpoint (default: the run's best)")
    parser.add_argument("--frames", type=Path, help="predict: any file that ASE reads")
    parser.add_argument("--output", type=Path, help="predict: the extended xyz file to write")
    parser.add_argument("--allow-factory", metavar="MODULE:FUNCTION", help="predict: may make a model of your own")
    return _run(lambda: _pretraining(parser, arguments))


def _pretraining(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> None:
    known, overrides = _parse(parser, arguments)
    if known.mode == "predict":
        missing = [flag for flag in ("checkpoint", "frames", "output") if getattr(known, flag) is None]
        if missing:
            raise ConfigError(f"--mode predict needs {', '.join('--' + flag for flag in missing)}")
        _runs().predict(known.checkpoint, known.frames, known.output, known.cpu, known.allow_factory)
        return
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
    config = load_config(_config_path(known), PretrainConfig, [*debug, *_as_overrides(named), *overrides])
    if known.nequip and config.model.name != "nequip":
        raise ConfigError(f"--nequip: the configuration is one of {config.model.name}")
    if config.mode == "validate":
        _runs().validate(config, known.checkpoint)
    else:
        _runs().pretrain(config, resume=known.resume, overwrite=_overwrite(known))


def stable_training(arguments: Sequence[str] | None = None) -> int:
    """`stable_training.py`."""
    parser = _parser("StABlE training (mode: train) and held-out evaluation (mode: simulate).")
    parser.add_argument("--eval_model", help="pre, a data size, lmax=N, post, post_cycle[i] or post_cycle[i]_epoch[j]")
    return _run(lambda: _stable_training(parser, arguments))


def _stable_training(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> None:
    known, overrides = _parse(parser, arguments)
    path = _config_path(known)
    named = {"eval_model": known.eval_model, "seed": known.seed, "cpu": known.cpu or None}
    schemas: dict[str, type[Section]] = {"train": TrainConfig, "simulate": SimulateConfig}
    debug = stable_debug(load_config(path, schemas)) if known.debug else ()
    config = load_config(path, schemas, [*debug, *_as_overrides(named), *overrides])
    action = _runs().train_stable if isinstance(config, TrainConfig) else _runs().evaluate
    action(config, resume=known.resume, overwrite=_overwrite(known))


def stable_debug(config: Section) -> tuple[str, ...]:
    """The overrides that run a configuration once through, tiny; a dense window of long times is left out."""
    if not isinstance(config, SimulateConfig):
        return TRAIN_DEBUG
    window = config.dense_window
    fits = window is not None and DEBUG_DUMP_EVERY % window.dump_every_steps == 0
    return SIMULATE_DEBUG if fits else (*STABLE_DEBUG, *NO_DENSE_WINDOW)


def compare(arguments: Sequence[str] | None = None) -> int:
    """`python -m mdsim.cli compare`."""
    parser = argparse.ArgumentParser(prog="mdsim.cli compare", description="Before against after, from evaluated runs.")
    parser.add_argument("run_dir", type=Path, nargs="+", help="run folders with two evaluations each")
    parser.add_argument("--before", default="pre", help="eval_model of the first")
    parser.add_argument("--after", default="post", help="eval_model of the second")
    known = parser.parse_args(arguments)
    return _run(lambda: _runs().compare(known.run_dir, known.before, known.after))


def starting_point(arguments: Sequence[str] | None = None) -> int:
    """`python -m mdsim.cli init`."""
    from mdsim.cli.init import init

    return _run(lambda: init(arguments))


def data(arguments: Sequence[str] | None = None) -> int:
    """`python -m mdsim.cli data`."""
    from mdsim.cli.convert import convert
    from mdsim.cli.data import check

    commands = {"check": check, "convert": convert}
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] and arguments[0] in commands:
        return commands[arguments[0]](arguments[1:])
    asked = arguments[:1] in (["-h"], ["--help"])
    print(f"usage: python -m mdsim.cli data {{{','.join(commands)}}} ...", file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


def _parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description,
        epilog="Any key of the configuration can be overridden: --any.key=value",
        allow_abbrev=False,
    )
    parser.add_argument("--config-yml", type=Path, help="the configuration")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--cpu", action="store_true", help="stay on the CPU")
    parser.add_argument("--debug", action="store_true", help="everything once, tiny, into a run named debug")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="continue a stopped run exactly where it was saved")
    existing.add_argument("--overwrite", action="store_true", help="start an existing run anew")
    return parser


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Known flags, and `--any.key=value` overrides; anything else is an error."""
    known, rest = parser.parse_known_args(arguments)
    for argument in rest:
        if not (argument.startswith("--") and "=" in argument):
            parser.error(f"{argument!r} is no flag and no override of the form --any.key=value")
    return known, rest


def _config_path(known: argparse.Namespace) -> Path:
    if known.config_yml is None:
        raise ConfigError("--config-yml CONFIG is missing")
    return known.config_yml


def _overwrite(known: argparse.Namespace) -> bool:
    return known.overwrite or (known.debug and not known.resume)


def _as_overrides(named: dict[str, object]) -> list[str]:
    # Text is quoted, so that YAML leaves `--identifier 1e3` as it is.
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in named.items() if value is not None]


def _runs() -> ModuleType:
    """The module that does the work; importing it takes seconds, which `--help` and a wrong configuration need not."""
    from mdsim.assembly import runs

    runs.flush_denormals()
    return runs


def _run(action: Callable[[], None]) -> int:
    """Carry out, and turn expected errors into one message and exit status 1."""
    setup_logging(None)  # to the console; a run adds its own file
    try:
        with orderly_interrupts():
            action()
    except ConfigError as error:
        return _failed(error)
    except Exception as error:
        if isinstance(error, _expected_errors()):
            return _failed(error)
        raise
    except KeyboardInterrupt:
        print("interrupted; the same command with --resume continues", file=sys.stderr)
        return 130
    finally:
        logging.shutdown()
    return 0


def _failed(error: Exception) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 1


def _expected_errors() -> tuple[type[Exception], ...]:
    """Mistakes of the user or of the files: one clear line instead of a traceback."""
    from mdsim.errors import CheckpointError, DatasetError, UnknownSpeciesError

    return (CheckpointError, DatasetError, UnknownSpeciesError, OSError, ModuleNotFoundError)


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m mdsim.cli`."""
    commands = {
        "pretraining": pretraining,
        "stable-training": stable_training,
        "compare": compare,
        "data": data,
        "init": starting_point,
    }
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] not in commands:
        width = shutil.get_terminal_size().columns
        print(f"usage: python -m mdsim.cli {{{','.join(commands)}}} ...\n\n{__doc__}"[: width * 40])
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    return commands[arguments[0]](arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
