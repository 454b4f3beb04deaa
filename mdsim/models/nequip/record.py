"""The record of NequIP: its settings, defaults and published format."""

from __future__ import annotations

from typing import Any

from mdsim.models.adapters.records import NEQUIP_PACKAGE
from mdsim.models.record import Chosen, ModelRecord, Published, Setting, StartingPoint, Variant, count

PUBLISHED_EMBEDDING = "func.chemical_embedding.linear.weight"


def is_published_nequip(payload: dict[str, Any]) -> bool:
    """Whether a file's content has the layout of the published NequIP checkpoints."""
    return any(str(key).endswith(PUBLISHED_EMBEDDING) for key in payload)


RECORD = ModelRecord(
    name="nequip",
    title="NequIP",
    description="NequIP (Batzner et al., Nat. Commun. 13, 2453 (2022)); scale, shift and neighbors come from the data.",
    factory="mdsim.models.nequip.model:NequIP",
    settings={
        # e3nn has spherical harmonics up to degree 11
        "l_max": Setting(1, "Highest degree of the features; part of the name of the run.", at_least=0, at_most=11),
        "parity": Setting(True, "Features of both parities."),
        "num_layers": count(3, "Interaction layers."),
        "num_features": count(32, "Channels of each irrep."),
        "num_bessels": count(8, "Radial basis functions, with trainable frequencies."),
        "polynomial_cutoff_p": count(6, "Power of the envelope that goes to zero at the cutoff."),
        "radial_mlp_depth": count(2, "Hidden layers of the radial network."),
        "radial_mlp_width": count(64, "Units of each hidden layer of the radial network."),
    },
    variant=Variant("l_max", "lmax={}", "Of several fits to the same data, the one with this degree."),
    published=Published(is_published_nequip, "mdsim.models.nequip.published:published_nequip"),
    foreign=NEQUIP_PACKAGE.foreign,
    start=StartingPoint(
        fit={
            "optimizer": Chosen("adam"),
            "learning_rate": Chosen(5.0e-3),
            "loss": Chosen("mse"),
            "energy_per_atom": Chosen(True),
            "energy_coefficient": Chosen(1000.0, "the paper's 1 leaves energies off by a constant for long"),
            "force_coefficient": Chosen(1000.0),
        },
        warmup_steps=0,
        most_frames_per_batch=5,
        frames_per_gradient=20,
        pairs_per_second=130_000,
        learning_rate=Chosen(3.0e-4, "1e-4 changes its forces by 1 % only"),
        has_loops=True,
        sizes={"l_max": Chosen(1, "that of the paper"), "num_features": Chosen(32)},
        sizes_of_liquid_on_cpu={"num_features": Chosen(16, "instead of the paper's 32: a liquid on a CPU")},
        cutoff_of_liquid_on_cpu_A=4.0,
    ),
)
