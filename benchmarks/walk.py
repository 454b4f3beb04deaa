"""The walk of one rerun through a learning epoch: the modules that it passes, and the calls between them.

    python -m benchmarks.walk

A tiny learning epoch of bundled aspirin is traced. Calls of functions in `mdsim/training`, `mdsim/estimator` and
`mdsim/dynamics/stretch.py` make up the walk. What these call elsewhere (models, observables, geometry) is not followed.
A way that is walked in both directions is a callback.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from benchmarks.common import print_table

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("mdsim/training/", "mdsim/estimator/", "mdsim/dynamics/stretch.py")
SMALL = [
    "dynamics.replicas=4", "dynamics.steps_per_epoch=20", "dynamics.dump_every_steps=10", "max_temperature_K=1",
    "learn_while_exploring=false", "learning.reruns=4", "learning.steps_per_rerun=2", "reference_size=40", "cpu=true",
]  # fmt: skip


class Walk:
    """Records the modules in which calls happen, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []  # from module, to module

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and (room := _room(frame)) is not None:
            caller = frame.f_back
            while caller is not None and _room(caller) is None:
                caller = caller.f_back
            self.calls.append(("" if caller is None else _room(caller) or "", room))

    def of(self, work: Callable[[], None]) -> Walk:
        """Trace a piece of work."""
        sys.setprofile(self)
        try:
            work()
        finally:
            sys.setprofile(None)
        return self


def _room(frame: FrameType) -> str | None:
    try:
        name = Path(frame.f_code.co_filename).resolve().relative_to(ROOT).as_posix()
    except ValueError:
        return None
    return name if name.startswith(ROOMS) else None


def main() -> None:
    from mdsim.assembly import pretrained_checkpoint, runs
    from mdsim.config.loading import load_config
    from mdsim.config.schema import TrainConfig
    from mdsim.reporting.scalars import ScalarWriter

    with tempfile.TemporaryDirectory() as folder:
        path = ROOT / "configs" / "stable_training" / "aspirin_gfn2" / "train.yml"
        config: TrainConfig = load_config(path, TrainConfig, [*SMALL, f"log_dir={folder}"])
        trainer = runs.build_stable_training(config, pretrained_checkpoint(config))
        config.run_path.mkdir(parents=True)
        with ScalarWriter(config.run_path) as writer:
            trainer._explore(writer)
            walk = Walk().of(lambda: trainer.learner.epoch(trainer.replicas, trainer.progress))
    between = Counter((caller, called) for caller, called in walk.calls if caller and caller != called)
    rows = [[caller, called, str(number)] for (caller, called), number in between.items()]
    title = "Calls from module to module in one learning epoch of two parameter steps"
    print_table(title, ["from", "to", "calls"], rows)
    modules = {name for pair in between for name in pair}
    back = {pair for pair in between if pair[::-1] in between}
    print(f"\n{len(modules)} modules, {len(between)} ways between them, {len(back) // 2} walked in both directions")


if __name__ == "__main__":
    main()
