"""SevenNet (Park et al., J. Chem. Theory Comput. 20, 4857 (2024)) of the package sevenn, from its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import sevenn._keys as KEY
import torch
from sevenn._const import DEFAULT_E3_EQUIVARIANT_MODEL_CONFIG
from sevenn.model_build import build_E3_equivariant_model
from sevenn.nn.node_embedding import OnehotEmbedding
from sevenn.nn.scale import Rescale, SpeciesWiseRescale
from sevenn.util import get_available_pretrained_models, load_checkpoint, pretrained_name_to_path

from mdsim.errors import CheckpointError, ConfigError, one_line
from mdsim.models.adapters.common import leave_shift_to_zero, origin_of
from mdsim.models.edge_model import EdgeModel, Graph
from mdsim.typing import Float, Tensor

PACKAGE = "sevenn"
RESCALE = "rescale_atomic_energy"
SHIFT = f"{RESCALE}.shift"
#: Keys of sevenn's configuration that its builder reads, besides those of the model section of its input files.
BUILT_FROM = (
    *(KEY.MODEL_TYPE, KEY.TYPE_MAP, KEY.NUM_SPECIES, KEY.CHEMICAL_SPECIES, KEY._NORMALIZE_SPH),
    *(KEY.SHIFT, KEY.SCALE, KEY.CONV_DENOMINATOR, KEY.USE_SPECIES_WISE_SHIFT_SCALE),
    *(KEY.USE_MODALITY, KEY.MODAL_MAP, KEY.NUM_MODALITIES, KEY.USE_MODAL_WISE_SHIFT, KEY.USE_MODAL_WISE_SCALE),
)
#: No kernels of other packages, whose weights may be in another layout.
PLAIN_LAYERS: dict[str, Any] = {KEY.CUEQUIVARIANCE_CONFIG: {}, KEY.USE_FLASH_TP: False, KEY.USE_OEQ: False}


class SevenNet(EdgeModel):
    """A SevenNet. It is rebuilt from its configuration, and its weights are parameters like any others.

    Args:
        species: atomic numbers that the network knows.
        cutoff: Å.
        configuration: that of the checkpoint as plain data, see `configuration_of`.
        modal: the modality that gives the energies, of a network with several.
        origin: the original file, see `origin_of`.
    """

    def __init__(
        self,
        species: Sequence[int],
        cutoff: float,
        configuration: dict[str, Any],
        modal: str = "",
        origin: dict[str, str] | None = None,
    ) -> None:
        super().__init__(cutoff, tuple(species))
        self.hyperparameters = {
            "cutoff": self.cutoff,
            "configuration": configuration,
            "modal": modal,
            "origin": origin or {},
        }
        arguments = _arguments(configuration)
        self.modal = arguments[KEY.MODAL_MAP][modal] if modal else None
        self.network = build_E3_equivariant_model(arguments)
        self.network.delete_module_by_key("force_output")  # forces are derivatives of the energies here
        self.network.set_is_batch_data(True)
        self.network.key_grad = None
        self.network.eval_modal_map = False
        for module in self.network.modules():
            if isinstance(module, OnehotEmbedding):
                module.register_forward_hook(_in_the_precision_of_the_vectors)

    def node_energies(self, graph: Graph) -> Float[Tensor, "node"]:
        """Energy of each node in eV, without the shift of its species."""
        data: dict[str, Any] = {
            KEY.ATOMIC_NUMBERS: graph.atomic_numbers,
            KEY.NODE_FEATURE: graph.atomic_numbers,  # replaced by the index of the species
            KEY.EDGE_IDX: graph.edges,
            KEY.EDGE_VEC: graph.vectors,
            KEY.BATCH: graph.batch,
            KEY.NUM_ATOMS: graph.sizes,
        }
        if self.modal is not None:
            data[KEY.MODAL_TYPE] = graph.batch.new_full((graph.n_replicas,), self.modal)
        return self.network(data)[KEY.ATOMIC_ENERGY].reshape(-1)

    @property
    def shift_eV(self) -> Tensor | None:
        """The shift of the network's energies: one per species, or one number. None: it depends on the modality."""
        rescale = self.network._modules[RESCALE]
        return rescale.shift if isinstance(rescale, Rescale | SpeciesWiseRescale) else None


