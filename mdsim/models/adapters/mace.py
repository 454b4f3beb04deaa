"""MACE (Batatia et al., NeurIPS 2022) of the package mace-torch, from the files that it writes and reads.

The energies of isolated atoms (E0s) are left to `EnergyZero`: they are thousands of eV, and float32 has seven digits.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mdsim.errors import CheckpointError, ConfigError, one_line
from mdsim.models.adapters.common import default_precision, origin_of
from mdsim.models.edge_model import EdgeModel, Graph
from mdsim.typing import Float, Tensor

PACKAGE = "mace-torch"
UNSAFE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"  # set by `import mace`, for every later `torch.load` of the process


@contextmanager
def _environment_kept() -> Iterator[None]:
    """Import mace without leaving `torch.load` unsafe."""
    before = os.environ.get(UNSAFE)
    try:
        yield
    finally:
        os.environ.pop(UNSAFE, None)
        if before is not None:
            os.environ[UNSAFE] = before


with _environment_kept():
    import mace  # noqa: F401 - before e3nn, whose release needs what it sets
    from e3nn.o3 import Irreps
    from mace.modules import gate_dict, interaction_classes, readout_classes
    from mace.modules.models import ScaleShiftMACE
    from mace.tools.scripts_utils import extract_config_mace_model

#: Arguments of the network that are objects: their kind, by name.
IRREPS = ("hidden_irreps", "edge_irreps", "MLP_irreps")
NAMED: dict[str, Mapping[str, Any]] = {
    "interaction_cls": interaction_classes,
    "interaction_cls_first": interaction_classes,
    "readout_cls": readout_classes,
    "gate": gate_dict,
}
KERNELS = ("cueq_config", "oeq_config")  # of the machine, not of the model


class MACE(EdgeModel):
    """A MACE network. It is rebuilt from its architecture, and its weights are parameters like any others.

    Args:
        species: atomic numbers that the network knows.
        cutoff: Å.
        architecture: arguments of `mace.modules.ScaleShiftMACE` as plain data, see `architecture_of`.
        head: index of the head that gives the energies.
        precision: floating-point type of the original file.
        origin: the original file, see `origin_of`.
    """

    index_of: Tensor  # index of the element in the network, by atomic number

    def __init__(
        self,
        species: Sequence[int],
        cutoff: float,
        architecture: dict[str, Any],
        head: int = 0,
        precision: str = "float64",
        origin: dict[str, str] | None = None,
    ) -> None:
        super().__init__(cutoff, tuple(species))
        self.hyperparameters = {
            "cutoff": self.cutoff,
            "architecture": architecture,
            "head": head,
            "precision": precision,
            "origin": origin or {},
        }
        self.head = head
        with default_precision(getattr(torch, precision)):
            self.network = ScaleShiftMACE(**_arguments(architecture))
        index = torch.zeros(int(self.species.max()) + 1, dtype=torch.long)
        index[self.network.atomic_numbers] = torch.arange(len(self.network.atomic_numbers))
        self.register_buffer("index_of", index, persistent=False)

    def node_energies(self, graph: Graph) -> Float[Tensor, "node"]:
        """Energy of each node in eV, without that of the isolated atom."""
        which = self.index_of[graph.atomic_numbers]
        attributes = torch.nn.functional.one_hot(which, len(self.network.atomic_numbers)).to(graph.positions)
        heads = torch.full((graph.n_replicas,), self.head, device=which.device)
        output = self.network(
            {
                "positions": graph.positions,
                "node_attrs": attributes,
                "edge_index": graph.edges,
                "shifts": graph.shifts,
                "unit_shifts": torch.zeros_like(graph.shifts),
                "cell": graph.positions.new_zeros(3 * graph.n_replicas, 3),  # for stresses, which are not asked for
                "batch": graph.batch,
                "ptr": graph.n_atoms * torch.arange(graph.n_replicas + 1, device=which.device),
                "head": heads,
            },
            training=True,
            compute_force=False,
        )
        isolated = self.network.atomic_energies_fn(attributes)[:, self.head]
        return output["node_energy"] - isolated

    def isolated_energies_eV(self) -> dict[int, float]:
        """Energies of isolated atoms (E0s) of the head in the file, by atomic number."""
        energies = torch.atleast_2d(self.network.atomic_energies_fn.atomic_energies)[self.head]
        return dict(zip(self.network.atomic_numbers.tolist(), energies.tolist(), strict=True))


def read(path: Path, head: str = "") -> MACE:
    """The force field in a file that `mace_run_train` or a foundation model of MACE comes in.

    Args:
        path: the file. It is unpickled.
        head: name of the head that gives the energies; empty: the last, which is that of a fine-tuning.

    Raises:
        CheckpointError: the file holds something else, or a kind of MACE that is not supported.
        ConfigError: there is no head of that name.
    """
    network = _unpickled(path)
    if getattr(getattr(network, "cueq_config", None), "enabled", False):
        raise CheckpointError(
            f"{path}: its weights are in the layout of cuEquivariance; convert it with `mace_cueq_to_e3nn`"
        )
    heads = list(getattr(network, "heads", ["Default"]))
    if head and head not in heads:
        raise ConfigError(f"model.head: found {head!r}, but {path} has {', '.join(heads)}")
    energies = network.atomic_energies_fn.atomic_energies
    model = MACE(
        network.atomic_numbers.tolist(),
        float(network.r_max),
        architecture_of(network),
        heads.index(head) if head else len(heads) - 1,
        str(energies.dtype).removeprefix("torch."),
        origin_of(path, PACKAGE),
    )
    model.to(next(network.parameters()).dtype)
    try:
        model.network.load_state_dict(network.state_dict())
    except RuntimeError as error:
        raise CheckpointError(f"{path}: is a MACE that cannot be rebuilt ({one_line(error, 200)})") from error
    for mine, theirs in zip(model.network.parameters(), network.parameters(), strict=True):
        mine.requires_grad_(theirs.requires_grad)
    model.fit_energy_zero([], energies.new_zeros(0), model.isolated_energies_eV())
    return model


def write(model: MACE, path: Path) -> None:
    """Write the network as a file of mace-torch, in the original precision, with the zero of energy in the E0s."""
    network = copy.deepcopy(model.network).to(getattr(torch, model.hyperparameters["precision"]))
    energies = torch.atleast_2d(network.atomic_energies_fn.atomic_energies)
    energies[model.head] = model.reference_energies_eV[network.atomic_numbers].to(energies)
    torch.save(network, path)


def _unpickled(path: Path) -> Any:
    try:
        network = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # a pickle can raise anything
        raise CheckpointError(f"{path}: mace-torch cannot read it ({one_line(error, 200)})") from error
    if type(network) is not ScaleShiftMACE:
        raise CheckpointError(
            f"{path}: holds a {type(network).__name__}; a ScaleShiftMACE is needed, which `mace_run_train` writes to "
            "<name>.model, and foundation models are"
        )
    return network


# ------------------------------------------------------------------------------------------------ plain architecture


def architecture_of(network: ScaleShiftMACE) -> dict[str, Any]:
    """Arguments that build the network again, as numbers, text and lists of them."""
    return {key: _plain(key, value) for key, value in extract_config_mace_model(network).items() if key not in KERNELS}


def _plain(key: str, value: Any) -> Any:
    if key in NAMED:
        return next((name for name, known in NAMED[key].items() if known is value), None)
    if key in IRREPS:
        return None if value is None else str(value)
    return value.tolist() if hasattr(value, "tolist") else value


def _arguments(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `architecture_of`."""
    return {key: _restored(key, value) for key, value in architecture.items()}


def _restored(key: str, value: Any) -> Any:
    if value is None:
        return None
    if key in NAMED:
        return NAMED[key][value]
    if key in IRREPS:
        return Irreps(value)
    if key in ("atomic_energies", "atomic_inter_scale", "atomic_inter_shift"):
        return torch.tensor(value, dtype=torch.float64).numpy()
    return value
