"""A process that evaluates an ASE calculator. It imports no torch of its own, so that it starts fast."""

from __future__ import annotations

import os
import signal
import sys
from difflib import get_close_matches
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, get_calculator_class
from ase.calculators.calculator import names as ase_names
from jaxtyping import Float

from mdsim.errors import ConfigError, one_line
from mdsim.plugins import call, resolve

ASE_PREFIX = "ase:"
KEY = "MODEL"  # of the command line, for messages


def make_calculator(specification: str) -> Any:
    """The object that ``ase:NAME`` (ASE's registry) or ``package.module:factory`` makes.

    Raises:
        ConfigError: there is no such name or factory, or it fails.
    """
    if not specification.startswith(ASE_PREFIX):
        return call(resolve(specification, KEY), specification, KEY)
    name = specification.removeprefix(ASE_PREFIX).lower()
    if name not in ase_names:
        near = get_close_matches(name, ase_names, n=1)
        hint = f"; did you mean {ASE_PREFIX}{near[0]}?" if near else f"; it knows {', '.join(sorted(ase_names))}"
        raise ConfigError(f"{KEY}: ASE has no calculator {name!r}{hint}")
    return call(get_calculator_class(name), specification, KEY)


class Evaluation:
    """Energies and forces of structures of one system by a calculator.

    The first structure must succeed. A calculator that fails for a later one gives NaN for it: a broken replica is
    data.
    """

    def __init__(self, calculator: Calculator, numbers: np.ndarray, cell: np.ndarray | None) -> None:
        self.calculator = calculator
        self.atoms = Atoms(numbers, np.zeros((len(numbers), 3)), cell=cell, pbc=cell is not None)
        self.atoms.calc = calculator
        self._succeeded = False

    def __call__(
        self, positions: Float[np.ndarray, "replica atom 3"]
    ) -> tuple[Float[np.ndarray, "replica"], Float[np.ndarray, "replica atom 3"]]:
        """Energies (eV) and forces (eV/Å) at positions in Å.

        Raises:
            ConfigError: the calculator fails for the first structure of all.
        """
        energies, forces = np.full(len(positions), np.nan), np.full(positions.shape, np.nan)
        for replica, structure in enumerate(positions):
            if np.isfinite(structure).all():
                energies[replica], forces[replica] = self._one(structure)
        return energies, forces

    def _one(self, structure: Float[np.ndarray, "atom 3"]) -> tuple[float, np.ndarray]:
        self.atoms.positions = structure
        try:
            forces = self.atoms.get_forces()
            energy = self.atoms.get_potential_energy()
        except Exception as error:  # calculators raise errors of any kind
            if not self._succeeded:
                what = f"{type(error).__name__}: {one_line(error, 200)}"
                raise ConfigError(
                    f"{KEY}: {type(self.calculator).__name__} fails for {self.atoms.symbols} ({what}); check that it "
                    "knows these elements and needs no files or programs that are missing"
                ) from error
            return np.nan, np.full_like(structure, np.nan)
        self._succeeded = True
        return float(energy), np.asarray(forces, dtype=np.float64)


def serve(connection: Connection, specification: str, threads: int) -> None:
    """Answer requests until the other end of the connection closes, which happens when the main process ends.

    A request is ``(numbers, cell, positions)``. An answer is ``(energies, forces)``, or the text of an error.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process decides
    os.environ["OMP_NUM_THREADS"] = str(threads)
    calculator, evaluation, system = None, None, None
    while True:
        try:
            numbers, cell, positions = connection.recv()
        except (EOFError, OSError):
            return
        try:
            if calculator is None:
                calculator = make_calculator(specification)
                if (torch := sys.modules.get("torch")) is not None:
                    torch.set_num_threads(threads)
            key = (numbers.tobytes(), None if cell is None else cell.tobytes())
            if evaluation is None or key != system:
                evaluation, system = Evaluation(calculator, numbers, cell), key
            connection.send(evaluation(positions))
        except ConfigError as error:
            connection.send(str(error))
