"""What needs a GPU, in under eight minutes: equality with the CPU, repeatability, launches, speed, a training.

    make gpu                                   # on a machine with a GPU; needs no network
    python -m benchmarks.gpu --device cpu --replicas 4 --items equality repeatability speed

Every item stands for itself: one that fails is reported with its error, and the next one runs. Results go into
`benchmarks/gpu.json` and are printed as one table.

- *equality*: energies and forces of every model on the device against the CPU, in double precision, and 5 steps of
  Langevin dynamics from the same noise.
- *repeatability*: whether two runs of a stretch give the same bits.
- *launches*: kernels that one step starts, and copies to the host that it waits for, from torch's profiler.
- *speed*: replica-steps per second of the plain and the fast path, and of torch-sim where it is installed.
- *training*: two cycles of the StABlE training of `make stable`.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.cases import Case, load_case
from benchmarks.common import announce, arguments, print_table
from mdsim.assembly import runs
from mdsim.config.loading import load_config
from mdsim.config.schema import TrainConfig
from mdsim.dynamics.simulate import simulate
from mdsim.force_field import NoFastPath
from mdsim.integrators import LangevinBAOAB
from mdsim.interfaces import Potential
from mdsim.state import MDState

CASES = (("schnet", "aspirin"), ("nequip", "tetrapeptide"), ("gemnet", "water"))
RESULTS = Path(__file__).with_name("gpu.json")
LANGEVIN = LangevinBAOAB(0.5, 300.0, 1.0)
MEASURED_S = 3.0
WAITS = ("Memcpy DtoH", "cudaStreamSynchronize", "aten::_local_scalar_dense")
Row = list[str]


def moved(case: Case, device: str, dtype: torch.dtype = torch.float32) -> Case:
    """The case on a device, in a precision."""
    system, model = case.system.to(device, dtype), case.force_field.to(device, dtype)
    return replace(case, system=system, force_field=model, frames=case.frames.to(device, dtype))


def begun(case: Case, potential: Potential, n_replicas: int) -> MDState:
    return LANGEVIN.init(case.system, potential, *case.start(n_replicas))


def stretch(case: Case, potential: Potential, state: MDState, n_steps: int) -> MDState:
    seed = torch.Generator().manual_seed(5)
    return simulate(case.system, potential, LANGEVIN, state, n_steps, n_steps, seed)[0]


def equality(device: str, replicas: Sequence[int]) -> list[Row]:
    rows = []
    for model, system in CASES:
        found = []
        for where in ("cpu", device):
            case = moved(load_case(model, system), where, torch.float64)
            potential = case.force_field.bind(case.system)
            state = begun(case, potential, 2)
            found.append((state.energy.cpu(), state.forces.cpu(), stretch(case, potential, state, 5).positions.cpu()))
        energy, forces, positions = (float((a - b).abs().max()) for a, b in zip(*found, strict=True))
        rows.append([f"{model}, {system}", f"{energy:.1e} eV, {forces:.1e} eV/Å, after 5 steps {positions:.1e} Å"])
    return rows


def repeatability(device: str, replicas: Sequence[int]) -> list[Row]:
    rows = []
    for model, system in CASES:
        case = moved(load_case(model, system), device)
        potential = case.force_field.bind(case.system)
        first, second = (stretch(case, potential, begun(case, potential, 4), 20).positions for _ in range(2))
        same, difference_A = torch.equal(first, second), float((first - second).abs().max())
        rows.append([f"{model}, {system}", "same bits" if same else f"differs by {difference_A:.1e} Å"])
    return rows


def launches(device: str, replicas: Sequence[int]) -> list[Row]:
    if not device.startswith("cuda"):
        raise RuntimeError("needs a GPU")
    rows, n_steps = [], 10
    for model, system in CASES:
        case = moved(load_case(model, system), device)
        potential = case.force_field.bind(case.system)
        state = stretch(case, potential, begun(case, potential, replicas[0]), 20)
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
            stretch(case, potential, state, n_steps)
        events = seen.key_averages()
        kernels = sum(event.count for event in events if event.key.startswith(("cudaLaunchKernel", "cuLaunchKernel")))
        waits = {name: sum(event.count for event in events if name in event.key) for name in WAITS}
        shown = ", ".join(f"{name} {count / n_steps:g}" for name, count in waits.items() if count)
        found = f"{kernels / n_steps:.0f} kernels per step; waits per step: {shown or 'none'}"
        rows.append([f"{model}, {system}", found])
    return rows


def speed(device: str, replicas: Sequence[int]) -> list[Row]:
    rows = []
    for model, system in CASES:
        case = moved(load_case(model, system), device)
        for n_replicas in replicas:
            for name, potential in paths(case).items():
                state = begun(case, potential, n_replicas)
                taken = seconds_per_step(lambda s=state, p=potential, c=case: stretch(c, p, s, 20)) / 20
                rows.append(
                    [f"{model}, {system}, {n_replicas} replicas, {name}", f"{n_replicas / taken:.3g} replica-steps/s"]
                )
    return rows


def paths(case: Case) -> dict[str, Potential]:
    found = {"plain": case.force_field.bind(case.system)}
    with suppress(NoFastPath):
        found["fast"] = case.force_field.fast_potential(case.system)
    return found


def seconds_per_step(action: Callable[[], object]) -> float:
    """Seconds per call, over at least two calls after one that compiles."""
    action()
    count, start = 0, synchronized()
    while count < 2 or time.perf_counter() - start < MEASURED_S:
        action()
        count += 1
        synchronized()
    return (synchronized() - start) / count


def synchronized() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def training(device: str, replicas: Sequence[int]) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        changes = [f"log_dir={folder}", "max_cycles=2", f"cpu={str(device == 'cpu').lower()}"]
        config: TrainConfig = load_config("configs/stable_training/aspirin_gfn2/train.yml", TrainConfig, changes)
        start = synchronized()
        runs.train_stable(config)
        taken = synchronized() - start
        last = torch.load(config.run_path / "last.pt", weights_only=True)["training"]["progress"]
    evaluations = last["force_evaluations"]
    return [["schnet, aspirin", f"{evaluations} evaluations in {taken:.0f} s: {evaluations / taken:.3g} per second"]]


ITEMS: dict[str, Callable[[str, Sequence[int]], list[Row]]] = {
    "equality": equality,
    "repeatability": repeatability,
    "launches": launches,
    "speed": speed,
    "training": training,
}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--replicas", type=int, nargs="+", default=[128, 1024])
    parser.add_argument("--items", nargs="+", choices=ITEMS, default=list(ITEMS))
    parser.add_argument("--output", type=Path, default=RESULTS)
    known = parser.parse_args()
    torch.set_num_threads(known.threads)
    machine = announce(known.device)
    results: dict[str, Any] = {"torch": torch.__version__, "machine": str(machine), "device": known.device}
    if known.device.startswith("cuda"):
        results["device"] = torch.cuda.get_device_name()
    table = []
    for name in known.items:
        try:
            results[name] = ITEMS[name](known.device, known.replicas)
        except Exception as error:
            results[name] = [["failed", f"{type(error).__name__}: {error}".splitlines()[0]]]
        print(f"{name}: {len(results[name])} results", flush=True)
        table += [[name, *row] for row in results[name]]
        known.output.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print_table(f"{results['device']}, torch {torch.__version__}", ["item", "case", "result"], table)


if __name__ == "__main__":
    main()
