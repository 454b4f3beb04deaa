"""The `repulsion` of a model: an analytic part of its energies that is not learned."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from mdsim.config.schema.base import NonNegative, Positive, Section


class RepulsionConfig(Section):
    """Screened Coulomb repulsion of nuclei (ZBL), at distances below those in the data alone.

    See [](method.md#repulsion-of-nuclei).
    """

    name: Literal["zbl"] = Field(description="The repulsion.")
    pairs: Literal["nonbonded", "between_molecules", "all"] = Field(
        "nonbonded",
        description="The pairs of atoms that repel each other. nonbonded: all but the ends of a bond and of an angle; "
        "between_molecules: atoms of different molecules; all: for systems without bonds.",
    )
    windows_A: dict[str, tuple[NonNegative, Positive]] = Field(
        {},
        description="Distances between which the repulsion of two elements is switched off, `H-O: [1.07, 1.33]`. Other "
        "elements: it ends at 0.98 times their closest contact in the training frames, and begins to be switched off "
        "at 0.8 times that distance.",
    )


def fitted() -> Any:
    """The field of an architecture."""
    return Field(None, description="Repulsion of nuclei, fixed during the fit and saved with the model; null: none.")


def added() -> Any:
    """The field of a pretrained model."""
    return Field(
        None,
        description="Repulsion of nuclei to add to a model that was fitted without, saved with the model from then on; "
        "null: that of the checkpoint, or none.",
    )
