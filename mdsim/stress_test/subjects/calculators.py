"""ASE calculators: replicas are divided among processes, each with a calculator of its own."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import numpy as np
import torch
from ase.calculators.calculator import Calculator

from mdsim.errors import ConfigError
from mdsim.interfaces import Potential
from mdsim.state import System
from mdsim.stress_test.subjects.calculator_worker import KEY, Evaluation, serve
from mdsim.typing import Float, Tensor

SECONDS_TO_STOP = 2.0


class CalculatorSubject:
    """An ASE calculator in one process, this one, or in several.

    Processes are spawned at the first evaluation. They end when `close` is called, and also when this process ends
    in any other way, because their connection closes.

    Args:
        calculator: the calculator of this process.
        name: what makes it, see `make_calculator`.
        n_processes: at most this many evaluate replicas at the same time.
    """

    kind = "ASE calculator"
    dtype = torch.float64
    device = torch.device("cpu")

    def __init__(self, calculator: Calculator, name: str, n_processes: int = 1) -> None:
        self.calculator, self.name, self.n_processes = calculator, name, n_processes
        self._workers: list[tuple[BaseProcess, Connection]] = []

    def potential(self, system: System, precise: bool = False) -> Potential:
        """The calculator for a system. A structure for which it fails has NaN as energy and forces."""
        numbers = system.atomic_numbers.numpy()
        cell = None if system.cell is None else system.cell.double().numpy()
        together = _Shared(self, numbers, cell) if self.n_processes > 1 else Evaluation(self.calculator, numbers, cell)

        def evaluate(positions: Float[Tensor, "replica atom 3"]) -> tuple[Tensor, Tensor]:
            energies, forces = together(positions.detach().double().numpy())
            return torch.from_numpy(energies).to(positions), torch.from_numpy(forces).to(positions)

        return evaluate

    def connections(self) -> list[Connection]:
        """Connections to the processes, which are started if they are not running."""
        if not self._workers:
            spawning = multiprocessing.get_context("spawn")  # a fork would copy locks of threads
            threads = max(1, (os.cpu_count() or 1) // self.n_processes)
            for _ in range(self.n_processes):
                here, there = spawning.Pipe()
                process = spawning.Process(target=serve, args=(there, self.name, threads), daemon=True)
                process.start()
                there.close()
                self._workers.append((process, here))
        return [connection for _, connection in self._workers]

    def close(self) -> None:
        """End the processes."""
        for _, connection in self._workers:
            connection.close()
        for process, _ in self._workers:
            process.join(SECONDS_TO_STOP)
            if process.is_alive():  # in the middle of a long evaluation
                process.kill()
                process.join()
        self._workers = []


class _Shared:
    """Evaluation of one system by all processes of a subject."""

    def __init__(self, subject: CalculatorSubject, numbers: np.ndarray, cell: np.ndarray | None) -> None:
        self.subject, self.numbers, self.cell = subject, numbers, cell

    def __call__(
        self, positions: Float[np.ndarray, "replica atom 3"]
    ) -> tuple[Float[np.ndarray, "replica"], Float[np.ndarray, "replica atom 3"]]:
        connections = self.subject.connections()[: len(positions)]
        parts = np.array_split(positions, len(connections))
        for connection, part in zip(connections, parts, strict=True):
            with suppress(OSError):  # the answer says that the process ended
                connection.send((self.numbers, self.cell, part))
        energies, forces = zip(*_answers(connections), strict=True)
        return np.concatenate(energies), np.concatenate(forces)


def _answers(connections: Sequence[Connection]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The answers of all processes.

    Raises:
        ConfigError: a calculator failed, or its process ended.
    """
    found = []
    for connection in connections:
        try:
            answer = connection.recv()
        except (EOFError, OSError) as error:
            raise ConfigError(
                f"{KEY}: a process of the calculator ended unexpectedly (out of memory, or a crash of its code); "
                "try --processes 1"
            ) from error
        if isinstance(answer, str):
            raise ConfigError(answer)
        found.append(answer)
    return found
