import shutil
from pathlib import Path

import pytest
import yaml
from paths import CONFIGS

from mdsim.cli.main import PRETRAIN_DEBUG, stable_debug
from mdsim.config.loading import load_config, read_yaml, save_config
from mdsim.config.schema import LangevinConfig, NoseHooverConfig, PretrainConfig, SimulateConfig, TrainConfig
from mdsim.errors import ConfigError

STABLE = {"train": TrainConfig, "simulate": SimulateConfig}
COMPLETE = sorted(
    path
    for pattern in ("pretraining/*/*.yml", "stable_training/*/*.yml")
    for path in CONFIGS.glob(pattern)
    if path.name != "common.yml"
)
TRAIN = CONFIGS / "stable_training" / "aspirin_gfn2" / "train.yml"
SIMULATE = TRAIN.with_name("simulate.yml")

MINIMAL = """
data: {path: data, name: toy, molecule: water, size: 20}
model: {name: schnet}
"""


def _schemas(path: Path):
    return PretrainConfig if "pretraining" in path.parts else STABLE


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "config.yml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


# -------------------------------------------------------------------------------------------------- bundled files


@pytest.mark.parametrize("path", COMPLETE, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_bundled_configuration_is_valid_and_survives_saving(path, tmp_path):
    config = load_config(path, _schemas(path))
    save_config(config, tmp_path / "config.yml")
    assert load_config(tmp_path / "config.yml", _schemas(path)) == config
    assert [left.name for left in tmp_path.iterdir()] == ["config.yml"]


@pytest.mark.parametrize("path", COMPLETE, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_bundled_configuration_can_be_debugged(path):
    debug = PRETRAIN_DEBUG
    if "stable_training" in path.parts:
        debug = stable_debug(load_config(path, STABLE))
    load_config(path, _schemas(path), debug)


def test_training_and_evaluation_agree_on_where_the_run_lies():
    assert load_config(TRAIN, STABLE).run_path == load_config(SIMULATE, STABLE).run_path


# -------------------------------------------------------------------------------------------------------- includes


def test_later_values_win_and_sections_merge(write):
    write("a: 1\nsection: {x: 1, y: 1}\nkept: 5", "first.yml")
    write("a: 2\nsection: {y: 2, z: 2}", "second.yml")
    path = write("includes: [first.yml, second.yml]\nsection: {z: 3}")
    assert read_yaml(path) == {"a": 2, "section": {"x": 1, "y": 2, "z": 3}, "kept": 5}


def test_a_section_with_another_name_is_replaced_whole(write):
    write("thermostat: {name: nose_hoover, chain_length: 3}\nlike: {name: a, x: 1}", "base.yml")
    path = write("includes: base.yml\nthermostat: {name: langevin}\nlike: {name: a, y: 2}")
    assert read_yaml(path) == {"thermostat": {"name": "langevin"}, "like": {"name": "a", "x": 1, "y": 2}}


def test_lists_are_replaced(write):
    write("stability: [1, 2]", "base.yml")
    assert read_yaml(write("includes: [base.yml]\nstability: [3]")) == {"stability": [3]}


def test_includes_are_relative_to_the_file(write):
    write("a: 1", "deep/er/base.yml")
    write("includes: [er/base.yml]", "deep/middle.yml")
    assert read_yaml(write("includes: [deep/middle.yml]")) == {"a": 1}


def test_a_file_may_be_included_twice_but_not_in_a_circle(write):
    write("a: 1", "base.yml")
    write("includes: [base.yml]\nb: 1", "left.yml")
    write("includes: [base.yml]\nc: 1", "right.yml")
    assert read_yaml(write("includes: [left.yml, right.yml]")) == {"a": 1, "b": 1, "c": 1}
    write("includes: [two.yml]", "one.yml")
    with pytest.raises(ConfigError, match=r"one\.yml: includes itself by way of .*two\.yml"):
        read_yaml(write("includes: [one.yml]", "two.yml").with_name("one.yml"))


def test_a_train_config_may_change_the_integrator(write):
    path = write(f"includes: ['{TRAIN}']\ndynamics: {{integrator: {{name: nose_hoover}}}}")
    assert load_config(path, STABLE).dynamics.integrator == NoseHooverConfig(name="nose_hoover")


# --------------------------------------------------------------------------------------------------- damaged files


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", r"config\.yml, line 3: 'a' twice"),
        ("section:\n  x: 1\n  x: 2", r"config\.yml, line 3: 'x' twice"),
        ("a: [1", r"config\.yml: is not valid YAML"),
        ("a: \x00", r"config\.yml: is not valid YAML"),
        ("? [1, 2]\n: 3", r"config\.yml: is not valid YAML"),
        ("a: !!python/object/apply:os.getcwd []", r"config\.yml: is not valid YAML"),
        ("", r"config\.yml: must hold `key: value` lines, found NoneType"),
        ("- a\n- b", r"config\.yml: must hold `key: value` lines, found list"),
        ("includes: [nowhere.yml]", r"nowhere\.yml: cannot be read \(No such file"),
        ("includes: 3", r"includes: must be a list of files, found 3"),
        ("includes: [{a: 1}]", r"includes: must be a list of files"),
        ("includes: [config.yml]", r"config\.yml: includes itself"),
    ],
)
def test_damaged_files_are_one_clear_error(write, text, message):
    with pytest.raises(ConfigError, match=message):
        read_yaml(write(text))


