"""Custom components: one clear message per mistake, and no code run by checkpoints."""

import sys

import pytest
import torch
import yaml
from tiny import schnet, water

from mdsim import assembly
from mdsim.calculator import ForceFieldCalculator
from mdsim.checkpoints import force_field_payload, save_atomically
from mdsim.config.loading import read_yaml, validate
from mdsim.config.schema import CustomModelConfig, CustomModelReference, CustomObservableConfig, DynamicsConfig
from mdsim.errors import CheckpointError, ConfigError
from mdsim.force_field import ForceField
from mdsim.interfaces import BinnedObservable, StabilityCriterion
from mdsim.models.loading import load_force_field, model_config
from mdsim.observables.bonds import BondLengthDistribution
from mdsim.plugins import make

MODULE = '''
"""A module of a user."""
from torch import nn
from mdsim.force_field import ForceField
from mdsim.observables.bonds import BondLengthDistribution

calls = []
NUMBER = 3


class Pair(ForceField):
    def __init__(self, species, width=4, cutoff_A=3.0):
        super().__init__(cutoff_A, species)
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(width)))

    def atomic_energies(self, system, positions, neighbors):
        return self.weight.sum() * positions.square().sum(-1)


def bonds(system, width_A):
    calls.append(system)
    return BondLengthDistribution(2.0, width_A)


def everything(**arguments):
    calls.append(arguments)
    return BondLengthDistribution(2.0, 0.5)


class Nameless:
    bin_centers = None


def frozen(species):
    return ForceField(3.0, species)


def broken(kind):
    if kind == "elsewhere":
        return torch.zeros(2).reshape(3)
    raise {"key": KeyError("width"), "lines": RuntimeError("two\\nlines" + 1000 * "x"), "none": AssertionError()}[kind]
'''


@pytest.fixture
def users_module(tmp_path, monkeypatch):
    (tmp_path / "users_module.py").write_text("import torch\n" + MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "users_module"
    sys.modules.pop("users_module", None)


def test_a_factory_gets_its_options_and_what_it_has_parameters_for(users_module):
    made = make(BinnedObservable, "users_module:bonds", {"width_A": 0.25}, "observable", system="S", dataset="D")
    assert made == BondLengthDistribution(2.0, 0.25)
    make(BinnedObservable, "users_module:everything", {"x": 1}, "observable", system="S", dataset="D")
    assert sys.modules["users_module"].calls == ["S", {"system": "S", "dataset": "D", "x": 1}]


@pytest.mark.parametrize(
    ("factory", "options", "message"),
    [
        (
            "no_such_module:x",
            {},
            "key: no_such_module:x cannot be imported (No module named 'no_such_module'); install",
        ),
        ("users_module:bond", {}, "key: users_module has no 'bond'; did you mean 'bonds'?"),
        ("users_module:NUMBER", {}, "key: users_module:NUMBER is a int and cannot be called"),
        ("users_module:bonds", {}, "missing a required argument: 'width_A'"),
        ("users_module:bonds", {"widht_A": 1}, "key: options do not fit users_module:bonds(system, width_A): "),
        ("users_module:bonds", {"system": 1}, "key: options.system cannot be set: users_module:bonds gets system from"),
        ("users_module:Nameless", {}, "returned a Nameless, which is not a BinnedObservable: it lacks __call__, name"),
    ],
)
def test_each_mistake_is_named(users_module, factory, options, message):
    with pytest.raises(ConfigError) as caught:
        make(BinnedObservable, factory, options, "key", system=water())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("key", "KeyError in line {} of users_module.py: 'width'"),
        ("lines", "RuntimeError in line {} of users_module.py: two linesxxx"),
        ("none", "AssertionError in line {} of users_module.py: "),
        ("elsewhere", "RuntimeError in line {} of users_module.py: shape '[3]' is invalid for input of size 2"),
    ],
)
def test_what_goes_wrong_in_a_factory_is_one_line_with_its_name_and_key(users_module, tmp_path, kind, message):
    lines = (tmp_path / "users_module.py").read_text().splitlines()
    words = "return torch.zeros(2)" if kind == "elsewhere" else "raise {"
    number = next(place for place, line in enumerate(lines, start=1) if words in line)
    with pytest.raises(ConfigError) as caught:
        make(ForceField, "users_module:broken", {"kind": kind}, "terms.1", system=water())
    text = str(caught.value)
    assert text.startswith("terms.1: users_module:broken fails with " + message.format(number))
    assert "\n" not in text and len(text) < 500


@pytest.mark.parametrize(("code", "error"), [("1 / 0", "ZeroDivisionError"), ("def f(:", "SyntaxError")])
def test_a_module_that_fails_while_it_is_imported_is_one_line(tmp_path, monkeypatch, code, error):
    (tmp_path / "failing_module.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ConfigError, match=f"^model: failing_module:make cannot be imported with {error} in line"
    ) as caught:
        make(ForceField, "failing_module:make", {}, "model")
    assert "\n" not in str(caught.value)


