import shutil
from pathlib import Path

import pytest
import yaml
from paths import CONFIGS

from mdsim.cli.main import PRETRAIN_DEBUG, stable_debug
from mdsim.config.loading import RECIPES, load_config, read_yaml, save_config
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

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)
)

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
    with pytest.raises(ConfigError, match=r"one\.yml: includes itself through .*two\.yml"):
        read_yaml(write("includes: [one.yml]", "two.yml").with_name("one.yml"))


def test_a_train_config_may_change_the_integrator(write):
    path = write(f"includes: ['{TRAIN}']\ndynamics: {{integrator: {{name: nose_hoover}}}}")
    assert load_config(path, STABLE).dynamics.integrator == NoseHooverConfig(name="nose_hoover")


# ------------------------------------------------------------------------------------------ recipes of the package


@pytest.mark.parametrize("name", ["stable_training", "paper"])
def test_a_recipe_is_found_from_any_folder(write, name):
    write(f"includes: [recipe:{name}]\nseed: 4", "deep/er/config.yml")
    own = read_yaml(write(f"includes: recipe:{name}\nlearning: {{clip_norm: 3}}", "deep/er/config.yml"))
    recipe = yaml.safe_load((RECIPES / f"{name}.yml").read_text())
    assert own == {**recipe, "learning": {**recipe["learning"], "clip_norm": 3}}


@pytest.mark.parametrize("name", ["", "stable", "../recipes/paper", "paper.yml", "x" * 5000])
def test_an_unknown_recipe_is_refused_with_the_known_ones(write, name):
    with pytest.raises(
        ConfigError, match=r"no recipe '.*'; there are contrast, observables_contrast, paper, stable_training$"
    ) as caught:
        read_yaml(write(f"includes: ['recipe:{name}']"))
    assert len(str(caught.value)) < 400


# ---------------------------------------------------------------------------------------- lists of named sections

TERMS = """
terms:
  - {name: observables, loss: {kind: sse, weight: 1}}
  - {name: energies_forces, batch_size: 8, loss: {kind: mae}}
"""


def test_a_mapping_changes_the_items_of_its_names(write):
    write(TERMS, "base.yml")
    path = write("includes: [base.yml]\nterms: {energies_forces: {batch_size: 40, loss: {power: 2}}}")
    assert read_yaml(path)["terms"] == [
        {"name": "observables", "loss": {"kind": "sse", "weight": 1}},
        {"name": "energies_forces", "batch_size": 40, "loss": {"kind": "mae", "power": 2}},
    ]
    assert read_yaml(path.with_name("base.yml"))["terms"][1]["batch_size"] == 8


def test_several_items_change_through_several_files(write):
    write(TERMS, "base.yml")
    write("includes: [base.yml]\nterms: {observables: {every: 2}}", "middle.yml")
    path = write("includes: [middle.yml]\nterms: {observables: {loss: {weight: 3}}, energies_forces: {batch_size: 1}}")
    first, second = read_yaml(path)["terms"]
    assert first == {"name": "observables", "loss": {"kind": "sse", "weight": 3}, "every": 2}
    assert second["batch_size"] == 1


def test_an_item_of_another_factory_is_replaced_whole(write):
    write("pieces: [{name: custom, factory: 'a:b', options: {x: 1}}]", "base.yml")
    path = write("includes: [base.yml]\npieces: {custom: {name: custom, factory: 'c:d'}}")
    assert read_yaml(path)["pieces"] == [{"name": "custom", "factory": "c:d"}]


@pytest.mark.parametrize(
    ("base", "extra", "message"),
    [
        (
            TERMS,
            "terms: {energy: {x: 1}}",
            r"terms: no item is named 'energy'; known here: observables, energies_forces",
        ),
        ("a: [{name: x}, {name: x}]", "a: {x: {b: 1}}", r"a: 2 items are named 'x'.*--a\.0\.KEY=VALUE"),
        ("a: [1, 2]", "a: {x: 1}", "a: is a list whose items have no names, so none is 'x'"),
        ("a: {b: [{c: 1}]}", "a: {b: {c: 2}}", r"a\.b: is a list whose items have no names"),
        ("a: []", "a: {x: 1}", "a: is a list whose items have no names"),
    ],
)
def test_names_that_fit_no_item_or_several(write, base, extra, message):
    write(base, "base.yml")
    with pytest.raises(ConfigError, match=rf"config\.yml: {message}"):
        read_yaml(write(f"includes: [base.yml]\n{extra}"))


def test_a_criterion_changes_by_name_in_a_file_and_on_the_command_line(write):
    path = write(f"includes: ['{TRAIN}']\nstability: {{angle_deviation: {{angle_dev_tol_deg: 60}}}}")
    config = load_config(path, STABLE, ["--stability.bond_length_deviation.bond_dev_tol_A=0.5"])
    assert [(c.name, list(c.model_dump().values())[1]) for c in config.stability] == [
        ("bond_length_deviation", 0.5),
        ("angle_deviation", 60.0),
    ]


