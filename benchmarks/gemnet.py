"""Benchmark of GemNet-T: time, memory and profile of a force call with the settings of the paper, 192 atoms of water.

    python -m benchmarks.gemnet --threads 2

Memory is measured in one process per number of replicas, because an allocator does not return memory.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from collections.abc import Sequence

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.cases import load_case
from benchmarks.common import Action, announce, arguments, median_seconds, print_table, process_peak_MiB

KINDS = {
    "matrix products": ("mm", "addmm", "addmm_", "bmm", "baddbmm", "baddbmm_"),
    "activations": ("silu", "silu_backward"),
    "gathers, sums to atoms": ("index_select", "index_add_", "scatter_add_", "index_copy_", "index_copy"),
    "sums and products of elements": (
        "mul",
        "add",
        "add_",
        "sub",
        "neg",
        "div",
        "sum",
        "flip",
        "cat",
        "copy_",
        "fill_",
    ),
}


def main(argv: list[str] | None = None) -> None:
    """Print the tables."""
    parser = arguments(__doc__)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 8])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)  # for the process that measures memory
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    if options.memory_of is not None:
        force_call(options.memory_of)()
        print(process_peak_MiB())
        return

    machine = announce()
    calls = {str(n): force_call(n) for n in options.replicas}
    seconds = median_seconds(calls, options.repetitions)
    n_flops, by_kind = profiled(calls[str(options.replicas[0])])
    rows = []
    for n in options.replicas:
        done, taken = n_flops * n / options.replicas[0], seconds[str(n)]
        memory = _memory_MiB(n, options.threads)
        share = f"{100 * done / taken / machine.flops_per_s:.0f} %"
        rows.append(
            [str(n), f"{1e3 * taken:.0f}", f"{memory:.0f}", f"{done / 1e9:.1f}", f"{done / taken / 1e9:.0f}", share]
        )
    header = ["replicas", "ms", "peak memory of the process (MiB)", "GFLOP", "GFLOP/s", "of the sgemm peak"]
    print_table("Force call", header, rows)
    total = sum(by_kind.values())
    shares = [[kind, f"{1e3 * taken:.0f}", f"{100 * taken / total:.0f} %"] for kind, taken in by_kind.items()]
    print_table(f"Where the time goes, {options.replicas[0]} replica(s)", ["operations", "ms", "share"], shares)


def force_call(n_replicas: int) -> Action:
    """Energies and forces of the replicas, by the path used in dynamics."""
    case = load_case("gemnet", "water")
    positions, _ = case.start(n_replicas)
    potential = case.force_field.bind(case.system, fast=True)
    return lambda: potential(positions)


def profiled(action: Action) -> tuple[float, dict[str, float]]:
    """Floating-point operations in matrix products, and seconds of each kind of operation."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        action()
    n_flops, by_kind = 0.0, dict.fromkeys([*KINDS, "all else"], 0.0)
    kinds = {f"aten::{operation}": kind for kind, operations in KINDS.items() for operation in operations}
    for event in profiler.key_averages(group_by_input_shape=True):
        kind = kinds.get(event.key, "all else")
        by_kind[kind] += 1e-6 * event.self_cpu_time_total
        if kind == "matrix products":
            n_flops += event.count * flops_of_product(event.input_shapes, adds="add" in event.key)
    return n_flops, by_kind


def flops_of_product(shapes: Sequence[Sequence[int]], adds: bool) -> float:
    """Operations of a matrix product, of a batch of them, or of one that is added to its first argument."""
    left, right = shapes[adds], shapes[adds + 1]
    return 2.0 * math.prod(left) * right[-1]


def _memory_MiB(n_replicas: int, threads: int) -> float:
    command = [sys.executable, "-m", "benchmarks.gemnet", "--memory-of", str(n_replicas), "--threads", str(threads)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


if __name__ == "__main__":
    main()