def test_another_kind_of_piece_is_refused(users_module):
    with pytest.raises(ConfigError, match=r"returned a BondLengthDistribution, which is not a ForceField$"):
        make(ForceField, "users_module:bonds", {"width_A": 0.25}, "model", system=water())


@pytest.mark.parametrize("factory", ["module", "module.function", "module:", "a b:c", "/file.py:make", "m:f()"])
def test_the_form_of_a_factory(factory):
    with pytest.raises(ConfigError, match=r"factory: write package\.module:function.*found"):
        validate({"name": "custom", "factory": factory}, CustomObservableConfig, "x.yml")


def test_an_unknown_key_beside_the_options_is_refused():
    values = {"name": "custom", "factory": "a:b", "option": {}}
    with pytest.raises(ConfigError, match=r"unknown key 'option'; did you mean 'options'\?"):
        validate(values, CustomObservableConfig, "x.yml")


def test_options_of_another_factory_are_not_inherited(tmp_path):
    base = {"model": {"name": "custom", "factory": "a:b", "options": {"width": 3}}}
    (tmp_path / "base.yml").write_text(yaml.safe_dump(base))
    (tmp_path / "same.yml").write_text("includes: [base.yml]\nmodel: {options: {depth: 2}}\n")
    (tmp_path / "other.yml").write_text("includes: [base.yml]\nmodel: {name: custom, factory: 'a:c'}\n")
    assert read_yaml(tmp_path / "same.yml")["model"]["options"] == {"width": 3, "depth": 2}
    assert "options" not in read_yaml(tmp_path / "other.yml")["model"]


def test_messages_name_the_place_in_the_configuration(users_module):
    dynamics = DynamicsConfig(integrator={"name": "custom", "factory": "users_module:bonds"}, temperature_K=300)
    with pytest.raises(ConfigError, match=r"^dynamics\.integrator: options do not fit users_module:bonds"):
        assembly.integrator(dynamics)


# ------------------------------------------------------------------------------------------------------- checkpoints

MODEL = CustomModelConfig(name="custom", factory="users_module:Pair", options={"width": 7}, label="pair")


@pytest.fixture
def checkpoint(users_module, tmp_path):
    torch.manual_seed(1)
    model = assembly.force_field(MODEL, [8, 1])
    path = tmp_path / "pair.pt"
    save_atomically(path, force_field_payload(model, model_config(model), {}))
    return path, model


def test_a_checkpoint_is_loaded_with_the_factory_that_is_allowed(checkpoint):
    path, model = checkpoint
    assert model_config(model) == {"name": "custom", "factory": "users_module:Pair", "options": {"width": 7}}
    loaded = load_force_field(path, "users_module:Pair")
    assert type(loaded).__name__ == "Pair"
    assert loaded.species.tolist() == [1, 8]
    assert not loaded.training
    torch.testing.assert_close(loaded.weight, model.weight)
    assert model_config(loaded) == model_config(model)  # StABlE training writes it again
    reference = CustomModelReference(name="custom", factory="users_module:Pair")
    torch.testing.assert_close(assembly.saved_force_field(reference, path).weight, model.weight)


def test_the_calculator_asks_for_the_factory_too(checkpoint):
    path, model = checkpoint
    calculator = ForceFieldCalculator(path, allow_factory="users_module:Pair")
    torch.testing.assert_close(calculator.force_field.weight, model.weight)
    with pytest.raises(CheckpointError, match="allow_factory in Python"):
        ForceFieldCalculator(path)


@pytest.mark.parametrize("allowed", [None, "users_module:bonds"])
def test_no_code_is_imported_that_nobody_named(checkpoint, monkeypatch, allowed):
    path, _ = checkpoint
    sys.modules.pop("users_module")
    with pytest.raises(CheckpointError, match=r"holds a model that users_module:Pair made.*--allow-factory"):
        load_force_field(path, allowed)
    assert "users_module" not in sys.modules


def test_an_allowed_factory_does_not_stand_in_for_another_model(tmp_path, users_module):
    model = schnet()
    path = tmp_path / "schnet.pt"
    save_atomically(path, force_field_payload(model, model_config(model), {}))
    assert type(load_force_field(path, "users_module:Pair")) is type(model)
    assert "users_module" not in sys.modules


def test_weights_that_do_not_fit_the_options(checkpoint, tmp_path):
    path, model = checkpoint
    changed = {**model_config(model), "options": {"width": 5}}
    save_atomically(path, force_field_payload(model, changed, {}))
    with pytest.raises(CheckpointError, match="do not fit the model it describes"):
        load_force_field(path, "users_module:Pair")


def test_a_model_without_parameters_is_refused(users_module):
    config = CustomModelConfig(name="custom", factory="users_module:frozen")
    with pytest.raises(ConfigError, match="users_module:frozen returned a ForceField without trainable parameters"):
        assembly.force_field(config, [1])


def test_a_criterion_needs_a_name(users_module):
    with pytest.raises(ConfigError, match="not a StabilityCriterion: it lacks __call__, name"):
        make(StabilityCriterion, "users_module:Nameless", {}, "stability")
