"""Reader for NequIP checkpoints published with the StABlE paper, and for others of nequip 0.5 and 0.6.

The weights (``best_model.pth``, ``end_of_cycle1.pth``) are flat vectors in the order of e3nn's instructions. The
``config.yaml`` of the fit describes the model. Weights of the last layer that do not affect the energy are dropped.

    published                                        here
    func.chemical_embedding.linear                   embedding
    func.radial_basis.basis.bessel_weights           bessel.frequencies
    func.layer{k}_convnet.conv.linear_1, _2, .sc     layers[k].linear_1, .linear_2, .self_connection
    func.layer{k}_convnet.conv.fc                    layers[k].convolution.radial_network
    func.conv_to_output_hidden, output_hidden_to...  readout_1, readout_2
    scale_by times func.per_species_rescale          energy_scale, reference_energies_eV
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from ase.data import atomic_numbers

from mdsim.checkpoints import read
from mdsim.errors import CheckpointError
from mdsim.models.nequip.irreps import FullyConnectedTensorProduct, Irreps
from mdsim.models.nequip.irreps import Linear as FlatLinear
from mdsim.models.nequip.layers import SCALAR, paths_between
from mdsim.models.nequip.model import InteractionLayer, NequIP
from mdsim.models.nequip.record import PUBLISHED_EMBEDDING, is_published_nequip
from mdsim.models.published_molecules import numbers_of
from mdsim.typing import Float, Tensor

CONFIG_NAME = "config.yaml"
_KEYS = {
    "l_max": "l_max",
    "parity": "parity",
    "num_layers": "num_layers",
    "num_features": "num_features",
    "num_bessels": "num_basis",
    "polynomial_cutoff_p": "PolynomialCutoff_p",
    "radial_mlp_depth": "invariant_layers",
    "radial_mlp_width": "invariant_neurons",
    "cutoff": "r_max",
}
_OTHER_KEYS = ("chemical_symbols", "avg_num_neighbors", "feature_irreps_hidden")
_SUPPORTED = {
    "use_sc": (True,),
    "resnet": (False,),
    "nonlinearity_type": ("gate",),
    "nonlinearity_scalars": ({"e": "silu", "o": "tanh"},),
    "nonlinearity_gates": ({"e": "silu", "o": "tanh"}, {"e": "silu", "o": "abs"}),  # gates are even here
}


def read_published_nequip(path: str | os.PathLike, config: str | os.PathLike | None = None) -> NequIP:
    """A published NequIP checkpoint, before or after StABlE training.

    Args:
        path: ``best_model.pth`` or ``end_of_cycle1.pth``.
        config: the ``config.yaml`` of the fit. Default: the one in the checkpoint's folder.

    Returns:
        The model, float32, in evaluation mode, with the scale and shift of its training labels.

    Raises:
        CheckpointError: a file is missing, truncated, of another format, or of a variant that `NequIP` lacks.
    """
    payload = read(path)
    if not is_published_nequip(payload):
        raise CheckpointError(
            f"{path} is not a published NequIP checkpoint: it has the keys {sorted(map(str, payload))[:8]}"
        )
    return published_nequip(payload, path, config)


def published_nequip(
    payload: dict[str, Any], path: str | os.PathLike, config: str | os.PathLike | None = None
) -> NequIP:
    """The model in the content of a published checkpoint. Its configuration is found from ``path``."""
    config = Path(path).with_name(CONFIG_NAME) if config is None else Path(config)
    if not config.is_file():
        raise CheckpointError(
            f"{path} holds NequIP weights only: put the {CONFIG_NAME} of its fit beside it, as {config}"
        )
    settings = _settings(config)
    state = {name.removeprefix("model.").removeprefix("model."): value for name, value in payload.items()}
    try:
        species = sorted(atomic_numbers[symbol] for symbol in settings["chemical_symbols"])  # the order of its types
        model = NequIP(species, **{name: settings[key] for name, key in _KEYS.items()})
        model.load_state_dict(_weights(model, state, settings) | _normalization(state, species, settings))
        _record_training_set(model, settings)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"the weights in {path} do not fit the NequIP that {config} describes: {error}"
        ) from error
    return model.eval()


class _PlainLoader(yaml.SafeLoader):
    """Like `yaml.SafeLoader`, but Python tuples become lists and other Python objects become None."""


def _as_list(loader: Any, node: Any) -> list[Any]:
    return loader.construct_sequence(node, deep=True)


_PlainLoader.add_constructor("tag:yaml.org,2002:python/tuple", _as_list)
_PlainLoader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)


def _settings(config: Path) -> dict[str, Any]:
    try:
        settings = yaml.load(config.read_text(encoding="utf-8"), Loader=_PlainLoader)
    except yaml.YAMLError as error:
        raise CheckpointError(f"{config} is not YAML: {error}") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{config} holds a {type(settings).__name__}, not the settings of a fit")
    missing = sorted({*_KEYS.values(), *_OTHER_KEYS} - settings.keys())
    if missing:
        raise CheckpointError(f"{config} does not state the model's {', '.join(missing)}")
    for key, supported in _SUPPORTED.items():
        if settings.get(key, supported[0]) not in supported:
            raise CheckpointError(f"{config}: {key} is {settings[key]!r}, and NequIP here has {supported[0]!r} only")
    return settings


def _normalization(state: dict[str, Tensor], species: list[int], settings: dict[str, Any]) -> dict[str, Tensor]:
    """Buffers of the model. The total energy is scale_by · Σ (scale_z · output + shift_z), with shift_by unset."""
    if state["shift_by"].numel():
        raise KeyError("shift_by is set: a shift of the total energy is not supported")
    overall = state["scale_by"].double()
    return {
        "species": torch.tensor(species),
        "energy_shift_eV": torch.zeros((), dtype=torch.float64),
        "energy_scale": (overall * state["func.per_species_rescale.scales"]).float().expand(len(species)),
        "atomic_shifts_eV": (overall * state["func.per_species_rescale.shifts"].double()).expand(len(species)),
        "avg_num_neighbors": torch.tensor(float(settings["avg_num_neighbors"])),
    }


def _record_training_set(model: NequIP, settings: dict[str, Any]) -> None:
    """Record the composition that the shifts belong to. It is known if they are one mean per atom for all species."""
    shifts = model.reference_energies_eV[model.species]
    if shifts.unique().numel() > 1:
        model.fit_energy_zero([], shifts[:0], dict(zip(model.species.tolist(), shifts.tolist(), strict=True)))
        return
    numbers = numbers_of(*Path(str(settings.get("dataset_file_name", ""))).parts)
    if numbers is not None and numbers.unique().tolist() == model.species.tolist():
        model.record_composition(numbers)


def _weights(model: NequIP, state: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Tensor]:
    n_species, channels = len(model.species), settings["num_features"]
    half = max(1, channels // 2)
    weights = {
        "bessel.frequencies": state["func.radial_basis.basis.bessel_weights"],
        "embedding.weights.0e": state[PUBLISHED_EMBEDDING].reshape(n_species, channels),
        "readout_1.weights.0e": state["func.conv_to_output_hidden.linear.weight"].reshape(channels, half),
        "readout_2.weights.0e": state["func.output_hidden_to_scalar.linear.weight"].reshape(half, 1),
    }
    hidden = Irreps(settings["feature_irreps_hidden"])
    irreps_in = Irreps([(channels, SCALAR)])
    for number, layer in enumerate(model.layers):
        prefix = f"func.layer{number}_convnet.conv."
        own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        found, irreps_in = layer_weights(own, cast(InteractionLayer, layer), irreps_in, hidden, n_species)
        weights |= {f"layers.{number}.{name}": value for name, value in found.items()}
    return weights


def layer_weights(
    state: dict[str, Tensor], layer: InteractionLayer, irreps_in: Irreps, hidden: Irreps, n_species: int
) -> tuple[dict[str, Tensor], Irreps]:
    """The weights of one interaction block, and its output irreps in the order of the published model.

    Args:
        state: ``linear_1.weight``, ``linear_2.weight``, ``sc.weight`` and ``fc.layer{i}.weight``.
        layer: the block to fill. It may keep fewer outputs than were published.
        irreps_in: irreps of the published features, in order.
        hidden: irreps in the published configuration, in order.
        n_species: number of species of the self-connection.
    """
    harmonics = layer.convolution.harmonics
    reachable = {ir for _, ir_in in irreps_in for harmonic in harmonics for ir in ir_in * harmonic}
    scalars = Irreps([(mul, ir) for mul, ir in hidden if ir.l == 0 and ir in reachable])
    gated = Irreps([(mul, ir) for mul, ir in hidden if ir.l > 0 and ir in reachable])
    gates = Irreps([(mul, SCALAR) for mul, _ in gated])
    irreps_out = (scalars.simplify() + gates.simplify() + gated.simplify()).sort().irreps.simplify()

    published = paths_between([ir for _, ir in irreps_in], harmonics, [ir for _, ir in irreps_out])
    channels = layer.convolution.channels
    irreps_mid = Irreps([(channels, path.ir_out) for path in published]).sort().irreps.simplify()
    own = layer.convolution.paths
    found = dict(_blocks(FlatLinear(irreps_in, irreps_in), state["linear_1.weight"], "linear_1"))
    for name, value in _blocks(FlatLinear(irreps_mid, irreps_out), state["linear_2.weight"], "linear_2").items():
        ending = [path for path in published if str(path.ir_out) == name.rpartition(".")[2]]
        rows = dict(zip(ending, value.split(channels), strict=True))
        if all(path in own for path in ending):
            found[name] = torch.cat([rows[path] for path in own if path in rows])
    connection = FullyConnectedTensorProduct(irreps_in, Irreps([(n_species, SCALAR)]), irreps_out)
    found |= _blocks(connection, state["sc.weight"], "self_connection.linear")

    for name in ("linear_2.weights.0e", "self_connection.linear.weights.0e"):
        even, *columns = found[name].split(channels, dim=1)
        gate = dict(zip([ir for _, ir in gated], columns, strict=True))
        found[name] = torch.cat([even, *[gate[ir] for ir in layer.gate.gated]], dim=1)

    *network, last = [state[name] for name in sorted(state) if name.startswith("fc.layer")]
    columns = dict(zip(published, last.split(channels, dim=1), strict=True))
    network.append(torch.cat([columns[path] for path in own], dim=1))
    found |= {f"convolution.radial_network.weights.{place}": value for place, value in enumerate(network)}
    expected = layer.state_dict().keys()
    return {name: value for name, value in found.items() if name in expected}, scalars + gated


def _blocks(module: Any, flat: Float[Tensor, "weight"], name: str) -> dict[str, Tensor]:
    """The weights of an e3nn module by irrep, from its single vector. Rows are inputs and columns outputs."""
    return {
        f"{name}.weights.{module.irreps_out[path.i_out].ir}": view.reshape(-1, view.shape[-1])
        for _, path, view in module.weight_views(flat, yield_instruction=True)
    }
