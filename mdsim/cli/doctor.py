"""`mdsim doctor`: versions, devices, threads and kernels of this environment, what is missing, and how to get it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

import mdsim
from mdsim.cli import shared
from mdsim.reporting.console import format_table, show

if TYPE_CHECKING:
    from mdsim.force_field import ForceField
    from mdsim.state import System

PURPOSE = {
    "fast": "fits and dynamics on a CPU in compiled loops",
    "gpu": "kernels of cuEquivariance for NequIP",
    "gpu-cu12": "kernels of cuEquivariance for NequIP, with a torch of CUDA 12",
    "mace": "models of mace-torch",
    "sevenn": "models of sevenn",
    "nequip": "models of the package nequip",
    "allegro": "Allegro models of the package nequip",
    "metatomic": "models of metatomic",
    "engines": "torch-sim, LAMMPS, OpenMM, i-PI, metatomic",
    "data": "generators of reference data",
    "water": "the generator of liquid water",
    "trajectories": "trajectory files in the formats XTC, DCD and H5MD",
    "scattering": "structure factors weighted for X-rays and neutrons",
    "wandb": "logging to Weights & Biases",
    "sweeps": "the search of settings with Optuna",
    "completion": "shell completion",
}
APART = {"mace": "in an environment without sevenn and nequip, which need another e3nn"}
CPU_INDEX, PYPI = "https://download.pytorch.org/whl/cpu", "https://pypi.org/simple"
DESCRIPTION = "Show versions, devices, threads and kernels of this environment, and what is missing."


def doctor_parser() -> argparse.ArgumentParser:
    """The arguments of `mdsim doctor`."""
    parser = argparse.ArgumentParser(prog="mdsim doctor", description=DESCRIPTION)
    parser.add_argument("--json", action="store_true", help="print JSON, for a report of a problem")
    return parser


def doctor(arguments: Sequence[str] | None = None) -> int:
    """`mdsim doctor`. The exit status is 1 if a requirement is not met."""
    known = doctor_parser().parse_args(arguments)
    return shared.run(lambda: _report(known.json))


@dataclass(frozen=True)
class Package:
    """A package that mdsim requires, or an extra of it; its version here, and what is wrong with it, if anything."""

    extra: str | None
    name: str
    version: str | None
    problem: str | None


def _report(as_json: bool) -> int:
    here, found, paths = environment(), packages(), kernels()
    lines = advice(here, found)
    if as_json:
        parts = {"environment": here, "kernels": paths, "packages": [asdict(package) for package in found]}
        print(json.dumps({**parts, "advice": lines}, indent=2))
    else:
        shown = [package for package in found if package.extra is not None or package.problem]
        rows = [[p.extra or "required", p.name, p.version or "-", p.problem or "ok"] for p in shown]
        table = format_table(["extra", "package", "version", "state"], rows)
        listed = "\n".join(f"- {line}" for line in lines)
        show("\n\n".join(filter(None, [_listed(here), _listed(paths), table, listed])))
    return int(any(package.problem for package in found if package.extra is None))


def _listed(values: dict[str, str]) -> str:
    return "\n".join(f"{name:<12}{value}" for name, value in values.items())


def environment() -> dict[str, str]:
    """Versions, devices and threads."""
    import torch

    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    threads = os.environ.get("OMP_NUM_THREADS")
    return {
        "mdsim": f"{mdsim.__version__} ({Path(mdsim.__file__).parent})",
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
        "torch": f"{torch.__version__} ({build} build)",
        "other build": other_torch(torch.__version__, torch.version.cuda is not None),
        "devices": ", ".join(gpus) or "CPU alone",
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()} cores"
        + (f" (OMP_NUM_THREADS={threads})" if threads else ""),
    }


def other_torch(version: str, is_cuda: bool) -> str:
    """The command that gets the other build of the same torch: that for a CPU, or that for GPUs."""
    release = version.partition("+")[0]
    build, index = ("CPU", f" --index-url {CPU_INDEX}") if is_cuda else ("CUDA", f" --index-url {PYPI}")
    return f"{build}: pip install --force-reinstall torch=={release}{index}"


def packages() -> list[Package]:
    """Every required and optional package of this release."""
    found = []
    for requirement in map(Requirement, metadata.requires("mdsim") or []):
        extras = [extra for extra in PURPOSE if _applies(requirement, extra)]
        required = _applies(requirement, "")
        if requirement.name != "mdsim" and (extras or required):
            version = _version(requirement.name)
            found.append(
                Package(None if required else extras[0], requirement.name, version, _problem(requirement, version))
            )
    return found


def _problem(requirement: Requirement, version: str | None) -> str | None:
    if version is None:
        return "missing"
    return None if requirement.specifier.contains(version, prereleases=True) else f"needs {requirement.specifier}"


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def kernels() -> dict[str, str]:
    """The path that forces of each model take on this machine, found by binding a small one."""
    import torch

    from mdsim.assembly.models import device
    from mdsim.models import GemNetT, NequIP, SchNet
    from mdsim.state import System

    numbers, geometry = [8, 1, 1], torch.tensor([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    system = System.from_geometry(torch.tensor(numbers), geometry).to(device())
    small = {
        "SchNet": SchNet(species=(1, 8), hidden_channels=8, num_filters=8, num_interactions=1),
        "NequIP": NequIP((1, 8), cutoff=3.0, l_max=1, num_layers=1, num_features=2),
        "GemNet-T": GemNetT(species=(1, 8), num_blocks=1, emb_size_atom=8, emb_size_edge=8, emb_size_trip=4),
    }
    return {name: _path(model.to(system.masses.device), system) for name, model in small.items()}


def _path(model: ForceField, system: System) -> str:
    from mdsim.force_field import NoFastPath

    try:
        return getattr(model.fast_potential(system), "description", "fast path")
    except NoFastPath as reason:
        return f"plain path: {reason}"


def advice(here: dict[str, str], found: Sequence[Package]) -> list[str]:
    """One line for each thing worth changing, with the command."""
    lines = []
    if wrong := [package.name for package in found if package.extra is None and package.problem]:
        lines.append(f"required packages: pip install {' '.join(wrong)} (with -c constraints.txt in a checkout)")
    has_gpu = shutil.which("nvidia-smi") is not None
    if has_gpu and "CPU build" in here["torch"]:
        lines.append("there is a GPU, and torch is a CPU build: pip install --force-reinstall torch")
    if not has_gpu and "CUDA" in here["torch"]:
        install = f"pip install --force-reinstall torch --index-url {CPU_INDEX}"
        lines.append(f"there is no GPU, and a CPU build of torch is gigabytes smaller: {install}")
    kernels_extra = "gpu-cu12" if "CUDA 12" in here["torch"] else "gpu"
    for extra, purpose in PURPOSE.items():
        missing = any(package.problem for package in found if package.extra == extra)
        of_another_machine = extra.startswith("gpu") and not (has_gpu and extra == kernels_extra)
        if missing and not of_another_machine:
            lines.append(
                f"{purpose}: " + ", ".join([f"pip install 'mdsim[{extra}]'", *filter(None, [APART.get(extra)])])
            )
    return lines
