"""Registry of the engines that force fields are exported to: one entry per engine.

Nothing here imports torch, an engine, or the module that writes for it, so that the command line can list them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mdsim.errors import ConfigError
from mdsim.plugins import resolve


@dataclass(frozen=True)
class Order:
    """The force field to export, and where to.

    Args:
        checkpoint: its file.
        output: the file to write.
        allow_factory: factory that may make a custom model, see `mdsim.models.load_force_field`.
        energy_zero: see `mdsim.calculator.ForceFieldCalculator`.
        structure: a file with the atoms to simulate, for engines that need them in advance.
    """

    checkpoint: Path
    output: Path
    allow_factory: str | None = None
    energy_zero: str = "labels"
    structure: Path | None = None


@dataclass(frozen=True)
class Exporter:
    """One engine.

    Args:
        description: what is written, for the help text.
        writer: ``module:function`` that takes an `Order` and returns the paths of the files that it wrote.
        takes_structure: whether it uses `Order.structure`.
        any_energy_zero: whether it uses `Order.energy_zero`.
    """

    description: str
    writer: str
    takes_structure: bool = False
    any_energy_zero: bool = True


#: Engines by their names on the command line.
EXPORTERS = {
    "ase": Exporter("a script for ASE: relaxation and dynamics", "mdsim.export.ase:write"),
    "torchsim": Exporter("a script for torch-sim: many systems at once", "mdsim.export.torchsim_script:write"),
    "lammps": Exporter("a script for LAMMPS, through `fix external`", "mdsim.export.lammps:write"),
    "openmm": Exporter("a script for OpenMM", "mdsim.export.openmm:write"),
    "ipi": Exporter(
        "a client for i-PI, and an input with four beads beside it", "mdsim.export.ipi:write", takes_structure=True
    ),
    "metatomic": Exporter(
        "a model file for the engines of metatomic: no mdsim is needed to run it",
        "mdsim.export.metatomic:write",
        takes_structure=True,
        any_energy_zero=False,
    ),
    "native": Exporter(
        "a file of the package that the model comes from: mace-torch, sevenn, nequip",
        "mdsim.export.native:write",
        any_energy_zero=False,
    ),
}


def export(engine: str, order: Order) -> list[Path]:
    """Write what an engine needs to run a force field; the paths of the files.

    Raises:
        ConfigError: the engine is unknown or not installed, does not use a part of the order, or would overwrite it.
        CheckpointError: the checkpoint holds no force field.
    """
    if engine not in EXPORTERS:
        raise ConfigError(f"--to: found {engine!r}; use one of {', '.join(EXPORTERS)}")
    exporter = EXPORTERS[engine]
    _check_name(order)
    if order.structure is not None and not exporter.takes_structure:
        raise ConfigError(f"--structure: not used by {engine}; its script takes the structure as an argument")
    if order.energy_zero != "labels" and not exporter.any_energy_zero:
        raise ConfigError(f"--energy-zero {order.energy_zero}: {engine} has total energies only")
    return resolve(exporter.writer, f"--to {engine}")(order)


def _check_name(order: Order) -> None:
    """Refuse to overwrite what the order names."""
    for given in (order.checkpoint, order.structure):
        if given is not None and given.resolve() == order.output.resolve():
            raise ConfigError(f"{order.output}: this would overwrite {given}; name another file")
