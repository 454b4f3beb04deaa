"""Configuration files as commented YAML, validated before they are moved to their destination."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
import yaml

from mdsim import assembly
from mdsim.config.loading import load_config
from mdsim.config.schema import (
    METRICS_ONLY,
    ObservablesTermConfig,
    PretrainConfig,
    SimulateConfig,
    TrainConfig,
)
from mdsim.datasets.folder import described_compositions
from mdsim.errors import ConfigError
from mdsim.models.record import Chosen, ModelRecord
from mdsim.reporting.console import format_table
from mdsim.state import Trajectory
from mdsim.suggest import sections
from mdsim.suggest.choices import File, Machine, Section
from mdsim.suggest.findings import Findings

RECIPE = "recipe:observables_contrast"
RECIPE_OF_LIQUIDS = "recipe:stable_training"
FINE_TUNING = "Fine-tuning of {}, if its errors are large. Runs start from it if common.yml has no model.checkpoint."
COLUMN = 34  # of the comments
WIDTH = 140


def default_folder(found: Findings, model: ModelRecord) -> Path:
    """`configs/<name>/<molecule>_<size>_<model>`, with the composition behind the size if there are several."""
    parts = (found.place.molecule, found.place.size, found.composition, model.name)
    return Path("configs", found.place.name, "_".join(part for part in parts if part is not None))


def write(
    found: Findings,
    model: ModelRecord,
    machine: Machine,
    folder: Path,
    overwrite: bool = False,
    file: File | None = None,
) -> list[Path]:
    """Write the configurations.

    Args:
        found: findings in the data set.
        model: one of `mdsim.models.MODELS`.
        machine: the machine that will run them.
        folder: destination.
        overwrite: replace existing files.
        file: the checkpoint that the force field starts from. None: a fit.

    Returns:
        The files.

    Raises:
        ConfigError: files exist already, or the new files are not valid (a bug in this package).
    """
    texts = contents(found, model, machine, folder, file)
    there = [name for name in texts if (folder / name).exists()]
    if there and not overwrite:
        raise ConfigError(
            f"{folder}: has {', '.join(there)} already; choose another --out, or replace them with --overwrite"
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


def contents(
    found: Findings, model: ModelRecord, machine: Machine, folder: Path, file: File | None = None
) -> dict[str, str]:
    """The text of each file, by file name."""
    title = f"{model.name} on {found.place.name}/{found.place.molecule}"
    simulated = title if found.composition is None else f"{title}, of which {found.composition} is simulated"
    how = [
        f"Values were chosen from the data ({found.place.folder}) for a {machine.name}; change what you know better."
    ]
    run = commands(folder)
    recipe = RECIPE_OF_LIQUIDS if found.is_liquid else RECIPE
    shared = sections.common(found, model, found.place.size, file)
    fit = f"Energy/force fit of {title}." if file is None else FINE_TUNING.format(title)
    return {
        "pretrain.yml": _file([fit, *how, run[0]], sections.pretraining(found, model, machine, file)),
        "common.yml": _file([f"Settings shared by training and evaluation of {simulated}.", *how], shared),
        "train.yml": _file(
            [
                f"StABlE training of {simulated}.",
                *how,
                f"The learning recipe, {recipe}, comes with the package.",
                run[2],
            ],
            {"includes": Chosen(["common.yml", recipe]), **sections.training(found, model, machine)},
        ),
        "simulate.yml": _file(
            [
                "Held-out evaluation from test-set positions and new velocities, the same for every eval_model.",
                *how,
                run[1],
            ],
            {"includes": Chosen(["common.yml"]), **sections.simulation(found, model, machine)},
        ),
    }


def commands(folder: Path, run: str = "") -> list[str]:
    """The commands from fit to comparison, in order."""
    simulate = f"mdsim simulate --config-yml {shlex.quote(str(folder / 'simulate.yml'))}"
    return [
        f"mdsim pretrain --config-yml {shlex.quote(str(folder / 'pretrain.yml'))}",
        f"{simulate} --eval_model pre",
        f"mdsim train --config-yml {shlex.quote(str(folder / 'train.yml'))}",
        f"{simulate} --eval_model post",
        f"mdsim compare {run}",
    ]


def check(found: Findings, folder: Path) -> None:
    """Load the files and assemble criteria and observables with the data, as a run does.

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
        targets = [t for term in train.terms if isinstance(term, ObservablesTermConfig) for t in term.targets]
        compared = [one for one in evaluation.observables if not isinstance(one, METRICS_ONLY)]
        for chosen in [*(target.observable for target in targets), *compared]:
            for quantity in assembly.observables(chosen, system):
                quantity(system, one_frame)
        assembly.compared_dynamical(evaluation, system, found.dataset)
    except ValueError as error:
        raise ConfigError(f"{found.place.folder}: no configuration can be derived from it: {error}") from error


def summary(found: Findings, written: list[Path], fitted: bool = True) -> str:
    """Summary of the findings, the files written, and the next commands, from the fit on where there is to be one."""
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
    if found.mixed is not None:
        known = described_compositions(found.mixed.metadata.compositions)
        rows.insert(1, ["simulated", f"{found.composition}, --composition chooses another one of {known}"])
    table = format_table(["chosen", ""], rows)
    lines = [
        table,
        "",
        *map(str, written),
        "",
        "next:",
        *(f"  {line}" for line in commands(folder, str(config.run_path))[0 if fitted else 1 :]),
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
    """A value with its reason, on the same line or, if that is too long, on the line above."""
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
    """The current machine."""
    return Machine(gpu=not cpu and torch.cuda.is_available())