def _in_the_precision_of_the_vectors(module: OnehotEmbedding, arguments: Any, data: dict[str, Any]) -> dict[str, Any]:
    """The species in any precision: sevenn has them in single precision only."""
    for key in filter(None, (module.key_output, module.key_additional_output)):
        data[key] = data[key].to(data[KEY.EDGE_VEC].dtype)
    return data


def located(name: str) -> Path | None:
    """The path of a checkpoint that comes with the package, or that was downloaded before. None: there is none."""
    return Path(pretrained_name_to_path(name)) if name.lower() in get_available_pretrained_models() else None


def read(path: Path, modal: str = "") -> SevenNet:
    """The force field in a checkpoint of sevenn.

    Args:
        path: the file. It is unpickled.
        modal: the modality that gives the energies, of a network with several.

    Raises:
        CheckpointError: the file holds something else.
        ConfigError: the network has no such modality, or several and none is chosen.
    """
    try:
        checkpoint = load_checkpoint(path)
        network, configuration = checkpoint.build_model(), configuration_of(checkpoint.config)
    except Exception as error:  # a pickle can raise anything
        raise CheckpointError(f"{path}: sevenn cannot read it ({one_line(error, 200)})") from error
    _check_modal(path, modal, configuration.get(KEY.MODAL_MAP) or {})
    model = SevenNet(configuration[KEY.TYPE_MAP], network.cutoff, configuration, modal, origin_of(path, PACKAGE))
    model.network.load_state_dict(network.state_dict(), strict=False)  # all but `force_output`, which has no weights
    leave_shift_to_zero(model, configuration[KEY.TYPE_MAP], model.shift_eV)
    return model


def write(model: SevenNet, path: Path) -> None:
    """Write the network as a checkpoint of sevenn, with the zero of energy in its shifts.

    Raises:
        ConfigError: the network has one shift for all species, and their zeros of energy differ.
    """
    configuration = model.hyperparameters["configuration"]
    state = {name: value.cpu().clone() for name, value in model.network.state_dict().items()}
    energies = model.reference_energies_eV[configuration[KEY.TYPE_MAP]].to(state[SHIFT])
    if state[SHIFT].numel() == 1 and not torch.allclose(energies, energies[:1]):
        raise ConfigError("the network has one shift for all species, and their zeros of energy differ")
    shift = state[SHIFT] if model.modal is None or state[SHIFT].ndim == 1 else state[SHIFT][model.modal]
    shift += energies[: shift.numel()]
    content = {"model_state_dict": state, "config": _arguments(configuration), "epoch": 0}
    torch.save(content, path)


def _check_modal(path: Path, modal: str, known: Mapping[str, int]) -> None:
    if (modal or known) and modal not in known:
        there = f"one of {', '.join(known)}" if known else "none: leave it out"
        raise ConfigError(f"model.modal: found {modal!r}, but {path} needs {there}")


# ----------------------------------------------------------------------------------------------- plain configuration


def configuration_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What sevenn builds the network from, as plain data. The map of species becomes a list in its order.

    The weights of a network that it has built are in the layout of the installed release, and of its plain layers, also
    if they were fitted with cuEquivariance, FlashTP or OpenEquivariance.
    """
    kept = {*DEFAULT_E3_EQUIVARIANT_MODEL_CONFIG, *BUILT_FROM}
    plain = {key: _plain(value) for key, value in config.items() if key in kept}
    species = sorted(config[KEY.TYPE_MAP], key=config[KEY.TYPE_MAP].get)
    return plain | {"version": version(PACKAGE), KEY.TYPE_MAP: species} | PLAIN_LAYERS


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value


def _arguments(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `configuration_of`."""
    return {**configuration, KEY.TYPE_MAP: {number: index for index, number in enumerate(configuration[KEY.TYPE_MAP])}}
