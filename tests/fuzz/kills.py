"""Kill campaign: runs that are killed and stopped at random moments, resumed, and compared bit for bit.

    python tests/fuzz/kills.py --kills 40 --terms 20 --seed 0

A chain is one run of a tiny system that is started, killed (SIGKILL) or stopped (SIGTERM) after a random time, resumed,
killed again, and so on until it ends. Its states, checkpoints, results and scalars must be those of a run that nobody
disturbed. Processes are forked, so that signals hit the run and not the seconds of its imports.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import numpy as np
from tiny import same_bits, write_world

from mdsim import checkpoints
from mdsim.cli import main as cli
from mdsim.reporting.console import format_table
from mdsim.reporting.scalars import read_scalars
from mdsim.reporting.stops import STOPPED

ENDLESS = ["--stability.0.bond_dev_tol_A=1000", "--max_temperature_K=1e9", "--save_trajectories=[]"]
LONGEST_S = 600


@dataclass(frozen=True)
class Kind:
    """One kind of run: its command, its folder by the name of the run, and where its state is."""

    command: Callable[[list[str]], int]
    arguments: list[str]
    name_flag: str
    folder: str
    state: str
    payload: str


KINDS = {
    "pretraining": Kind(
        cli.pretraining,
        ["--config-yml", "pretrain.yml", "--optim.max_epochs=60", "--optim.warmup_steps=50"],
        "--identifier",
        "fits/schnet/toy-water_20_schnet_{}",
        "checkpoints/last.pt",
        "training",
    ),
    "stable_training": Kind(
        cli.stable_training,
        ["--config-yml", "train.yml", "--epochs=40", "--reset_probability=0.3"],
        "--exp_name",
        "runs/stable_training/schnet_water_{}",
        "last.pt",
        "training",
    ),
    "evaluation": Kind(
        cli.stable_training,
        ["--config-yml", "simulate.yml", "--epochs=80", *ENDLESS],
        "--exp_name",
        "runs/stable_training/schnet_water_{}/inference/pre",
        "state.pt",
        "evaluation",
    ),
}


def started(kind: Kind, name: str, resume: bool) -> Any:
    """A process that carries out the command."""

    def carry_out() -> None:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(os.open(f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        arguments = [*kind.arguments, f"{kind.name_flag}={name}", *(["--resume"] if resume else [])]
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        status = kind.command(arguments)
        sys.stderr.flush()
        os._exit(status)

    process = multiprocessing.get_context("fork").Process(target=carry_out)
    process.start()
    return process


def chain(
    kind: Kind, name: str, wanted: Counter[int], whole_s: float, rng: random.Random, counts: Counter[str]
) -> list[str]:
    """Carry a run to its end through signals, and name what went wrong.

    Args:
        kind: of the run.
        name: of the run.
        wanted: how many more of each signal are to hit; is counted down.
        whole_s: what an undisturbed run takes, s.
        rng: of signals and moments.
        counts: of what became of the processes; is counted up.
    """
    folder, faults = Path(kind.folder.format(name)), []
    while not faults:
        process = started(kind, name, (folder / "config.yml").exists())
        left = [number for number in wanted if wanted[number] > 0]
        number = rng.choice(left) if left else None
        if number is not None:
            process.join(rng.uniform(0.02, 0.7) * whole_s)
            if process.is_alive():
                os.kill(process.pid, number)
        process.join(LONGEST_S)
        hit = -signal.SIGKILL if number == signal.SIGKILL else STOPPED
        if process.exitcode == 0:
            counts["ended"] += 1
            return faults
        if number is not None and process.exitcode in (hit, -number):
            wanted[number] -= 1
            counts[f"{signal.Signals(number).name}, exit status {process.exitcode}"] += 1
        else:
            faults.append(f"{name}: exit status {process.exitcode} after {number}; see {Path(f'{name}.log').resolve()}")
            process.kill()
    return faults


def differences(kind: Kind, name: str) -> list[str]:
    """Names of the files and scalars in which a run differs from the undisturbed one."""
    whole, other = (Path(kind.folder.format(each)) for each in ("whole", name))
    files = [
        sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file()) for folder in (whole, other)
    ]
    kept = [{path for path in found if not path.name.startswith(("events", "log", ".lock"))} for found in files]
    wrong = [f"{path} is in one of them only" for path in kept[0] ^ kept[1]]
    for path in sorted(kept[0] & kept[1]):
        if path.suffix == ".pt":
            same = same_bits(content(whole / path, kind), content(other / path, kind))
        elif path.suffix in (".npy", ".json"):
            same = (whole / path).read_bytes() == (other / path).read_bytes()
        else:
            continue  # figures, and the configuration, which has the name of the run
        wrong += [] if same else [f"{path} differs"]
    scalars = [read_scalars(folder) for folder in (whole, other)]
    same_names = scalars[0].keys() == scalars[1].keys()
    if not same_names or not all(
        np.array_equal(one, two, equal_nan=True)
        for key in scalars[0]
        for one, two in zip(scalars[0][key], scalars[1][key], strict=True)
    ):
        wrong.append("scalars differ")
    return [f"{name}: {one}" for one in wrong]


def content(path: Path, kind: Kind) -> dict[str, Any]:
    """What a checkpoint says, without times and without the name of the run."""
    payload = dict(checkpoints.read(path))
    payload.pop("digest", None)
    state = payload.get(kind.payload)
    if isinstance(state, dict) and isinstance(state.get("progress"), dict):
        state["progress"].pop("seconds", None)
    return payload


def main() -> int:
    """Run the campaign in a temporary folder, which is kept if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40, help="SIGKILLs, over all kinds of runs [40]")
    parser.add_argument("--terms", type=int, default=20, help="SIGTERMs [20]")
    parser.add_argument("--seed", type=int, default=0, help="of signals and moments [0]")
    known = parser.parse_args()
    rng, rows, all_faults = random.Random(known.seed), [], []
    os.chdir(write_world(Path(tempfile.mkdtemp(prefix="kills_"))))
    for place, (label, kind) in enumerate(KINDS.items()):
        shares = {signal.SIGKILL: known.kills, signal.SIGTERM: known.terms}
        share = {number: total // 3 + (place < total % 3) for number, total in shares.items()}
        wanted, counts = Counter(share), Counter[str]()
        began = time.monotonic()
        whole = started(kind, "whole", resume=False)
        whole.join()
        assert whole.exitcode == 0, f"{label}: the undisturbed run failed; see {Path('whole.log').resolve()}"
        whole_s, chains, faults = time.monotonic() - began, 0, []
        while sum(wanted.values()) and not faults:
            name = f"chain{chains}"
            faults += chain(kind, name, wanted, whole_s, rng, counts) or differences(kind, name)
            chains += 1
        all_faults += faults
        signals = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()) if what != "ended")
        rows.append([label, f"{whole_s:.1f}", str(chains), signals, str(len(faults))])
        print(f"{label}: {signals}", flush=True)
    print(format_table(["runs", "s", "chains", "signals", "faults"], rows), *all_faults, sep="\n")
    print(f"the runs are in {Path.cwd()}")
    return bool(all_faults)


if __name__ == "__main__":
    raise SystemExit(main())