def test_a_file_in_another_encoding(tmp_path):
    path = tmp_path / "config.yml"
    path.write_bytes("a: Å".encode("latin-1"))
    with pytest.raises(ConfigError, match="is not valid YAML"):
        read_yaml(path)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path)


# -------------------------------------------------------------------------------------------------------- the schema


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("optimm: {}", "unknown key 'optimm'; did you mean 'optim'"),
        ("optim: {learning_rat: 1}", "unknown key 'optim.learning_rat'; did you mean 'learning_rate'"),
        ("optim: {zzzzzz: 1}", "unknown key 'optim.zzzzzz'; known here: .*learning_rate"),
        ("optim: {learning_rate: -1}", r"optim.learning_rate: input should be greater than 0 \(found -1\)"),
        ("optim: {learning_rate: .nan}", "optim.learning_rate: .*finite"),
        ("optim: {max_epochs: 2.5}", "optim.max_epochs: .*integer"),
        ("optim: {loss: rmse}", "optim.loss: .*'mae'.*found 'rmse'"),
        ("seed: many", r"seed: .*integer.*\(found 'many'\)"),
        ("amp: 3", "amp: .*boolean"),
        ("mode: predict", "mode: .*'train' or 'validate'"),
    ],
)
def test_wrong_values_are_named(write, extra, message):
    with pytest.raises(ConfigError, match=rf"config\.yml: {message}"):
        load_config(write(MINIMAL + extra), PretrainConfig)