# --------------------------------------------------------------------------------------------------- damaged files


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", r"config\.yml, line 3: 'a' appears twice"),
        ("section:\n  x: 1\n  x: 2", r"config\.yml, line 3: 'x' appears twice"),
        ("a: [1", r"config\.yml: is not valid YAML"),
        ("a: \x00", r"config\.yml: is not valid YAML"),
        ("? [1, 2]\n: 3", r"config\.yml: is not valid YAML"),
        ("a: !!python/object/apply:os.getcwd []", r"config\.yml: is not valid YAML"),
        ("", r"config\.yml: must hold `key: value` lines, found nothing"),
        ("- a\n- b", r"config\.yml: must hold `key: value` lines, found a list"),
        ("includes: [nowhere.yml]", r"nowhere\.yml: cannot be read \(No such file"),
        ("includes: 3", r"includes: must be a list of files, found 3"),
        ("includes: [{a: 1}]", r"includes: must be a list of files"),
        ("includes: [config.yml]", r"config\.yml: includes itself"),
        ('includes: ["\\0"]', r"has invalid characters"),
        ("includes: [" + "a" * 5000 + "]", r"cannot be read \(File name too long\)"),
        ("a: !!int ''", "is not valid YAML: a value cannot be read"),
        ("a: !!float x", "is not valid YAML: a value cannot be read"),
        ("a: !!bool x", "is not valid YAML: a value cannot be read"),
        ("a: !!binary a", "is not valid YAML"),
        ("a: !!map [1]", "is not valid YAML"),
        ("a: 2001-99-99", "is not valid YAML: a value cannot be read"),
        ("a: 0b_", "is not valid YAML: a value cannot be read"),
        ("a: " + "9" * 5000, "is not valid YAML: a value cannot be read"),
        ("seed: " + "9" * 50, "exceeds the range of 64-bit integers"),
        ("[" * 3000 + "]" * 3000, "nested deeper than 40 levels"),
        ("a: " + "[" * 45 + "]" * 45, "nested deeper than 40 levels"),
        ("a: &x [*x]", "nested deeper than 40 levels"),
        ("1: 2", "the key 1 is not text: put it in quotes"),
        ("on: 2", "the key True is not text: put it in quotes"),
        ('a: "\\uD800"', "has invalid characters"),
        (LAUGHS, "holds more than 100,000 values"),
        ("a: " + "x" * 1_000_000, "has more than 1,000,000 characters"),
    ],
)
def test_damaged_files_are_one_clear_error(write, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read_yaml(write(text))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 800


def test_an_endless_file_is_refused():
    with pytest.raises(ConfigError, match="/dev/zero: has more than 1,000,000 characters"):
        read_yaml(Path("/dev/zero"))


def test_files_that_include_each_other_twice_over(write):
    write("a: 1", "0.yml")
    for level in range(1, 30):
        write(f"includes: [{level - 1}.yml, {level - 1}.yml]", f"{level}.yml")
    with pytest.raises(ConfigError, match="more than 1000 files are included"):
        read_yaml(write("includes: [29.yml]"))


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
        ("epochs: 5", "unknown key 'epochs'; did you mean 'optim.max_epochs'"),
        ("optim: {identifer: x}", "unknown key 'optim.identifer'; did you mean 'identifier' at the top level"),
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
    assert len(lines) == 3, "one problem a line"
    assert {line.split(": ", 1)[1] for line in lines} == {
        "data.size: is missing",
        "model: is missing",
        "unknown key 'sed'; did you mean 'seed'?",
    }


def test_many_and_long_problems_are_cut(write):
    many = "\n".join(f"key{number}: 1" for number in range(50))
    with pytest.raises(ConfigError) as caught:
        load_config(write(f"{MINIMAL}{many}\nidentifier: [{'x' * 5000}]\n{'y' * 900}: 1"), PretrainConfig)
    lines = str(caught.value).splitlines()
    assert len(lines) == 11 and lines[-1].endswith("and 42 more")
    assert max(map(len, lines)) <= 300


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
    with pytest.raises(ConfigError, match="dynamical_observables need a dense_window"):
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
        "terms.observables.targets.0.observable.pair=[C, O]",
        "estimator.minibatch_size=9",
        "wandb.project=mine",
    ]
    config = load_config(TRAIN, STABLE, overrides)
    assert (config.seed, config.dynamics.replicas, config.learning.learning_rate) == (7, 3, 1e-5)
    assert config.learning.clip_norm is None
    assert config.stability[0].bond_dev_tol_A == 0.5
    assert config.terms[0].targets[0].observable.pair == ("C", "O")
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
        ("stability.7.name=x", "'stability.7.name' does not exist in this configuration"),
        ("stability.first.name=x", "does not exist.*stability: no item is named 'first'; known here: bond_length_dev"),
        ("terms.observables.targets.rdf.weight=2", "does not exist.*items have no names"),
        ("stability.name.bond_dev_tol_A.x=1", "does not exist"),
        ("seed.x=1", "does not exist"),
        ("exp_name.x.y=1", "does not exist"),
        ("seed=[1", "does not exist|valid"),
        ("dynamics={replicas: 1, replicas: 2}", "twice"),
    ],
)
def test_overrides_in_wrong_places(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(TRAIN, STABLE, [override])


@pytest.mark.parametrize(
    ("observable", "message"),
    [
        (
            "{name: potential_energy}",
            r"targets\.0\.observable: the potential energy depends on the parameters",
        ),
        ("{name: dihedrals, atoms: {a: [1, 2, 3]}}", "atoms"),
        ("{name: dihedrals, atoms: {a: [1, 2, 3, 3]}}", "a dihedral has four different atoms"),
        ("{name: dihedrals, atoms: {a: [-1, 2, 3, 4]}}", "greater than or equal to 0"),
        ("{name: dihedrals, atoms: {a/b: [1, 2, 3, 4]}}", "letters, digits and"),
        ("{name: dihedrals, atoms: {}}", "at least 1 item"),
        ("{name: distances, among: within}", "'all', 'within_molecules' or 'between_molecules'"),
    ],
)
def test_observables_that_are_no_targets(observable, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(TRAIN, STABLE, [f"terms.observables.targets=[{{observable: {observable}}}]"])
    assert "\n" not in str(caught.value)


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
    shutil.copytree(CONFIGS, tmp_path / "configs")
    monkeypatch.chdir(tmp_path / "configs" / "systems")
    assert load_config("../stable_training/aspirin_gfn2/train.yml", STABLE).mode == "train"
