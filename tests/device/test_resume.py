"""Runs that were stopped on a GPU and go on without one, and the other way round; the choice of a device."""

import contextlib
from pathlib import Path

import pytest
import yaml
from pretend_device import pretend_cuda
from tiny import write_world

from mdsim import checkpoints
from mdsim.cli import main as cli
from mdsim.evaluation.evaluate import Evaluation

SCRIPTS = {
    "pretrain": (cli.pretraining, "optim.max_epochs", "fits"),
    "train": (cli.stable_training, "epochs", "runs"),
    "simulate": (cli.stable_training, "epochs", "runs"),
}


@pytest.fixture
def world(tmp_path, no_figures) -> Path:
    """Configurations that take a GPU if there is one."""
    write_world(tmp_path)
    for path in tmp_path.glob("*.yml"):
        config = yaml.safe_load(path.read_text()) | {"cpu": False}
        config.pop("dense_window", None), config.pop("dynamical_observables", None)
        path.write_text(yaml.safe_dump(config))
    return tmp_path


def run(world: Path, script: str, *arguments: str) -> int:
    return SCRIPTS[script][0](["--config-yml", str(world / f"{script}.yml"), *arguments])


def on(place: str):
    return pretend_cuda() if place == "gpu" else contextlib.nullcontext()


@pytest.mark.parametrize("places", [("gpu", "cpu"), ("cpu", "gpu")], ids="-".join)
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_run_goes_on_on_another_device(world, script, places, capsys):
    lengths = [f"--{SCRIPTS[script][1]}={n}" for n in (1, 2)]
    for place, length, resume in zip(places, lengths, ([], ["--resume"]), strict=True):
        with on(place):
            assert run(world, script, length, *resume) == 0
    assert "resumed after" in capsys.readouterr().err


def test_the_generator_of_another_device_is_named(world, capsys):
    """As in the state of a run whose random numbers were those of a GPU."""
    assert run(world, "train", "--epochs=1") == 0
    (last,) = (world / "runs").rglob("last.pt")
    payload = checkpoints.load(last, "stable_training")
    payload["training"]["generator"] = payload["training"]["generator"][:16]
    payload.pop("digest")
    checkpoints.save_atomically(last, payload)
    assert run(world, "train", "--epochs=2", "--resume") == 1
    shown = capsys.readouterr().err
    assert "last.pt" in shown and "generator" in shown and "Traceback" not in shown


def test_frames_of_an_evaluation_are_held_by_the_host(tmp_path, world, monkeypatch):
    held, save = [], Evaluation._save
    monkeypatch.setattr(
        Evaluation, "_save", lambda self: (held.append([*self.dense, self.followed, self.recent]), save(self))
    )
    with pretend_cuda():
        assert run(world, "simulate", "--epochs=1", "--dense_window={epochs: 1, dump_every_steps: 2}") == 0
    assert held and all(one.positions.device.type == "cpu" for frames in held for one in frames)


def test_the_device_of_a_configuration(world, capsys):
    with pretend_cuda(used=1) as ledger:
        assert run(world, "simulate", "--epochs=1", "--device=cuda:1") == 0
        assert ledger.n_launches
        assert run(world, "simulate", "--epochs=1", "--device=cuda:7", "--overwrite") == 1
    assert "device: found cuda:7, and this machine has cuda:0 to cuda:1" in capsys.readouterr().err
    assert run(world, "simulate", "--epochs=1", "--device=cuda", "--overwrite") == 1
    assert "no GPU that torch can use" in capsys.readouterr().err
    assert run(world, "simulate", "--device=gpu", "--overwrite") == 1


def test_a_prediction(world):
    from ase.build import molecule
    from ase.io import read, write

    write(world / "water.xyz", molecule("H2O"))
    (checkpoint,) = (world / "models").rglob("*.pt")
    energies = []
    for place in ("cpu", "gpu"):
        with on(place):
            arguments = ["--frames", str(world / "water.xyz"), "--output", str(world / f"{place}.xyz")]
            assert cli.main(["predict", "--checkpoint", str(checkpoint), *arguments]) == 0
        energies.append(read(world / f"{place}.xyz").get_potential_energy())
    assert energies[1] == pytest.approx(energies[0], abs=1e-5)
