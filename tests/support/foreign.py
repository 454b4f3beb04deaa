"""Small models of other packages with random weights, and the files that these packages write of them.

Each function imports its package when it is called.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jaxtyping
import torch

from mdsim.force_field import ForceField
from mdsim.models.adapters.common import default_precision

PACKAGES = {  # by the name of the model
    "allegro": "allegro",
    "mace": "mace",
    "metatomic": "metatomic",
    "nequip_package": "nequip",
    "sevenn": "sevenn",
}
INSTALLED = [name for name, module in PACKAGES.items() if find_spec(module) is not None]
SYMBOLS = {1: "H", 6: "C", 7: "N", 8: "O"}


def double_precision() -> contextlib.AbstractContextManager[None]:
    """Constants with all their digits."""
    return default_precision(torch.float64)


def nequip_state() -> contextlib.AbstractContextManager[None]:
    """The global state that nequip sets for the whole process, for a while."""
    from mdsim.models.adapters.nequip_package import global_state_kept

    return global_state_kept()


def mace_network(species: Sequence[int], heads: Sequence[str] = ("Default",), cutoff: float = 4.0) -> Any:
    """A MACE with two layers, in double precision. The E0s of each head differ."""
    from mace.modules import ScaleShiftMACE, interaction_classes

    from mdsim.models.adapters.mace import Irreps

    isolated = torch.tensor([[-13.0 * number - index for number in species] for index in range(len(heads))])
    with double_precision():
        return ScaleShiftMACE(
            r_max=cutoff,
            num_bessel=5,
            num_polynomial_cutoff=5,
            max_ell=2,
            interaction_cls=interaction_classes["RealAgnosticResidualInteractionBlock"],
            interaction_cls_first=interaction_classes["RealAgnosticInteractionBlock"],
            num_interactions=2,
            num_elements=len(species),
            hidden_irreps=Irreps("6x0e + 6x1o"),
            MLP_irreps=Irreps("4x0e"),
            atomic_energies=isolated.double().numpy(),
            avg_num_neighbors=6.0,
            atomic_numbers=list(species),
            correlation=2,
            gate=torch.nn.functional.silu,
            atomic_inter_scale=[30.0] * len(heads),
            atomic_inter_shift=[0.1] * len(heads),
            heads=list(heads),
        )


def nequip_configuration(species: Sequence[int], cutoff: float = 4.0, precision: str = "float64") -> dict[str, Any]:
    """The model section of a configuration of nequip."""
    return {
        "_target_": "nequip.model.NequIPGNNModel",
        **_of_nequip(species, cutoff, precision),
        "num_features": 6,
        "radial_mlp_depth": 1,
        "radial_mlp_width": 8,
    }


def _of_nequip(species: Sequence[int], cutoff: float, precision: str) -> dict[str, Any]:
    """What models that nequip builds have in common."""
    return {
        "seed": 1,
        "model_dtype": precision,
        "type_names": [SYMBOLS[number] for number in species],
        "r_max": cutoff,
        "num_layers": 2,
        "l_max": 1,
        "parity": True,
        "avg_num_neighbors": 8.0,
        "per_type_energy_scales": 30.0,
        "per_type_energy_shifts": {SYMBOLS[number]: -13.0 * number for number in species},
    }


def allegro_configuration(species: Sequence[int], cutoff: float = 4.0, precision: str = "float64") -> dict[str, Any]:
    """The model section of a configuration of nequip, of an Allegro."""
    return {
        "_target_": "allegro.model.AllegroModel",
        **_of_nequip(species, cutoff, precision),
        "radial_chemical_embed": {
            "_target_": "allegro.nn.TwoBodyBesselScalarEmbed",
            "num_bessels": 4,
            "bessel_trainable": False,
            "polynomial_cutoff_p": 6,
        },
        "radial_chemical_embed_dim": 8,
        "scalar_embed_mlp_hidden_layers_depth": 1,
        "scalar_embed_mlp_hidden_layers_width": 8,
        "num_scalar_features": 8,
        "num_tensor_features": 4,
        "allegro_mlp_hidden_layers_depth": 1,
        "allegro_mlp_hidden_layers_width": 8,
        "readout_mlp_hidden_layers_depth": 1,
        "readout_mlp_hidden_layers_width": 8,
    }


def write_nequip(path: Path, configuration: dict[str, Any]) -> None:
    """Write a model with random weights as nequip's training does."""
    from lightning import Trainer
    from nequip.train import NequIPLightningModule
    from nequip.utils import get_current_code_versions

    with nequip_state():
        module = NequIPLightningModule(
            model=configuration,
            num_datasets={"train": 1, "val": 1, "test": 0, "predict": 0},
            info_dict={
                "versions": get_current_code_versions(verbose=False),
                "training_module": {"_target_": "nequip.train.NequIPLightningModule", "model": configuration},
            },
        )
        trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
        trainer.strategy.connect(module)
        trainer.save_checkpoint(path)


def write_metatomic(path: Path, model: ForceField) -> None:
    """Write a copy of a model of this package, whose energies are determined for its elements."""
    from mdsim.export.metatomic import atomistic_model

    numbers = model.species.tolist()
    model.fit_energy_zero([], torch.zeros(0), {number: -13.0 * number for number in numbers})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jaxtyping.config.update("jaxtyping_disable", True)  # in a trace, numbers are tensors
        try:
            atomistic_model(copy.deepcopy(model)).save(str(path))
        finally:
            jaxtyping.config.update("jaxtyping_disable", False)


def sevennet_configuration(species: Sequence[int], cutoff: float = 4.0) -> dict[str, Any]:
    """The configuration of a small SevenNet, with the keys of a checkpoint."""
    from sevenn import __version__
    from sevenn._const import DEFAULT_E3_EQUIVARIANT_MODEL_CONFIG

    return {
        **DEFAULT_E3_EQUIVARIANT_MODEL_CONFIG,
        "version": __version__,
        "_model_type": "E3_equivariant_model",
        "cutoff": cutoff,
        "channel": 4,
        "lmax": 1,
        "num_convolution_layer": 2,
        "weight_nn_hidden_neurons": [8],
        "_type_map": {number: index for index, number in enumerate(species)},
        "_number_of_species": len(species),
        "chemical_species": [SYMBOLS[number] for number in species],
        "shift": [-13.0 * number for number in species],
        "scale": [30.0] * len(species),
        "conv_denominator": [3.0, 3.0],
        "use_species_wise_shift_scale": True,
    }


def write_sevennet(path: Path, configuration: dict[str, Any]) -> None:
    """Write a model with random weights as sevenn's training does."""
    from sevenn.model_build import build_E3_equivariant_model

    network = build_E3_equivariant_model(configuration)
    torch.save({"model_state_dict": network.state_dict(), "config": configuration, "epoch": 1}, path)
