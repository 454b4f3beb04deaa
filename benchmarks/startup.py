"""Benchmark of start-up: seconds from the start of a script to its help text and to its first step.

    python -m benchmarks.startup [--repetitions 3]

Each measurement is a new process, and the best of the repetitions counts. The first step is the first evaluation of a
force field. The slowest imports are listed.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mdsim.reporting.console import format_table

HELP = (
    ["pretraining.py", "--help"],
    ["stable_training.py", "--help"],
    ["download_data.py", "--help"],
    ["-m", "mdsim.cli", "--help"],
)
STABLE = "configs/stable_training/aspirin_gfn2"
FIRST_STEP = {  # commands by name
    "pretraining.py (fit)": ["pretraining", "--config-yml", "configs/pretraining/aspirin_gfn2/schnet.yml"],
    "stable_training.py (train)": ["stable_training", "--config-yml", f"{STABLE}/train.yml"],
    "stable_training.py (simulate)": ["stable_training", "--config-yml", f"{STABLE}/simulate.yml", "--eval_model=pre"],
}
# Ends the process at the first evaluation of a force field. The plain path uses `forward`, the fast path `bind`.
CHILD = """
import sys
from mdsim import force_field
from mdsim.cli import main as cli
def stop(*_, **__):
    raise SystemExit(0)
force_field.ForceField.forward = stop
force_field.ForceField.bind = lambda *_, **__: stop
sys.exit(getattr(cli, sys.argv[1])(sys.argv[2:]))
"""


def seconds(command: list[str], repetitions: int, folder: Path | None = None) -> list[str]:
    """Table cells: best wall-clock and processor seconds of repeated runs of a command that must succeed."""
    wall, processor = float("inf"), float("inf")
    for number in range(repetitions):
        extra = [] if folder is None else _into(folder / str(number), command)
        start, before = time.perf_counter(), _processor_s()
        subprocess.run([sys.executable, *command, *extra], check=True, capture_output=True, env=_environment())
        wall, processor = min(wall, time.perf_counter() - start), min(processor, _processor_s() - before)
    return [f"{wall:.2f}", f"{processor:.2f}"]


def _processor_s() -> float:
    """Processor seconds of all finished child processes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _into(folder: Path, command: list[str]) -> list[str]:
    key = "run_dir" if "pretraining" in command else "log_dir"
    return [f"--{key}={folder}", "--cpu"]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])}


def slow_imports(command: list[str], at_least_s: float = 0.15) -> list[list[str]]:
    """The packages with the longest import times, including everything they import."""
    run = subprocess.run(
        [sys.executable, "-X", "importtime", *command], check=True, capture_output=True, text=True, env=_environment()
    )
    found: dict[str, float] = {}
    for line in run.stderr.splitlines():
        parts = line.removeprefix("import time:").split("|")
        if len(parts) == 3 and parts[1].strip().isdigit():
            package = ".".join(parts[2].strip().split(".")[:2])
            found[package] = max(found.get(package, 0.0), int(parts[1]) / 1e6)
    return [[name, f"{s:.2f}"] for name, s in sorted(found.items(), key=lambda item: -item[1]) if s >= at_least_s]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3)
    known = parser.parse_args()
    rows = [["python", "start alone", *seconds(["-c", "pass"], known.repetitions)]]
    rows += [["torch", "import alone", *seconds(["-c", "import torch"], known.repetitions)]]
    rows += [[" ".join(command[:-1]), "--help", *seconds(command, known.repetitions)] for command in HELP]
    for name, arguments in FIRST_STEP.items():
        with tempfile.TemporaryDirectory() as folder:
            taken = seconds(["-c", CHILD, *arguments], known.repetitions, Path(folder))
        rows.append([name, "first step", *taken])
    print(format_table(["script", "until", "s", "processor s"], rows))
    module = "mdsim.assembly.runs"
    print("\n" + format_table([f"import of {module}", "s"], slow_imports(["-c", f"import {module}"])))


if __name__ == "__main__":
    main()
