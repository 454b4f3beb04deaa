"""The force fields: their architectures for a fit, and how a run names a pretrained one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mdsim.config.schema.base import Count, Degree, Positive, Section
from mdsim.config.schema.custom import CustomModelConfig, CustomModelReference


class SchNetConfig(Section):
    """SchNet (Schütt et al., J. Chem. Phys. 148, 241722 (2018))."""

    name: Literal["schnet"] = Field(description="The architecture.")
    hidden_channels: Count = Field(64, description="Features of an atom.")
    num_filters: Count = Field(64, description="Channels of the continuous filters.")
    num_interactions: Count = Field(6, description="Interaction blocks.")
    num_gaussians: Annotated[int, Field(ge=2)] = Field(
        25, description="Radial basis functions, evenly spaced up to the cutoff."
    )
    cutoff_A: Positive = Field(5.0, description="Atoms further apart do not interact.")


class NequIPConfig(Section):
    """NequIP (Batzner et al., Nat. Commun. 13, 2453 (2022)); scale, shift and neighbours come from the data."""

    name: Literal["nequip"] = Field(description="The architecture.")
    l_max: Degree = Field(1, description="Highest degree of the features; part of the name of the run.")
    parity: bool = Field(True, description="Features of both parities.")
    num_layers: Count = Field(3, description="Interaction layers.")
    num_features: Count = Field(32, description="Channels of each irrep.")
    num_bessels: Count = Field(8, description="Radial basis functions, with trainable frequencies.")
    polynomial_cutoff_p: Count = Field(6, description="Power of the envelope that goes to zero at the cutoff.")
    radial_mlp_depth: Count = Field(2, description="Hidden layers of the radial network.")
    radial_mlp_width: Count = Field(64, description="Units of each hidden layer of the radial network.")
    cutoff_A: Positive = Field(5.0, description="Atoms further apart do not interact.")


class GemNetTConfig(Section):
    """GemNet-T (Gasteiger et al., arXiv 2106.08903); scale, shift and scaling factors come from the data."""

    name: Literal["gemnet_t"] = Field(description="The architecture.")
    num_spherical: Count = Field(7, description="Spherical harmonics of the angle, of degrees 0 to num_spherical - 1.")
    num_radial: Annotated[int, Field(ge=2)] = Field(6, description="Radial basis functions.")
    num_blocks: Count = Field(4, description="Interaction blocks.")
    emb_size_atom: Count = Field(128, description="Features of an atom.")
    emb_size_edge: Count = Field(128, description="Features of a message.")
    emb_size_trip: Count = Field(64, description="Features of a message within the triplet interaction.")
    emb_size_rbf: Count = Field(16, description="Features of the reduced radial basis.")
    emb_size_cbf: Count = Field(16, description="Features of the reduced circular basis.")
    emb_size_bil_trip: Count = Field(64, description="Outputs of the bilinear layer.")
    num_before_skip: Count = Field(1, description="Residual layers before messages are added to the former ones.")
    num_after_skip: Count = Field(1, description="Residual layers after messages are added to the former ones.")
    num_concat: Count = Field(1, description="Residual layers after the features of atoms and edges are joined.")
    num_atom: Count = Field(2, description="Residual layers of atom updates and of output blocks.")
    rbf: Literal["gaussian", "spherical_bessel"] = Field("gaussian", description="Form of the radial basis.")
    envelope: Literal["polynomial", "exponential"] = Field(
        "polynomial", description="Form of the function that goes to zero at the cutoff."
    )
    envelope_exponent: Count = Field(5, description="Power of the polynomial envelope.")
    cutoff_A: Positive = Field(5.0, description="Atoms further apart do not interact.")


ModelConfig = Annotated[SchNetConfig | NequIPConfig | GemNetTConfig | CustomModelConfig, Field(discriminator="name")]


class SchNetReference(Section):
    """The pretrained SchNet that a run starts from."""

    name: Literal["schnet"] = Field(description="Architecture; picks the folder below `model_dir`.")


class NequIPReference(Section):
    """The pretrained NequIP that a run starts from."""

    name: Literal["nequip"] = Field(description="Architecture; picks the folder below `model_dir`.")
    l_max: Degree = Field(1, description="Of several fits to the same data, the one with this degree.")


class GemNetTReference(Section):
    """The pretrained GemNet-T that a run starts from."""

    name: Literal["gemnet_t"] = Field(description="Architecture; picks the folder below `model_dir`.")


ModelReference = Annotated[
    SchNetReference | NequIPReference | GemNetTReference | CustomModelReference, Field(discriminator="name")
]


def model_label(model: ModelConfig | ModelReference) -> str:
    """What a model is called in the names of folders."""
    return model.label if isinstance(model, CustomModelConfig | CustomModelReference) else model.name
