"""The files: written as commented YAML, validated as a run would, and only then put where they were asked for."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
import yaml

from mdsim import assembly
from mdsim.config.loading import load_config
from mdsim.config.schema import ObservablesTermConfig, PretrainConfig, SimulateConfig, TrainConfig
from mdsim.errors import ConfigError
from mdsim.models.record import Chosen, ModelRecord
from mdsim.reporting.console import format_table
from mdsim.state import Trajectory
from mdsim.suggest import sections
from mdsim.suggest.choices import Machine, Section
from mdsim.suggest.findings import Findings

RECIPE = "recipe:stable_training"
COLUMN = 34  # where comments stand
WIDTH = 140


def default_folder(found: Findings, model: ModelRecord) -> Path:
    """`configs/<name>/<molecule>_<size>_<model>`."""
    return Path("configs", found.place.name, f"{found.place.molecule}_{found.place.size}_{model.name}")


def write(found: Findings, model: ModelRecord, machine: Machine, folder: Path, overwrite: bool = False) -> list[Path]:
    """Write the configurations.

    Args:
        found: in the data set.
        model: one of `mdsim.models.MODELS`.
        machine: that they are for.
        folder: where to.
        overwrite: replace files that are there.

    Returns:
        The files.

    Raises:
        ConfigError: files are there already, or what would be written does not work (a fault of this module).
    """
    texts = contents(found, model, machine, folder)
    there = [name for name in texts if (folder / name).exists()]
    if there and not overwrite:
        raise ConfigError(
            f"{folder}: has {', '.join(there)} already; choose another --out, or say --overwrite to lose what they hold"
        )
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is a file; choose another --out")
    with tempfile.TemporaryDirectory() as trial:
        for name, text in texts.items():
            Path(trial, name).write_text(text, encoding="utf-8")
        check(found, Path(trial))
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def contents(found: Findings, model: ModelRecord, machine: Machine, folder: Path) -> dict[str, str]:
    """The text of each file by its name."""
    title = f"{model.name} on {found.place.name}/{found.place.molecule}"
    how = [
        f"Values were chosen from the data ({found.place.folder}) for a {machine.name}; change what you know better."
    ]
    run = commands(folder)
    shared = sections.common(found, model, found.place.size)
    return {
        "pretrain.yml": _file(
            [f"Energy/force fit of {title}.", *how, run[0]], sections.pretraining(found, model, machine)
        ),
        "common.yml": _file([f"What training and evaluation of {title} share.", *how], shared),
        "train.yml": _file(
            [
                f"StABlE training of {title}.",
                *how,
                f"The learning recipe, {RECIPE}, comes with the package.",
                run[2],
            ],
            {"includes": Chosen(["common.yml", RECIPE]), **sections.training(found, model, machine)},
        ),
        "simulate.yml": _file(
            ["Held-out evaluation: test-set positions, fresh velocities, the same for every eval_model.", *how, run[1]],
            {"includes": Chosen(["common.yml"]), **sections.simulation(found, model, machine)},
        ),
    }


def commands(folder: Path, run: str = "") -> list[str]:
    """From frames to a comparison, in order."""
    simulate = f"mdsim simulate --config-yml {shlex.quote(str(folder / 'simulate.yml'))}"
    return [
        f"mdsim pretrain --config-yml {shlex.quote(str(folder / 'pretrain.yml'))}",
        f"{simulate} --eval_model pre",
        f"mdsim train --config-yml {shlex.quote(str(folder / 'train.yml'))}",
        f"{simulate} --eval_model post",
        f"mdsim compare {run}",
    ]


def check(found: Findings, folder: Path) -> None:
    """Load the files, and put criteria and observables together with the data, as a run does.

    Raises:
        ConfigError: they are not valid.
    """
    load_config(folder / "pretrain.yml", PretrainConfig)
    train: TrainConfig = load_config(folder / "train.yml", {"train": TrainConfig})
    evaluation: SimulateConfig = load_config(folder / "simulate.yml", {"simulate": SimulateConfig})
    system = found.dataset.system()
    one_frame = Trajectory(found.structures[:1, None].float(), None, None, 1.0)
    try:
        for config in (train, evaluation):
            assembly.stretch(config, system, found.dataset)
        for target in [t for term in train.terms if isinstance(term, ObservablesTermConfig) for t in term.targets]:
            assembly.observable(target.observable, system)(system, one_frame)
        for chosen in evaluation.observables:
            assembly.observable(chosen, system)(system, one_frame)
        assembly.compared_dynamical(evaluation, system, found.dataset)
    except ValueError as error:
        raise ConfigError(f"{found.place.folder}: no starting point can be made of it: {error}") from error


def summary(found: Findings, written: list[Path]) -> str:
    """What was found and written, and what to do next."""
    folder = written[0].parent
    config: SimulateConfig = load_config(folder / "simulate.yml", {"simulate": SimulateConfig})
    dynamics = config.dynamics
    rows = [
        [
            "frames",
            f"{found.n_train} to train on, {len(found.dataset.test)} held out; "
            f"references from {found.reference.folder.name}",
        ],
        ["temperature", f"{dynamics.temperature_K:g} K, {found.temperature.source}"],
        ["time step", f"{dynamics.timestep_fs:g} fs"],
        ["evaluation", f"{dynamics.replicas} replicas for {config.horizon_ps:g} ps"],
        ["dynamical", "none: no contiguous frames" if not config.dynamical_observables else "from contiguous.npz"],
    ]
    table = format_table(["chosen", ""], rows)
    lines = [
        table,
        "",
        *map(str, written),
        "",
        "next:",
        *(f"  {line}" for line in commands(folder, str(config.run_path))),
    ]
    lines[1:1] = [f"warning: {doubt}" for doubt in found.doubts()]
    return "\n".join(lines)


def _file(header: list[str], section: Section) -> str:
    return "".join(f"# {line}\n" for line in header) + "\n".join(_lines(section)) + "\n"


def _lines(section: Section, indent: str = "") -> Iterator[str]:
    """A section as lines of YAML, with the reason beside each value."""
    for key, value in section.items():
        if isinstance(value, dict):
            yield f"{indent}{key}:"
            yield from _lines(value, indent + "  ")
        elif isinstance(value, list):
            yield f"{indent}{key}:"
            for item in value:
                yield from _commented(f"{indent}  - {_plain(item.value)}", item.why)
        else:
            yield from _commented(f"{indent}{key}: {_plain(value.value)}", value.why)


def _commented(text: str, why: str) -> Iterator[str]:
    """The reason behind the value, or above it where the line would be too long."""
    if why and max(len(text) + 2, COLUMN) + len(why) + 2 > WIDTH:
        indent = text[: len(text) - len(text.lstrip())]
        yield f"{indent}# {why}"
        why = ""
    yield f"{text.ljust(COLUMN - 2)}  # {why}" if why else text


def _plain(value: object) -> str:
    """YAML in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def machine(cpu: bool) -> Machine:
    """This one."""
    return Machine(gpu=not cpu and torch.cuda.is_available())
