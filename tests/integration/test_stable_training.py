"""`stable_training.py` and the comparison, as a user runs them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from paths import ROOT
from tiny import write_pretrained, write_world

from mdsim.checkpoints import force_field_payload, save_atomically
from mdsim.cli import main as cli
from mdsim.models.loading import load_force_field, model_config
from mdsim.models.schnet.model import SchNet
from mdsim.reporting.trajectories import read_trajectory

SMALL_OBSERVABLES = ["--dynamical_observables=[]", "--dense_window=null"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A world in which StABlE training has run once."""
    world = write_world(tmp_path_factory.mktemp("world"))
    write_pretrained(world / "models", "10", seed=4)
    assert _stable(world, "train") == 0
    return world


def _stable(world: Path, name: str, *arguments: str) -> int:
    return cli.stable_training(["--config-yml", str(world / f"{name}.yml"), *arguments])


def _run(world: Path, name: str = "default") -> Path:
    return world / "runs" / "stable_training" / f"schnet_water_{name}"


def test_training_leaves_everything_in_its_folder(trained):
    run = _run(trained)
    names = {path.name for path in run.iterdir()}
    assert {"config.yml", "log.txt", "last.pt", "cycle1_epoch1.pt", "cycle1_epoch2.pt", "end_of_cycle1.pt"} <= names
    assert list(run.glob("events.out.tfevents.*"))
    pretrained = load_force_field(next((trained / "models").rglob("toy-water_20_schnet/checkpoints/*.pt")))
    for path in run.glob("*.pt"):
        assert load_force_field(path).species.tolist() == [1, 8]
    assert not torch.equal(load_force_field(run / "last.pt").lin1.weight, pretrained.lin1.weight)
    log = (run / "log.txt").read_text()
    assert "explore   unstable" in log
    assert "learn  1  unstable" in log
    assert "cycle 1 ends" in log
    assert yaml.safe_load((run / "config.yml").read_text())["mode"] == "train"


def test_the_saved_configuration_repeats_the_training(trained):
    run = _run(trained)
    assert cli.stable_training(["--config-yml", str(run / "config.yml"), "--exp_name=again"]) == 0
    first, second = (load_force_field(_run(trained, name) / "last.pt") for name in ("default", "again"))
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))


@pytest.mark.parametrize("eval_model", ["pre", "10", "post", "post_cycle1", "post_cycle1_epoch1"])
def test_evaluation(trained, eval_model):
    assert _stable(trained, "simulate", "--eval_model", eval_model) == 0
    folder = _run(trained) / "inference" / eval_model
    metrics = json.loads((folder / "final_metrics.json").read_text())
    assert metrics["eval_model"] == eval_model
    assert metrics["replicas"] == 4
    assert metrics["horizon_ps"] == pytest.approx(0.048)
    assert 0 <= metrics["stable_time_mean_ps"] <= 0.048
    assert Path(metrics["checkpoint"]).exists()
    times, broken = np.load(folder / "stable_time_ps.npy"), np.load(folder / "broken.npy")
    assert len(times) == len(broken) == 4
    assert metrics["fraction_stable_to_end"] == pytest.approx(1 - broken.mean())
    assert sum(metrics["reasons_unstable"].values()) == broken.sum()
    assert {"survival.png", "state.pt", "config.yml", "log.txt"} <= {path.name for path in folder.iterdir()}
    for path in (folder / "trajectories").glob("*.gsd"):
        stored = read_trajectory(path)
        assert stored.system.atomic_numbers.tolist() == [8, 1, 1]
        assert stored.trajectory.frame_interval_fs == 4.0


def test_a_checkpoint_that_comes_with_the_code_is_evaluated_into_the_run_folder(tmp_path, monkeypatch, capsys):
    """As in a fresh clone: nothing was trained, and paths are those of the configuration."""
    world = write_world(tmp_path)
    monkeypatch.chdir(world)
    shipped = Path("stable_checkpoints", "stable_training", "schnet_water_default", "last.pt")
    shipped.parent.mkdir(parents=True)
    write_pretrained(world / "elsewhere", seed=9)
    next((world / "elsewhere").rglob("*.pt")).rename(shipped)
    for eval_model in ("pre", "post"):
        assert _stable(world, "simulate", "--eval_model", eval_model, *SMALL_OBSERVABLES) == 0
    assert f"last.pt does not exist; evaluating {shipped}" in capsys.readouterr().err
    metrics = json.loads((_run(world) / "inference" / "post" / "final_metrics.json").read_text())
    assert metrics["checkpoint"] == shipped.as_posix()
    assert cli.main(["compare", str(_run(world))]) == 0
    assert not list(_run(world).glob("*.pt")) and list(shipped.parent.iterdir()) == [shipped]


def test_comparison(trained, capsys):
    for eval_model in ("pre", "post"):
        _stable(trained, "simulate", "--eval_model", eval_model, "--exp_name=default", "--overwrite")
    capsys.readouterr()
    assert cli.main(["compare", str(_run(trained))]) == 0
    shown = capsys.readouterr().err
    assert "mean stable time (ps)" in shown
    assert "force MAE (meV/Å)" in shown
    assert (_run(trained) / "inference" / "survival.png").exists()


