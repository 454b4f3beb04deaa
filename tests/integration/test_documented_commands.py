"""Commands and Python blocks of the README and the manual, run or checked.

Each document is processed from top to bottom in a copy of the project. The tables map each command to a treatment: it
is run with appended flags that make it small, or it is checked up to the beginning of the long part. A command without
an entry in the tables fails the test.
"""

from __future__ import annotations

import argparse
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import ase.io
import foreign
import pytest
import torch
from ase import Atoms
from documents import ROOT, blocks, documents, indented_code, unknown_keys
from sprung_molecules import many_molecules

from mdsim.assembly import runs
from mdsim.cli import data as data_cli
from mdsim.cli import main as cli
from mdsim.datasets import load_dataset, write_dataset

BUNDLED = ROOT / "data" / "bundled"
TINY_FIT = "--debug --cpu --print-every 1000"
TINY_RUN = "--debug --exp_name=default --cpu --dynamics.fast=false --dynamics.replicas=2"
TINY_TRAINING = TINY_RUN + " --epochs=2 --dynamics.steps_per_epoch=8 --learning.reruns=2 --learning.steps_per_rerun=2"
TINY_EVALUATION = TINY_RUN + " --dynamics.steps_per_epoch=28"
TINY_STRESS_TEST = "--cpu --temperatures-K 300 --replicas 1 --length-ps 0.05 --budget-minutes 0.01"

TINY_FOREIGN = "--debug --exp_name=100percent --cpu --dynamics.replicas=2 --epochs=1 --dynamics.steps_per_epoch=20"

