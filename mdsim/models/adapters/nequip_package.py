"""NequIP and Allegro of the package nequip, from the checkpoints and packages that it writes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import e3nn
import torch
import yaml
from ase.data import atomic_numbers
from hydra.utils import get_method
from lightning import Trainer
from nequip.data import AtomicDataDict
from nequip.model.saved_models.load_utils import load_saved_model
from nequip.nn import PerTypeScaleShift
from nequip.train import NequIPLightningModule
from nequip.utils import get_current_code_versions
from nequip.utils.global_state import set_global_state

from mdsim.errors import CheckpointError, one_line
from mdsim.models.adapters.common import default_precision, leave_shift_to_zero, origin_of
from mdsim.models.edge_model import EdgeModel, Graph
from mdsim.reference_energies import N_ELEMENTS
from mdsim.typing import Float, Tensor

PACKAGE = "nequip"
TRUSTED = ("nequip.", "allegro.")  # modules whose functions a configuration may name
OTHER_FILES = ("ModelFromCheckpoint", "ModelFromPackage")  # functions that read the model from yet another file
ZIPPED = ".nequip.zip"
PRECISIONS = {"model_dtype", "_output_dtype"}  # attributes of nequip's modules


class NequIPPackage(EdgeModel):
    """A model of the package nequip. It is rebuilt from its configuration, and its weights are like any others.

    Args:
        species: atomic numbers that the network knows.
        cutoff: Å.
        configuration: the ``model`` section of the configuration of the training, as plain data.
        origin: the original file, see `origin_of`.
    """

    type_of: Tensor  # type of atom in the network, by atomic number

    def __init__(
        self,
        species: Sequence[int],
        cutoff: float,
        configuration: dict[str, Any],
        origin: dict[str, str] | None = None,
    ) -> None:
        super().__init__(cutoff, tuple(species))
        self.hyperparameters = {"cutoff": self.cutoff, "configuration": configuration, "origin": origin or {}}
        self.network = _built(configuration)
        type_of = torch.full((N_ELEMENTS,), -1)
        type_of[numbers_of(configuration)] = torch.arange(len(self.species))
        self.register_buffer("type_of", type_of, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> NequIPPackage:
        # Modules of nequip convert to the precision that they were built for.
        super()._apply(fn, recurse)
        dtype = next(self.network.parameters()).dtype
        for module in self.network.modules():
            for name in PRECISIONS & vars(module).keys():
                setattr(module, name, dtype)
        return self

    def node_energies(self, graph: Graph) -> Float[Tensor, "node"]:
        """Energy of each node in eV, without the shift of its species."""
        data = {
            AtomicDataDict.POSITIONS_KEY: graph.positions,
            AtomicDataDict.ATOM_TYPE_KEY: self.type_of[graph.atomic_numbers],
            AtomicDataDict.EDGE_INDEX_KEY: graph.edges,
            AtomicDataDict.EDGE_VECTORS_KEY: graph.vectors,
            AtomicDataDict.BATCH_KEY: graph.batch,
            AtomicDataDict.NUM_NODES_KEY: graph.sizes,
        }
        return self.network(data)[AtomicDataDict.PER_ATOM_ENERGY_KEY].reshape(-1)

    @property
    def shift_eV(self) -> Tensor | None:
        """The shift of the network's energies: one per species, or one number. None: there is none."""
        found = [module for module in self.network.modules() if isinstance(module, PerTypeScaleShift)]
        return found[-1].shifts if found and found[-1].has_shifts else None


def numbers_of(configuration: Mapping[str, Any]) -> list[int]:
    """Atomic numbers of the types of atoms, in the order of the types."""
    return [atomic_numbers[name] for name in _base(configuration)["type_names"]]


def _base(configuration: Any) -> Any:
    """The section of the model itself, within those that modify it."""
    return configuration if "model" not in configuration else _base(configuration["model"])


