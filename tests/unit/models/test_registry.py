"""Model records: agreement with their classes, and imports only on use."""

import inspect
import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import tiny
from force_fields import SPECIES
from paths import ROOT

import mdsim.models
from mdsim.errors import CheckpointError
from mdsim.models import MODELS, load_force_field, model_config

OWN = [name for name, record in MODELS.items() if not record.is_foreign]
OF_EVERY_MODEL = {"species", "cutoff", "energy_shift_eV", "energy_scale"}  # no settings of a configuration


def fresh(code: str, cwd: Path = ROOT) -> str:
    """What the code prints in a new process that finds the package in a folder."""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(cwd)!r})\n{textwrap.dedent(code)}"]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", OWN)
def test_the_record_has_the_settings_and_defaults_of_the_class(name):
    record = MODELS[name]
    assert record.name == name and record.model.__name__ == record.class_name
    parameters = inspect.signature(record.model).parameters.values()
    defaults = {parameter.name: parameter.default for parameter in parameters}
    assert {key: setting.default for key, setting in record.settings.items()} == {
        key: default for key, default in defaults.items() if key not in OF_EVERY_MODEL
    }
    assert record.cutoff_A == defaults["cutoff"]


@pytest.mark.parametrize("name", OWN)
def test_what_a_record_suggests_are_settings_of_the_model_within_their_limits(name):
    record = MODELS[name]
    start = record.start
    assert record.variant is None or record.variant.setting in record.settings
    for sizes in (start.sizes, start.sizes_on_cpu, start.sizes_of_liquid_on_cpu):
        for key, chosen in sizes.items():
            setting = record.settings[key]
            assert type(chosen.value) is type(setting.default)
            assert setting.at_least is None or chosen.value >= setting.at_least


@pytest.mark.parametrize("name", OWN)
def test_a_model_is_built_and_named_by_its_record(name):
    record = MODELS[name]
    small = {key: 2 for key, setting in record.settings.items() if type(setting.default) is int}
    model = record.build(SPECIES, cutoff=3.0, **small)
    assert model.species.tolist() == list(SPECIES) and model.cutoff == 3.0
    config = model_config(model)
    assert config.pop("name") == name
    assert config.keys() == {*record.settings, "cutoff"}
    assert getattr(mdsim.models, record.class_name) is type(model)
    assert record.class_name in dir(mdsim.models)


def test_what_no_record_has_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'PaiNN'"):
        mdsim.models.PaiNN  # noqa: B018 - the attribute is looked up, and refused


def test_a_model_that_no_record_has_is_not_written_to_a_checkpoint():
    with pytest.raises(ValueError, match=r"Springs is neither in mdsim\.models\.MODELS nor made by a factory"):
        model_config(tiny.Springs())


@pytest.mark.parametrize("name", OWN)
def test_no_record_takes_a_checkpoint_of_this_package_for_a_published_one(name):
    model = MODELS[name].build((1, 8), cutoff=3.0)
    payload = {"model": model_config(model), "state_dict": model.state_dict(), "config": {}, "normalizers": {}}
    published = [record.published for record in MODELS.values() if record.published is not None]
    assert not any(one.recognizes(content) for one in published for content in (payload, {}))


# ---------------------------------------------------------------------------------------------- imported when used


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("mdsim.models, mdsim.models.registry", ("torch", "e3nn", "torch_geometric", "pydantic")),
        ("mdsim.config.schema, mdsim.cli.main", ("torch", "e3nn", "torch_geometric")),
        (
            "mdsim.models.loading, mdsim.models.custom, mdsim.plugins, mdsim.integrators",
            ("e3nn", "torch_geometric", "pydantic"),
        ),
        ("mdsim.assembly, mdsim.calculator, mdsim.cli.init", ("e3nn", "torch_geometric")),
    ],
)
def test_no_model_is_imported_before_it_is_used(modules, absent):
    models = [record.factory.partition(":")[0] for record in MODELS.values()]
    printed = fresh(f"import {modules}\nprint(*({{*{(*absent, *models)!r}}} & sys.modules.keys()))")
    assert printed.split() == []


def test_a_checkpoint_imports_its_own_model_alone(tmp_path):
    path = tiny.write_pretrained(tmp_path)
    printed = fresh(
        f"""
        from mdsim.models import load_force_field
        print(type(load_force_field({str(path)!r})).__name__, "torch_geometric" in sys.modules, "e3nn" in sys.modules)
        """
    )
    assert printed.split() == ["SchNet", "False", "False"]