#: Run as written, with these flags appended.
RUN = [
    (r"python pretraining\.py .*aspirin_gfn2/schnet\.yml", TINY_FIT),
    (r"python pretraining\.py .*docs/examples/pretrain\.yml", TINY_FIT + " --identifier ''"),
    (r"(PYTHONPATH=\S+ )?python pretraining\.py --mode predict .*aspirin_gfn2-aspirin_40_.*", "--cpu"),
    (r"python stable_training\.py .*aspirin_gfn2/train\.yml.*", TINY_TRAINING),
    (r"python stable_training\.py .*aspirin_gfn2/simulate\.yml.*", TINY_EVALUATION),
    (r"mdsim pretrain .*aspirin_gfn2/schnet\.yml", TINY_FIT),
    (r"mdsim train (?!.*exp_name=long).*aspirin_gfn2/train\.yml.*", TINY_TRAINING),
    (r"mdsim simulate (?!.*exp_name=long).*aspirin_gfn2/simulate\.yml.*", TINY_EVALUATION),
    (r"mdsim predict .*aspirin_gfn2-aspirin_40_.*", "--cpu"),
    (r"mdsim compare runs/aspirin_gfn2/schnet_aspirin_default", ""),
    (r"mdsim report runs/aspirin_gfn2/schnet_aspirin_default", ""),
    (r"python download_data\.py .*", "--dry-run"),
    (r"python data/(md17|md22|water)\.py .*", "--dry-run"),
    (r"(python data/convert\.py|mdsim data convert) (frames\.extxyz|aspirin\.xyz|molecules\.extxyz) .*", ""),
    (r"(python data/convert\.py|mdsim data convert) .*", "--dry-run"),
    (r"mdsim (data check|init) .*", ""),
    (
        r"mdsim stress-test .*aspirin.*",
        "--cpu --temperatures-K 300 --replicas 1 --length-ps 0.05 --budget-minutes 0.01",
    ),
    (r"mdsim export (qm_pretrained_checkpoints|runs)/.*", ""),
    (r"mdsim (train|simulate) .*configs/aspirin/aspirin_100percent_mace/.*", TINY_FOREIGN),
    (r"python run_(ase|lammps|openmm|torchsim)\.py .*", "--steps 5"),
    (r"mdsim( \w+)* --(help|version)", ""),
    (r"export PYTHONPATH=\S+", ""),
]
FIT_OR_RUN = r"(python (pretraining|stable_training)\.py|mdsim (pretrain|train|simulate))"
NETWORK, MINUTES, ELSEWHERE = "network: its data have to be downloaded", "minutes", "runs in another test"
#: Checked: arguments, configuration, and the files that are named. Why they are not run.
CHECK = [
    (FIT_OR_RUN + r" .*/(md17|md22|water)/.*", NETWORK),
    (FIT_OR_RUN + r" .*(ac_ala3_nhme_gfn2|water_spcfw|water_experiment)/.*", MINUTES),
    (FIT_OR_RUN + r" .*configs/mine/.*", MINUTES),
    (r"mdsim (train|simulate) .*--exp_name=long .*", MINUTES),
    (FIT_OR_RUN + r" .*aspirin_two_temperatures/.*", MINUTES),
    (r"python stable_training\.py .*docs/examples/.*", ELSEWHERE),  # test_examples.py
    (r"mdsim (compare|report) .*", MINUTES),  # compares runs of full length
    (r"python data/(build_molecule|generate|generate_water)\.py .*", MINUTES),
    (r"python benchmarks/\S+\.py.*", MINUTES),
    (r"python docs/examples/sweep_optuna\.py .*", ELSEWHERE),  # test_sweeps.py
]
#: Installing and watching: what they name must exist.
INSTALL = [
    *(
        r"make \w+.*",
        r"(.*&& )?pip install .*",
        r"python3 -m venv .*",
        r"mamba env create .*",
        r"tensorboard .*",
        r"podman build .*",
    ),
    r"mdsim completion .*",
]
ASPIRIN = "--config-yml configs/stable_training/aspirin_gfn2"
#: Commands that a document relies on without repeating them. (Made small, a training begins by deleting what its folder
#: holds, evaluations as well, and so comes first.)
BEFORE = {
    "docs/quickstart.md": [f"mdsim train {ASPIRIN}/train.yml"],
    "docs/runs.md": [
        f"mdsim train {ASPIRIN}/train.yml",
        f"mdsim simulate {ASPIRIN}/simulate.yml --eval_model pre",
        f"mdsim simulate {ASPIRIN}/simulate.yml --eval_model post",
    ],
    "docs/reports.md": [
        f"mdsim train {ASPIRIN}/train.yml",
        f"mdsim simulate {ASPIRIN}/simulate.yml --eval_model pre",
        f"mdsim simulate {ASPIRIN}/simulate.yml --eval_model post",
    ],
    "docs/extend/model.md": [
        "export PYTHONPATH=docs/examples",
        "python pretraining.py --config-yml docs/examples/pretrain.yml",
    ],
}
#: What a page needs besides the packages of the project. Without it, the page is left out.
NEEDED = {
    "docs/engines.md": ("torch_sim", "lammps", "openmm", "metatomic_ase"),
    "docs/packages.md": ("mace",),
}
TAKES_LONG = (
    "docs/quickstart.md",
    "docs/engines.md",
)
LANGUAGES = {"bash", "python", "yaml", "text", "toml", "json"}
MADE_BY_THE_USER = {"my.xyz"}
WITH_CODE = [name for name in documents() if any(block.language in LANGUAGES for block in blocks(name))]


@dataclass
class Workspace:
    """A copy of the project in which commands run, and what has been run already."""

    folder: Path
    done: set[str] = field(default_factory=set)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    folder = tmp_path_factory.mktemp("project")
    for name in ("mdsim", "docs", "benchmarks", "Makefile", "constraints.txt", "env.yml", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    for name in ("pretraining.py", "stable_training.py", "download_data.py"):
        (folder / name).symlink_to(ROOT / name)
    for path in [*ROOT.glob("data/*.py"), ROOT / "data" / "molecules"]:
        (folder / "data").mkdir(exist_ok=True)
        (folder / "data" / path.name).symlink_to(path)
    for name in ("configs", "qm_pretrained_checkpoints", "stable_checkpoints"):  # commands write into these
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, copy_function=os.symlink)
    _write_data(folder / "data" / "bundled")
    _write_frames_of_the_user(folder)
    return Workspace(folder)


def _write_data(root: Path) -> None:
    """The bundled aspirin set with a hundred frames for each purpose: evaluations look at all of them."""
    for size in ("40", "100", "1k", "5k"):
        whole = load_dataset(BUNDLED, "aspirin_gfn2", "aspirin", size)
        own = {"train": whole.train[:100], "val": whole.val[:100]}
        shared = {"test": whole.test[:100], "contiguous": whole.contiguous[:100]}
        write_dataset(root / "aspirin_gfn2" / "aspirin" / size, own, shared, whole.metadata)
    for name in ("ac_ala3_nhme_gfn2", "water_spcfw"):
        (root / name).symlink_to(BUNDLED / name)


