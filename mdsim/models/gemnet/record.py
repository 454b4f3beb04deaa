"""The record of GemNet-T: its settings, defaults and published format."""

from __future__ import annotations

from typing import Any

from mdsim.models.record import Chosen, ModelRecord, Published, Setting, StartingPoint, count

PUBLISHED_WEIGHT = "int_blocks.0.trip_interaction.mlp_cbf.weight"


def is_published_gemnet(payload: dict[str, Any]) -> bool:
    """Whether a file's content has the layout of the published GemNet-T checkpoints."""
    config, state = payload.get("config"), payload.get("state_dict")
    if not isinstance(config, dict) or not isinstance(state, dict) or "species" in state:
        return False
    return any(str(name).endswith(PUBLISHED_WEIGHT) for name in state)


RECORD = ModelRecord(
    name="gemnet_t",
    title="GemNet-T",
    description="GemNet-T (Gasteiger et al., arXiv 2106.08903); scale, shift and scaling factors come from the data.",
    factory="mdsim.models.gemnet.model:GemNetT",
    settings={
        "num_spherical": count(7, "Spherical harmonics of the angle, of degrees 0 to num_spherical - 1."),
        "num_radial": Setting(6, "Radial basis functions.", at_least=2),
        "num_blocks": count(4, "Interaction blocks."),
        "emb_size_atom": count(128, "Features of an atom."),
        "emb_size_edge": count(128, "Features of a message."),
        "emb_size_trip": count(64, "Features of a message within the triplet interaction."),
        "emb_size_rbf": count(16, "Features of the reduced radial basis."),
        "emb_size_cbf": count(16, "Features of the reduced circular basis."),
        "emb_size_bil_trip": count(64, "Outputs of the bilinear layer."),
        "num_before_skip": count(1, "Residual layers before messages are added to the former ones."),
        "num_after_skip": count(1, "Residual layers after messages are added to the former ones."),
        "num_concat": count(1, "Residual layers after the features of atoms and edges are joined."),
        "num_atom": count(2, "Residual layers of atom updates and of output blocks."),
        "rbf": Setting("gaussian", "Form of the radial basis.", choices=("gaussian", "spherical_bessel")),
        "envelope": Setting(
            "polynomial",
            "Form of the function that goes to zero at the cutoff.",
            choices=("polynomial", "exponential"),
        ),
        "envelope_exponent": count(5, "Power of the polynomial envelope."),
    },
    published=Published(is_published_gemnet, "mdsim.models.gemnet.published:published_gemnet"),
    start=StartingPoint(
        fit={
            "optimizer": Chosen("adamw"),
            "amsgrad": Chosen(True),
            "eps": Chosen(1.0e-7),
            "weight_decay": Chosen(2.0e-6),
            "learning_rate": Chosen(1.0e-3),
            "loss": Chosen("l2mae"),
            "energy_coefficient": Chosen(0.001),
            "force_coefficient": Chosen(0.999),
            "clip_norm": Chosen(10.0),
        },
        warmup_steps=100,
        most_frames_per_batch=5,
        frames_per_gradient=20,
        pairs_per_second=15_000,
        sizes_on_cpu={
            "num_blocks": Chosen(2, "half the depth and a quarter of the width of the paper, for a CPU"),
            **{name: Chosen(32) for name in ("emb_size_atom", "emb_size_edge")},
            **{name: Chosen(16) for name in ("emb_size_trip", "emb_size_bil_trip")},
        },
        cutoff_of_liquid_on_cpu_A=3.5,
    ),
)