# ----------------------------------------------------------------------------------------------------- another model

RECORD = """
from mdsim.models.record import Chosen, ModelRecord, Published, Setting, StartingPoint, Variant, count

RECORD = ModelRecord(
    name="toy",
    title="Toy",
    description="A toy.",
    factory="mdsim.models.toy.model:Toy",
    settings={"width": count(4, "Units."), "form": Setting("tanh", "Of the units.", choices=("tanh", "sin"))},
    variant=Variant("width", "w={}", "The width."),
    published=Published(lambda payload: "toy_width" in payload, "mdsim.models.toy.model:read"),
    start=StartingPoint(
        fit={"learning_rate": Chosen(0.02, "it is small")},
        warmup_steps=0,
        most_frames_per_batch=4,
        frames_per_gradient=8,
        pairs_per_second=1000,
        sizes={"width": Chosen(3)},
    ),
)
"""

MODEL = """
import torch
from torch import nn

from mdsim.force_field import ForceField


class Toy(ForceField):
    def __init__(self, species=(), width=4, form="tanh", cutoff=5.0):
        super().__init__(cutoff, species)
        self.hyperparameters = {"width": width, "form": form, "cutoff": self.cutoff}
        self.weights = nn.Parameter(0.1 * torch.randn(2, width))

    def atomic_energies(self, system, positions, neighbors):
        squared = neighbors.displacements(positions).square().sum(-1, keepdim=True)
        inside = (1 - squared / self.cutoff**2).clamp(min=0) ** 2
        function = torch.tanh if self.hyperparameters["form"] == "tanh" else torch.sin
        energy = (inside * self.weights[0] * function(squared * self.weights[1])).sum(-1)
        total = energy.new_zeros(positions.shape[0] * positions.shape[1]).index_add(0, neighbors.first, energy)
        return total.reshape(positions.shape[:2])


def read(payload, path):
    return Toy(width=payload["toy_width"])
"""

USE = """
import json, torch
from mdsim.checkpoints import read
from mdsim.cli import main as cli
from mdsim.models import MODELS, Toy, load_force_field, model_config

common = ["--cpu", "--debug"]
assert cli.main(["init", "--data", "data/toy/water/20", "--model", "toy", "--out", "out", "--cpu"]) == 0
assert cli.main(["pretrain", "--config-yml", "out/pretrain.yml", "--model.form=sin", *common]) == 0
fit = "qm_pretrained_checkpoints/toy/toy-water_20_toy_w=3_debug/checkpoints/best_checkpoint.pt"
model = load_force_field(fit)
assert type(model) is Toy
assert cli.main(["pretrain", "--config-yml", "out/pretrain.yml", "--cpu", "--optim.max_epochs=2"]) == 0
assert cli.main(["stable-training", "--config-yml", "out/simulate.yml", "--eval_model", "pre", *common]) == 0
torch.save({"toy_width": 7}, "foreign.pt")
foreign = model_config(load_force_field("foreign.pt"))
print(json.dumps([model_config(model), foreign, list(MODELS)]))
"""


@pytest.mark.slow
def test_a_model_is_added_by_its_folder_and_one_line_of_the_registry(tmp_path):
    shutil.copytree(ROOT / "mdsim", tmp_path / "mdsim", ignore=shutil.ignore_patterns("__pycache__"))
    folder = tmp_path / "mdsim" / "models" / "toy"
    folder.mkdir()
    for name, text in {"__init__": '"""A toy."""\n', "record": RECORD, "model": MODEL}.items():
        (folder / f"{name}.py").write_text(text)
    registry = tmp_path / "mdsim" / "models" / "registry.py"
    registry.write_text(registry.read_text().replace('    "schnet",\n', '    "schnet",\n    "toy",\n'))
    tiny.write_data(tmp_path / "data")
    printed = fresh(USE, tmp_path).splitlines()[-1]
    assert json.loads(printed) == [
        {"name": "toy", "width": 3, "form": "sin", "cutoff": 5.0},
        {"name": "toy", "width": 7, "form": "tanh", "cutoff": 5.0},
        ["schnet", "toy", *OWN[1:], *(name for name in MODELS if name not in OWN)],
    ]
    assert "learning_rate: 0.02             # it is small" in (tmp_path / "out" / "pretrain.yml").read_text()
    assert "width: 3" in (tmp_path / "out" / "common.yml").read_text()
    assert list((tmp_path / "runs").rglob("final_metrics.json"))
    with pytest.raises(CheckpointError):
        load_force_field(tmp_path / "foreign.pt")  # here, where no record has this format