def _write_frames_of_the_user(folder: Path) -> None:
    """Files as the documents call them: frames with labels, labels under other names, a trajectory."""
    frames = load_dataset(BUNDLED, "aspirin_gfn2", "aspirin", "5k").train
    images, renamed = [], []
    for positions, energy, forces in zip(frames.positions[:1150], frames.energy, frames.labels, strict=False):
        atoms = Atoms(frames.atomic_numbers.numpy(), positions.numpy())
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = float(energy), forces.numpy()
        renamed.append(atoms)
        atoms = Atoms(frames.atomic_numbers.numpy(), positions.numpy())
        atoms.info["energy"], atoms.arrays["forces"] = float(energy), forces.numpy()
        images.append(atoms)
    ase.io.write(folder / "frames.extxyz", images, format="extxyz")
    shutil.copy(folder / "frames.extxyz", folder / "aspirin.xyz")
    ase.io.write(folder / "mace.xyz", renamed[:200], format="extxyz")
    ase.io.write(folder / "run1.traj", ase.io.read(folder / "frames.extxyz", index=":700"))
    ase.io.write(folder / "molecules.extxyz", many_molecules(), format="extxyz")
    ase.io.write(folder / "aspirin.extxyz", renamed[:100], format="extxyz")
    if "mace" in foreign.INSTALLED:
        torch.save(foreign.mace_network((1, 6, 8)), folder / "my.model")


