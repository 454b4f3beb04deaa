"""Shared tools of the benchmarks: interleaved timing, peak memory, peak speed of the machine, and tables.

The numbers in a table are measured alternately in one process, so that temporary load on the machine affects them all.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mdsim.reporting.console import format_table

Action = Callable[[], object]


def median_seconds(actions: Mapping[str, Action], repetitions: int = 5, warm_up: int = 1) -> dict[str, float]:
    """Median wall-clock seconds of each action. The actions take turns: A B C A B C ...

    Args:
        actions: actions by name.
        repetitions: measured calls per action.
        warm_up: preceding unmeasured calls per action (compilation, caches, memory pools).
    """
    for action in actions.values():
        for _ in range(warm_up):
            action()
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repetitions):
        for name, action in actions.items():
            seconds[name].append(_seconds(action))
    return {name: statistics.median(times) for name, times in seconds.items()}


def _seconds(action: Action) -> float:
    _synchronize()
    start = time.perf_counter()
    action()
    _synchronize()
    return time.perf_counter() - start


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory_MiB(action: Action) -> float:
    """Peak memory of an action beyond the memory in use before it: resident on the CPU, allocated on a GPU.

    Call the action once before, so that libraries and thread pools are not counted. Memory that the allocator reuses
    from earlier calls is not counted, so measure the largest case in a separate process.

    Raises:
        OSError: the system is not Linux, so `/proc` does not give the peak.
    """
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        action()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _status_MiB("VmRSS")
    action()
    return _status_MiB("VmHWM") - before


def resident_MiB() -> float:
    """Resident memory of this process."""
    return _status_MiB("VmRSS")


def process_peak_MiB() -> float:
    """Peak resident memory of this process since its start, or since the last `peak_memory_MiB`."""
    return _status_MiB("VmHWM")


def _status_MiB(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(key + ":")) / 1024


@dataclass(frozen=True)
class Machine:
    """Peak float32 speed of the hardware: matrix products, and copies between arrays larger than any cache."""

    flops_per_s: float
    bytes_per_s: float

    @classmethod
    def measured(cls, device: torch.device | str = "cpu") -> Machine:
        """Best of a few runs, with torch's current number of threads."""
        n, n_bytes = (4096, 2**30) if torch.device(device).type == "cuda" else (1536, 2**28)
        a, b = torch.randn(2, n, n, device=device)
        source = torch.zeros(n_bytes, dtype=torch.uint8, device=device)
        target = torch.zeros_like(source)
        product = min(_seconds(lambda: a @ b) for _ in range(6))
        copy = min(_seconds(lambda: target.copy_(source)) for _ in range(4))
        return cls(2 * n**3 / product, 2 * n_bytes / copy)

    def __str__(self) -> str:
        return f"peak {self.flops_per_s / 1e9:.0f} GFLOP/s (sgemm), {self.bytes_per_s / 1e9:.1f} GB/s (copy)"

    def roofline(self, seconds: float, flops: float, n_bytes: float) -> str:
        """The minimum time of a piece of work, and the fraction of the machine's peak that was reached.

        Args:
            seconds: measured time.
            flops: required floating-point operations.
            n_bytes: bytes that are read or written at least once. Caches may keep them from one call to the next.
        """
        needed = max(flops / self.flops_per_s, n_bytes / self.bytes_per_s)
        bound = "compute" if flops / self.flops_per_s >= n_bytes / self.bytes_per_s else "memory"
        return (
            f"{flops / 1e9:.3g} GFLOP, {n_bytes / 2**20:.3g} MiB: at least {1e3 * needed:.3g} ms ({bound}); "
            f"taken {1e3 * seconds:.3g} ms, {100 * needed / seconds:.1f} % of the roofline"
        )


def ratio_rows(labels: Sequence[str], seconds: Mapping[str, float], amount: float, baseline: str) -> list[list[str]]:
    """Rows of a table: labels, name, milliseconds, amount per second, and speed relative to the baseline.

    Args:
        labels: first cells of each row.
        seconds: measured times by name.
        amount: amount of work in each (replica-steps, samples, ...).
        baseline: the name whose ratio is 1.
    """
    return [
        [*labels, name, f"{1e3 * taken:.3g}", f"{amount / taken:.4g}", f"{seconds[baseline] / taken:.2f}"]
        for name, taken in seconds.items()
    ]


def print_table(title: str, header: list[str], rows: list[list[str]]) -> None:
    """Print a table with a title."""
    print(f"\n{title}\n\n{format_table(header, rows)}", flush=True)


def arguments(description: str | None, **defaults: object) -> argparse.ArgumentParser:
    """A parser with the option `--threads`, common to all benchmarks."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.set_defaults(**defaults)
    return parser


def announce(device: torch.device | str = "cpu") -> Machine:
    """Print the hardware and software of the measurement. Returns the machine's peak speed."""
    name = torch.cuda.get_device_name() if torch.device(device).type == "cuda" else _cpu_name()
    machine = Machine.measured(device)
    print(f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}; {machine}", flush=True)
    return machine


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].split(":", 1)[1].strip() if names else platform.processor()