def test_two_force_fields_are_given_the_same_start(trained):
    """Judged by the first frame of a molecule that hardly moved."""
    first_frames = []
    for eval_model in ("pre", "10"):
        frozen = ["--dynamics.timestep_fs=0.001", "--stability.0.bond_dev_tol_A=1000", *SMALL_OBSERVABLES]
        arguments = ["--eval_model", eval_model, "--exp_name=start", *frozen]
        assert _stable(trained, "simulate", *arguments) == 0
        path = _run(trained, "start") / "inference" / eval_model / "trajectories" / "replica0000.gsd"
        first_frames.append(read_trajectory(path).trajectory.positions[0])
    torch.testing.assert_close(*first_frames, rtol=0, atol=1e-4)


def test_seeds_differ(trained):
    folders = []
    for seed in ("5", "6"):
        assert _stable(trained, "simulate", "--seed", seed, f"--exp_name=seed{seed}") == 0
        folders.append(_run(trained, f"seed{seed}") / "inference" / "pre")
    first, second = (np.load(folder / "rdf.npy") for folder in folders)
    assert not np.array_equal(first, second, equal_nan=True)


def test_evaluating_again_with_overwrite_leaves_nothing_of_the_old(trained):
    arguments = ["--exp_name=twice", *SMALL_OBSERVABLES]
    assert _stable(trained, "simulate", *arguments, "--stability.0.bond_dev_tol_A=0.01") == 0
    folder = _run(trained, "twice") / "inference" / "pre"
    assert list(folder.glob("trajectories/break_replica*.gsd"))
    assert _stable(trained, "simulate", *arguments, "--stability.0.bond_dev_tol_A=1000", "--overwrite") == 0
    assert not list(folder.glob("trajectories/break_replica*.gsd"))
    assert json.loads((folder / "final_metrics.json").read_text())["fraction_stable_to_end"] == 1


def _aspirin_force_field(root: Path) -> None:
    torch.manual_seed(0)
    model = SchNet(8, 8, 1, 6, cutoff=4.0, species=(1, 6, 8))
    path = root / "schnet" / "aspirin_gfn2-aspirin_40_schnet" / "checkpoints" / "best_checkpoint.pt"
    path.parent.mkdir(parents=True)
    save_atomically(path, force_field_payload(model, model_config(model), {}))


@pytest.mark.slow
def test_the_bundled_configurations_can_be_debugged(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    _aspirin_force_field(tmp_path)
    folder = "configs/stable_training/aspirin_gfn2"
    common = ["--debug", "--cpu", f"--model_dir={tmp_path}", f"--log_dir={tmp_path}", "--reference_size=40"]
    assert cli.stable_training(["--config-yml", f"{folder}/train.yml", *common]) == 0
    run = tmp_path / "aspirin_gfn2" / "schnet_aspirin_debug"
    assert (run / "cycle1_epoch3.pt").exists(), "one epoch explores, and three learn"
    for eval_model in ("pre", "post"):
        assert cli.stable_training(["--config-yml", f"{folder}/simulate.yml", "--eval_model", eval_model, *common]) == 0
    assert cli.compare([str(run)]) == 0


def test_a_fit_of_debug_is_enough_for_a_training_of_debug(tmp_path, capfd):
    """Every replica is unstable at the bound of `--debug`, which is no news."""
    world = write_world(tmp_path)
    assert cli.pretraining(["--config-yml", str(world / "pretrain.yml"), "--debug"]) == 0
    fits = f"--model_dir={world / 'fits'}"
    for name in ("train", "simulate"):
        arguments = ["--config-yml", str(world / f"{name}.yml"), fits]
        assert cli.stable_training(arguments) == 1
        assert "best_checkpoint.pt" in capfd.readouterr().err, "without --debug the real fit is needed"
        assert cli.stable_training([*arguments, "--debug"]) == 0
        said = capfd.readouterr().err
        assert "toy-water_20_schnet_debug" in said and said.count("a fit of --debug") == 1
        if name == "train":
            assert "unstable before the first step" not in said


@pytest.mark.slow
def test_the_bundled_configurations_work_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = str(ROOT / "configs" / "stable_training" / "aspirin_gfn2" / "simulate.yml")
    tiny = ["--debug", "--cpu", "--dynamics.fast=false", "--reference_size=40", "--dynamics.replicas=2"]
    assert cli.main(["simulate", "--config-yml", config, "--eval_model", "pre", *tiny]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert len(list(tmp_path.rglob("final_metrics.json"))) == 1


@pytest.mark.slow
def test_the_bundled_tetrapeptide_is_evaluated_with_another_l_max(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    simulate = ["--config-yml", "configs/stable_training/ac_ala3_nhme_gfn2/simulate.yml", "--eval_model", "lmax=2"]
    assert (
        cli.stable_training([*simulate, "--debug", "--cpu", f"--log_dir={tmp_path}", "--reference_size=1percent"]) == 0
    )
    folder = tmp_path / "ac_ala3_nhme_gfn2" / "nequip_ac_Ala3_NHMe_debug" / "inference" / "lmax=2"
    metrics = json.loads((folder / "final_metrics.json").read_text())
    assert metrics["fraction_stable_to_end"] == 1
    fit = "qm_pretrained_checkpoints/nequip/ac_ala3_nhme_gfn2-ac_Ala3_NHMe_5percent_nequip_lmax=2/metrics.json"
    expected = json.loads((ROOT / fit).read_text())["test"]["force_mae_meV_per_A"]
    assert metrics["force_mae_meV_per_A"] == pytest.approx(expected, rel=1e-3)