@pytest.fixture
def inside(workspace, monkeypatch) -> Workspace:
    monkeypatch.chdir(workspace.folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return workspace


def test_every_command_is_in_a_table():
    unknown = [
        f"{block.where}: {command}"
        for document in documents()
        for block in blocks(document)
        if block.language == "bash"
        for command in block.commands()
        if not _is_known(command)
    ]
    assert not unknown, "put these into a table of this test:\n" + "\n".join(unknown)


@pytest.mark.parametrize("document", documents())
def test_blocks_say_what_they_are(document):
    assert not indented_code(document), "code blocks have fences with a language"
    for block in blocks(document):
        known = block.language in LANGUAGES or block.language.startswith("{")  # {...} is a directive
        assert known, f"{block.where}: {block.language!r} is no language"


@pytest.mark.parametrize(
    "document", [pytest.param(name, marks=pytest.mark.slow if name in TAKES_LONG else ()) for name in WITH_CODE]
)
def test_commands(document, inside, monkeypatch):
    if missing := [module for module in NEEDED.get(document, ()) if find_spec(module) is None]:
        pytest.skip(f"{', '.join(missing)} is not installed")
    for command in BEFORE.get(document, []):
        _carry_out(command, inside, monkeypatch, document)
    namespace: dict = {"__name__": "__documented__"}
    for block in blocks(document):
        if block.language == "bash":
            for command in block.commands():
                _carry_out(command, inside, monkeypatch, block.where)
        elif block.language == "python":
            exec(compile(block.text, block.where, "exec"), namespace)
        elif block.language == "yaml":
            assert not unknown_keys(block), f"{block.where}: the schema does not know {unknown_keys(block)}"


@pytest.mark.slow
def test_long_fits_and_runs_once_tiny(inside):
    """What is only checked above because it takes minutes, with its own models and data."""
    long = re.compile(FIT_OR_RUN + r" .*(ac_ala3_nhme_gfn2|water_spcfw|water_experiment)/.*")
    everything = [block for document in documents() for block in blocks(document) if block.language == "bash"]
    commands = [command for block in everything for command in block.commands() if long.fullmatch(command)]
    assert commands
    for command in commands:
        small = TINY_FIT if re.search("pretrain(ing.py)? ", command) else "--debug --cpu --epochs=2"
        assert _run(f"{command} {small}") == 0, command


# ----------------------------------------------------------------------------------------------------- what is done


def _is_known(command: str) -> bool:
    return any(re.fullmatch(pattern, command) for pattern in [*(p for p, _ in [*RUN, *CHECK]), *INSTALL])


def _carry_out(command: str, workspace: Workspace, monkeypatch, where: str) -> None:
    flags = next((flags for pattern, flags in RUN if re.fullmatch(pattern, command)), None)
    if command.startswith("export "):
        _set_environment(command.removeprefix("export "))
    elif any(re.fullmatch(pattern, command) for pattern in INSTALL):
        _check_installation(command, where)
    elif flags is None:
        with monkeypatch.context() as context:
            _check(command, context, where)
    elif command not in workspace.done:
        status = _run(f"{command} {flags}")
        assert status == 0, f"{where}: {command} ends with status {status}"
        workspace.done.add(command)


def _run(command: str) -> int:
    """Carry out a command in this process, as its script would."""
    while match := re.match(r"(\w+=\S+) ", command):
        _set_environment(match[1])
        command = command[match.end() :]
    program, *words = shlex.split(command)
    if program == "mdsim" and "metatomic" in words:  # TorchScript does not compile functions with checks of shapes
        return subprocess.run([sys.executable, "-m", "mdsim.cli", *words], check=False).returncode
    if program == "mdsim":
        return _ended(cli.main, words)
    script, *arguments = words
    entries = {"pretraining.py": cli.pretraining, "stable_training.py": cli.stable_training}
    entries["download_data.py"] = data_cli.download_data
    if script in entries:
        return entries[script](arguments)
    return _run_script(script, arguments)


def _ended(command: Callable[[list[str]], int], arguments: list[str]) -> int:
    """The exit status of a command that may end the program, as `--help` and `--version` do."""
    try:
        return command(arguments)
    except SystemExit as end:
        return int(end.code or 0)


def _run_script(script: str, arguments: list[str]) -> int:
    before, sys.argv = sys.argv, [script, *arguments]
    sys.path.insert(0, str(Path(script).resolve().parent))
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0


def _set_environment(assignment: str) -> None:
    name, _, value = assignment.partition("=")
    assert name == "PYTHONPATH", f"{name} is not known to this test"
    sys.path.insert(0, str(Path(value).resolve()))


class Parsed(Exception):
    """The arguments of a script are valid; the rest of it is not run."""


def _check(command: str, monkeypatch, where: str) -> None:
    """Arguments are parsed and configurations are validated by the script itself; then it is stopped."""
    reached: list[str] = []
    for name in ("pretrain", "train_stable", "evaluate"):  # these say whether they finished
        monkeypatch.setattr(runs, name, lambda *_, name=name, **__: reached.append(name) or True)
    for name in ("validate", "predict", "compare", "draw_report"):
        monkeypatch.setattr(runs, name, lambda *_, name=name, **__: reached.append(name))
    original = argparse.ArgumentParser.parse_args

    def parse_and_stop(self, *arguments, **keywords):
        known = original(self, *arguments, **keywords)
        if command.startswith(("python data/", "python benchmarks/", "python docs/examples/")):
            raise Parsed
        return known

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    if command.startswith("python docs/examples/"):  # parses the flags that it knows, and hands on the others
        original = argparse.ArgumentParser.parse_known_args
        monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse_and_stop)
    try:
        status = _run(command)
    except Parsed:
        status, reached = 0, ["parsed"]
    assert status == 0, f"{where}: {command}: its arguments are not valid"
    assert reached, f"{where}: {command} did not come to what it is for"
    files = [word for word in shlex.split(command) if re.search(r"\.(yml|py|xyz|pt)$", word) and "=" not in word]
    outputs = {"--out", "--output"}
    words = shlex.split(command)
    for word in files:
        if words[words.index(word) - 1] not in outputs and word not in MADE_BY_THE_USER:
            assert Path(word).exists(), f"{where}: {command}: there is no {word}"


def _check_installation(command: str, where: str) -> None:
    """The targets, files and extras that are named exist."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no reader of toml")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if command.startswith("make "):
        target = command.split()[1]
        asked = subprocess.run(["make", "-n", *command.split()[1:]], capture_output=True, text=True, check=False)
        assert asked.returncode == 0, f"{where}: {command}: {asked.stderr}"
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for file in re.findall(r"(?:-c|-f|-r) (\S+)", command):
        assert Path(file).is_file(), f"{where}: {command}: there is no {file}"
    for extra in re.findall(r"\[([\w,]+)\]", command):
        assert set(extra.split(",")) <= set(project["optional-dependencies"]), f"{where}: {command}"
    if command.startswith("tensorboard"):
        assert any(name.startswith("tensorboard") for name in project["dependencies"])
