"""Trainings and evaluations at several state points: resumed runs, the single state point, and results of each."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from pydantic import ValidationError
from tiny import same_bits, simulate_config, train_config, train_values, write_world

from mdsim import assembly, checkpoints
from mdsim.assembly import runs
from mdsim.assembly.runs.evaluation import single_state_points
from mdsim.cli import main as cli
from mdsim.config.schema import TrainConfig
from mdsim.errors import ConfigError
from mdsim.evaluation.results import read_results
from mdsim.state import kinetic_temperature_K
from mdsim.units import kT_eV

POINTS = [{"temperature_K": 300}, {"temperature_K": 150, "weight": 2.0}, {"temperature_K": 900}]
SEVERAL = {"state_points": POINTS, "reweight_reference": True}


@pytest.fixture
def world(tmp_path) -> Path:
    write_world(tmp_path)
    for name in ("train", "simulate"):
        file = tmp_path / f"{name}.yml"
        values = yaml.safe_load(file.read_text()) | SEVERAL
        if name == "simulate":
            values |= {"dynamical_observables": []}
        values["dynamics"]["replicas"] = 6
        (tmp_path / f"{name}_several.yml").write_text(yaml.safe_dump(values))
    return tmp_path


def training(world: Path, exp_name: str, *changes: str, file: str = "train_several") -> dict:
    command = ["--config-yml", str(world / f"{file}.yml"), f"--exp_name={exp_name}", *changes]
    assert cli.stable_training([*command, "--reset_probability=0.3", "--restart_probability=0.5"]) == 0
    folder = world / "runs" / "stable_training" / f"schnet_water_{exp_name}"
    return checkpoints.load(folder / "last.pt", "stable_training")["training"]


def kT_of(state: dict) -> torch.Tensor:
    return state["replicas"]["state"]["kT"]


EXPECTED_KT = kT_eV(torch.tensor([300.0, 150.0, 900.0])).repeat_interleave(2)


@pytest.mark.slow
@pytest.mark.parametrize("exploration", ["parked", "persistent"])
def test_replicas_keep_their_state_points_and_a_stopped_run_goes_on(world, exploration):
    """Through rewinding, parking, restarts and `last.pt`, with all terms that use samples."""
    terms = "--terms=[{name: observables, targets: [{observable: {name: rdf, max_distance_A: 4.0, bin_width_A: 0.1}}]},"
    terms += " {name: contrast, structures_per_gradient: 12}, {name: energies_forces, batch_size: 8}]"
    more = ["--learning.steps_per_rerun=3", terms, f"--exploration={exploration}", "--max_explore_epochs=3"]
    whole = training(world, "whole", "--epochs=8", *more)
    training(world, "stopped", "--epochs=3", *more)
    resumed = training(world, "stopped", "--epochs=8", *more, "--resume")
    assert same_bits(whole, resumed)
    torch.testing.assert_close(kT_of(whole), EXPECTED_KT)
    assert all(torch.equal(past["kT"], kT_of(whole)) for past in whole["replicas"]["past"])
    assert whole["progress"]["cycle"] > 1


def test_a_list_of_one_is_the_temperature_of_the_dynamics(world):
    plain = training(world, "plain", "--epochs=6", file="train")
    listed = training(world, "listed", "--epochs=6", "--state_points=[{temperature_K: 300}]", file="train")
    assert same_bits(plain, listed)
    assert "kT" not in listed["replicas"]["state"]


def test_replicas_start_at_their_temperatures(world):
    dynamics = train_values(world)["dynamics"] | {"replicas": 3000}
    config = train_config(world, **SEVERAL, dynamics=dynamics)
    checkpoint = world / "models/schnet/toy-water_20_schnet/checkpoints/best_checkpoint.pt"
    trainer = runs.build_stable_training(config, checkpoint)
    state, system = trainer.replicas.state, trainer.stretch.system
    found = kinetic_temperature_K(state.velocities, system.masses, 3).double()
    for number, point in enumerate(POINTS):
        own = found[1000 * number : 1000 * (number + 1)] / point["temperature_K"]
        assert abs(float(own.mean()) - 1) < 3 * (2 / 3 / 1000) ** 0.5


def test_evaluation_of_each_state_point_is_that_of_it_alone(world, caplog):
    config = ["--config-yml", str(world / "simulate_several.yml"), "--eval_model=pre"]
    assert cli.stable_training(config) == 0
    folder = world / "runs" / "stable_training" / "schnet_water_default" / "inference" / "pre"
    summary = json.loads((folder / "final_metrics.json").read_text())
    assert list(summary["state_points"]) == ["300K", "150K", "900K"]
    assert summary["replicas"] == 6
    times = []
    for number, (name, point) in enumerate(zip(summary["state_points"], POINTS, strict=True)):
        alone = ["--config-yml", str(world / "simulate.yml"), "--eval_model=pre", f"--exp_name=alone{number}"]
        kelvin = [f"--dynamics.temperature_K={point['temperature_K']}", "--reweight_reference=true"]
        n_each = ["--dynamics.replicas=2", "--dynamical_observables=[]", f"--seed={5 + number}"]
        assert cli.stable_training([*alone, *kelvin, *n_each]) == 0
        single = read_results(folder.parents[1].parent / f"schnet_water_alone{number}" / "inference" / "pre")
        own = read_results(folder / name)
        assert {**single.summaries[0], "seed": 0} == {**own.summaries[0], "seed": 0}
        kept = {key: value for key, value in own.summaries[0].items() if key not in ("sha256", "digest")}
        assert summary["state_points"][name] == kept
        assert (folder / name / "report.html").exists()
        times += own.lifetimes.times.tolist()
    assert summary["stable_time_mean_ps"] == pytest.approx(sum(times) / 6)
    assert not any(key.endswith("_mae") for key in summary if key != "state_points")


@pytest.mark.slow
def test_an_evaluation_is_resumed_and_compared(world, capsys):
    config = ["--config-yml", str(world / "simulate_several.yml")]
    for name in ("pre", "post"):
        training(world, "default", "--epochs=2", "--overwrite") if name == "post" else None
        assert cli.stable_training([*config, f"--eval_model={name}", "--epochs=2"]) == 0
    folder = world / "runs" / "stable_training" / "schnet_water_default"
    assert cli.stable_training([*config, "--eval_model=post", "--epochs=4"]) != 0, "it holds a run"
    assert cli.stable_training([*config, "--eval_model=post", "--epochs=4", "--resume"]) == 0
    summary = json.loads((folder / "inference" / "post" / "final_metrics.json").read_text())
    assert summary["horizon_ps"] == pytest.approx(0.048)
    assert cli.stable_training([*config, "--eval_model=post", "--epochs=2", "--overwrite"]) == 0
    capsys.readouterr()
    assert cli.compare([str(folder)]) == 0
    said = capsys.readouterr()
    for name in ("300K", "150K", "900K"):
        assert f"post against pre at {name}" in said.err + said.out
        assert (folder / "inference" / name / "report.html").exists()
    assert cli.main(["report", str(folder)]) != 0
    assert "has several state points, with a report each" in capsys.readouterr().err
    assert cli.main(["report", str(folder / "inference" / "pre" / "150K")]) == 0


@pytest.mark.slow
def test_debug_runs_at_all_state_points(world):
    for name in ("train_several", "simulate_several"):
        debug = ["--config-yml", str(world / f"{name}.yml"), "--debug"]
        assert cli.stable_training([*debug, *(["--eval_model=pre"] if name.startswith("sim") else [])]) == 0


def test_state_points_have_data_and_files_of_their_own(world, capsys):
    table = world / "rdf_150K.dat"
    table.write_text("".join(f"{r / 10} {r / 100}\n" for r in range(41)))
    data = {"path": str(world / "data"), "name": "toy", "molecule": "water", "size": "10"}
    own = [
        {"temperature_K": 300, "data": data},
        {"temperature_K": 150, "reference_files": [{"observable": "rdf", "reference_file": str(table)}]},
    ]
    config = simulate_config(world, state_points=own, dynamical_observables=[])
    first, second = single_state_points(config)
    assert (first.dynamics.replicas, second.dynamics.temperature_K) == (2, 150)
    checkpoint = world / "models/schnet/toy-water_20_schnet/checkpoints/best_checkpoint.pt"
    of_data, of_file = (
        runs.build_evaluation(one, assembly.dataset(one.data), checkpoint, world / "out").structural["rdf"]
        for one in (first, second)
    )
    small = assembly.dataset(config.data, "10")
    expected = assembly.reference(of_data.observable, small.system(), small)
    torch.testing.assert_close(of_data.reference, expected)
    torch.testing.assert_close(of_file.reference, (0.1 * of_file.observable.bin_centers).to(of_file.reference))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"state_points": [{"temperature_K": 300}, {"temperature_K": 150}]},
            r"150 K come from .*20, which is at 300 K",
        ),
        ({"state_points": POINTS, "terms": "file"}, r"rdf\.dat is the reference of one temperature, and there are 3"),
    ],
)
def test_a_reference_of_another_temperature_is_refused(world, changes, message):
    if "terms" in changes:
        rdf = {"name": "rdf", "max_distance_A": 4.0, "bin_width_A": 0.1}
        changes = changes | {
            "terms": [{"name": "observables", "targets": [{"observable": rdf, "reference_file": "rdf.dat"}]}]
        }
    values = train_values(world)
    values["dynamics"]["replicas"] = 6
    checkpoint = world / "models/schnet/toy-water_20_schnet/checkpoints/best_checkpoint.pt"
    with pytest.raises(ConfigError, match=message):
        runs.build_stable_training(TrainConfig.model_validate(values | changes), checkpoint)


def test_an_integrator_of_one_temperature_is_refused(world, monkeypatch):
    monkeypatch.syspath_prepend(str(world))
    source = "from mdsim.integrators import LangevinBAOAB\n"
    source += "class Plain(LangevinBAOAB):\n    has_replica_temperatures = False\n"
    (world / "plain_bath.py").write_text(source)
    values = train_values(world) | SEVERAL
    custom = {"name": "custom", "factory": "plain_bath:Plain", "options": {"friction_per_ps": 10.0}}
    values["dynamics"] |= {"replicas": 6, "integrator": custom}
    checkpoint = world / "models/schnet/toy-water_20_schnet/checkpoints/best_checkpoint.pt"
    with pytest.raises(ConfigError, match="state_points: Plain has one temperature for all replicas"):
        runs.build_stable_training(TrainConfig.model_validate(values), checkpoint)


def test_dynamics_are_not_reweighted(world):
    config = simulate_config(
        world, state_points=[{"temperature_K": 300}, {"temperature_K": 150}], reweight_reference=True
    )
    checkpoint = world / "models/schnet/toy-water_20_schnet/checkpoints/best_checkpoint.pt"
    with pytest.raises(ConfigError, match="are at 300 K, and dynamics cannot be reweighted to 150 K"):
        runs.build_evaluation(single_state_points(config)[1], assembly.dataset(config.data), checkpoint, world / "out")


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (
            [{"temperature_K": 150}, {"temperature_K": 500}],
            r"dynamics\.temperature_K \(300 K\) must be one of them \(150 K; 500 K\)",
        ),
        ([{"temperature_K": 300}, {"temperature_K": 300.01}], r"300 K and 300\.01 K are the same temperature"),
        ([{"temperature_K": t} for t in (300, 400, 500)], r"replicas \(4\) must be a multiple .* \(3\)"),
        ([{"temperature_K": 300, "pressure_bar": 1}], r"pressure_bar needs a dynamics\.barostat"),
        ([], "at least 1"),
    ],
)
def test_configurations_that_are_refused(world, points, message):
    with pytest.raises(ValidationError, match=message):
        train_config(world, state_points=points)