def test_all_problems_are_reported_at_once(write):
    with pytest.raises(ConfigError) as caught:
        load_config(write("data: {path: d, name: n, molecule: m}\nsed: 1"), PretrainConfig)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert {line.split(": ", 1)[1] for line in lines} == {
        "data.size: is missing",
        "model: is missing",
        "unknown key 'sed'; did you mean 'seed'?",
    }


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dynamics.integrator.frictionperps=1", "did you mean 'friction_per_ps'"),
        ("dynamics.integrator.chain_length=1", "unknown key 'dynamics.integrator.langevin.chain_length'"),
        (
            "stability.0.bond_tol=1",
            "unknown key 'stability.0.bond_length_deviation.bond_tol'; did you mean 'bond_dev_tol_A'",
        ),
        ("stability=[]", "stability: .*at least 1"),
        ("dynamics.integrator.name=verlet", "dynamics.integrator: .*'langevin'"),
        ("dynamics.dump_every_steps=7", r"steps_per_epoch \(500\) must be a multiple of dump_every_steps \(7\)"),
        ("mode=predict", "mode: found 'predict', expected one of train, simulate"),
        ("estimator.frames_after_break=-1", "estimator.frames_after_break: .*greater than or equal to 0"),
    ],
)
def test_wrong_overrides_are_named(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(TRAIN, STABLE, [override])


def test_an_evaluation_needs_a_window_that_fits():
    with pytest.raises(ConfigError, match=r"must be a multiple of dense_window\.dump_every_steps \(3\)"):
        load_config(SIMULATE, STABLE, ["dense_window.dump_every_steps=3"])
    with pytest.raises(ConfigError, match="dynamical_observables are taken from a dense_window"):
        load_config(SIMULATE, STABLE, ["dense_window=null"])


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        load_config(TRAIN, STABLE).seed = 2


# --------------------------------------------------------------------------------------------------------- overrides


def test_overrides_reach_every_place():
    overrides = [
        "--seed=7",
        "dynamics.replicas=3",
        "learning.learning_rate=1e-5",
        "learning.clip_norm=null",
        "stability.0.bond_dev_tol_A=0.5",
        "training_observables.0.observable.pair=[C, O]",
        "estimator.minibatch_size=9",
        "wandb.project=mine",
    ]
    config = load_config(TRAIN, STABLE, overrides)
    assert (config.seed, config.dynamics.replicas, config.learning.learning_rate) == (7, 3, 1e-5)
    assert config.learning.clip_norm is None
    assert config.stability[0].bond_dev_tol_A == 0.5
    assert config.training_observables[0].observable.pair == ("C", "O")
    assert config.estimator.minibatch_size == 9
    assert config.wandb.project == "mine"


def test_the_last_override_wins_and_a_section_can_be_given_whole():
    config = load_config(TRAIN, STABLE, ["seed=1", "seed=2", "dynamics.integrator={name: langevin}"])
    assert config.seed == 2
    assert config.dynamics.integrator == LangevinConfig(name="langevin")


@pytest.mark.parametrize("text", ["40", "1e3", "007"])
def test_names_may_look_like_numbers(text):
    overrides = [f"exp_name='{text}'", f"data.size='{text}'", f"reference_size='{text}'"]
    config = load_config(TRAIN, STABLE, overrides)
    assert (config.exp_name, config.data.size, config.reference_size) == (text, text, text)
    assert load_config(SIMULATE, STABLE, ["eval_model=100", "exp_name=3"]).eval_model == "100"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "write --key.sub=value"),
        ("stability.7.name=x", "'stability.7.name' is no place in this configuration"),
        ("stability.first.name=x", "is no place"),
        ("seed.x=1", "is no place"),
        ("exp_name.x.y=1", "is no place"),
        ("seed=[1", "is no place|valid"),
        ("dynamics={replicas: 1, replicas: 2}", "twice"),
    ],
)
def test_overrides_in_wrong_places(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(TRAIN, STABLE, [override])


def test_saving_keeps_small_numbers_and_nulls(tmp_path):
    config = load_config(TRAIN, STABLE, ["learning.learning_rate=1e-7", "learning.clip_norm=null", "exp_name='1e3'"])
    save_config(config, tmp_path / "config.yml")
    assert load_config(tmp_path / "config.yml", STABLE) == config
    assert yaml.safe_load((tmp_path / "config.yml").read_text())["learning"]["learning_rate"] == 1e-7


def test_saving_never_leaves_half_a_file(tmp_path, monkeypatch):
    path = tmp_path / "config.yml"
    save_config(load_config(TRAIN, STABLE), path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        save_config(load_config(TRAIN, STABLE, ["seed=9"]), path)
    assert path.read_bytes() == before


def test_relative_includes_work_from_any_folder(tmp_path, monkeypatch):
    for folder in ("configs", "mdsim/config/recipes"):  # a recipe is part of the package
        shutil.copytree(CONFIGS.parent / folder, tmp_path / folder)
    monkeypatch.chdir(tmp_path / "configs" / "systems")
    assert load_config("../stable_training/aspirin_gfn2/train.yml", STABLE).mode == "train"