def read(path: Path) -> NequIPPackage:
    """The force field in a checkpoint (`.ckpt`) or a package (`.nequip.zip`) of nequip, with its averaged weights.

    Args:
        path: the file. A checkpoint is unpickled, and a package runs the code in it.

    Raises:
        CheckpointError: the file holds something else, or types of atoms that are no elements.
    """
    with global_state_kept():
        try:
            network, configuration = load_saved_model(path), _configuration_in(path)
            numbers = numbers_of(configuration)
        except Exception as error:  # a pickle can raise anything
            raise CheckpointError(f"{path}: nequip cannot read it ({one_line(error, 200)})") from error
    model = NequIPPackage(numbers, float(network.metadata["r_max"]), configuration, origin_of(path, PACKAGE))
    try:
        model.network.load_state_dict(network.state_dict())
    except RuntimeError as error:
        raise CheckpointError(f"{path}: holds a model that cannot be rebuilt ({one_line(error, 200)})") from error
    leave_shift_to_zero(model, numbers, model.shift_eV)
    return model


def write(model: NequIPPackage, path: Path) -> None:
    """Write the network as a checkpoint of nequip, with the zero of energy in its shifts."""
    configuration = copy.deepcopy(model.hyperparameters["configuration"])
    base = _base(configuration)
    energies = model.reference_energies_eV[numbers_of(configuration)].tolist()
    base["per_type_energy_shifts"] = dict(zip(base["type_names"], energies, strict=True))
    with global_state_kept():
        module = NequIPLightningModule(
            model=configuration,
            num_datasets={"train": 1, "val": 0, "test": 0, "predict": 0},
            info_dict={
                "versions": get_current_code_versions(verbose=False),
                "training_module": {"_target_": "nequip.train.NequIPLightningModule", "model": configuration},
            },
        )
        network = module.evaluation_model["sole_model"]
        shifts = network.state_dict()
        kept = {name: value for name, value in model.network.state_dict().items() if not name.endswith(".shifts")}
        network.load_state_dict({**shifts, **kept})
        trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
        trainer.strategy.connect(module)
        trainer.save_checkpoint(path)


# ----------------------------------------------------------------------------------------------------- configuration


def _configuration_in(path: Path) -> dict[str, Any]:
    """The configuration of the model in a file."""
    if path.name.endswith(ZIPPED):
        importer = torch.package.PackageImporter(str(path))
        trained = yaml.safe_load(importer.load_text("model", "config.yaml"))["training_module"]["model"]
    else:
        trained = torch.load(path, map_location="cpu", weights_only=False)["hyper_parameters"]["model"]
    return _checked(_plain(trained))


def _plain(value: Any) -> Any:
    """Configurations of omegaconf as dictionaries and lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, Sequence) and not isinstance(value, str) else value


def _checked(configuration: dict[str, Any]) -> dict[str, Any]:
    """Refuse what other code than that of nequip would build, and what needs yet another file."""
    for target in _targets(configuration):
        if not target.startswith(TRUSTED):
            raise ValueError(f"its configuration names {target}, which is not of {', '.join(TRUSTED)}")
        if target.endswith(OTHER_FILES):
            raise ValueError(f"its configuration names {target}: read the file that this model was fine-tuned from")
    return configuration


def _targets(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if "_target_" in value:
            yield str(value["_target_"])
        for item in value.values():
            yield from _targets(item)
    elif isinstance(value, list):
        for item in value:
            yield from _targets(item)


def _built(configuration: Mapping[str, Any]) -> Any:
    """The network without its derivatives, which are taken here."""
    arguments = _checked(copy.deepcopy(dict(configuration))) | {"compile_mode": "eager"}
    with global_state_kept():
        network = get_method(arguments.pop("_target_"))(**arguments)
    for module in network.modules():
        if hasattr(module, "do_derivatives"):
            module.do_derivatives = False
    return network


@contextmanager
def global_state_kept() -> Iterator[None]:
    """Let nequip work in the global state that it needs, and restore that of everything else."""
    random, code = torch.get_rng_state(), e3nn.get_optimization_defaults()
    try:
        with default_precision(torch.float64):
            set_global_state()
            e3nn.set_optimization_defaults(**_optimization())
            yield
    finally:
        torch.set_rng_state(random)
        e3nn.set_optimization_defaults(**code)


@cache
def _optimization() -> dict[str, Any]:
    """The settings of e3nn that nequip chooses, which it sets at the first call alone."""
    return e3nn.get_optimization_defaults()
