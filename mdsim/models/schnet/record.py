"""The record of SchNet: its settings, defaults and published format."""

from __future__ import annotations

from typing import Any

from mdsim.models.record import Chosen, ModelRecord, Published, Setting, StartingPoint, count

PREFIX = "module."  # before the names of published weights


def is_published_schnet(payload: dict[str, Any]) -> bool:
    """Whether a file's content has the layout of the published SchNet checkpoints."""
    published = {"state_dict", "normalizers", "config"} <= payload.keys()
    return published and f"{PREFIX}distance_expansion.offset" in payload["state_dict"]


RECORD = ModelRecord(
    name="schnet",
    title="SchNet",
    description="SchNet (Schütt et al., J. Chem. Phys. 148, 241722 (2018)).",
    factory="mdsim.models.schnet.model:SchNet",
    settings={
        "hidden_channels": count(64, "Features of an atom."),
        "num_filters": count(64, "Channels of the continuous filters."),
        "num_interactions": count(6, "Interaction blocks."),
        "num_gaussians": Setting(25, "Radial basis functions, evenly spaced up to the cutoff.", at_least=2),
    },
    published=Published(is_published_schnet, "mdsim.models.schnet.published:published_schnet"),
    start=StartingPoint(
        fit={
            "optimizer": Chosen("adam"),
            "learning_rate": Chosen(1.0e-3),
            "loss": Chosen("mae"),
            "energy_coefficient": Chosen(0.05),
            "force_coefficient": Chosen(0.95),
            "clip_norm": Chosen(10.0),
        },
        warmup_steps=100,
        most_frames_per_batch=10,
        frames_per_gradient=40,
        pairs_per_second=300_000,
        has_loops=True,
        sizes_of_liquid_on_cpu={"num_interactions": Chosen(3, "instead of the paper's 6: a liquid on a CPU")},
    ),
)
