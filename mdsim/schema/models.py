"""The force fields: their architectures for a fit, and how a run names a pretrained one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mdsim.schema.base import Count, Degree, Positive, Section


class SchNetConfig(Section):
    """SchNet (Schütt et al., J. Chem. Phys. 148, 241722 (2018))."""

    name: Literal["schnet"]
    hidden_channels: Count = 64
    num_filters: Count = 64
    num_interactions: Count = 6
    num_gaussians: Count = 25
    cutoff_A: Positive = 5.0


class NequIPConfig(Section):
    """NequIP (Batzner et al., Nat. Commun. 13, 2453 (2022)); scale, shift and neighbours come from the data."""

    name: Literal["nequip"]
    l_max: Degree = Field(1, description="Highest degree of the features; part of the name of the run.")
    parity: bool = Field(True, description="Features of both parities.")
    num_layers: Count = 3
    num_features: Count = Field(32, description="Channels of each irrep.")
    num_bessels: Count = Field(8, description="Radial basis functions, with trainable frequencies.")
    polynomial_cutoff_p: Count = 6
    radial_mlp_depth: Count = Field(2, description="Hidden layers of the radial network.")
    radial_mlp_width: Count = 64
    cutoff_A: Positive = 5.0


class GemNetTConfig(Section):
    """GemNet-T (Gasteiger et al., arXiv 2106.08903); scale, shift and scaling factors come from the data."""

    name: Literal["gemnet_t"]
    num_spherical: Count = Field(7, description="Spherical harmonics of the angle, of degrees 0 to num_spherical - 1.")
    num_radial: Annotated[int, Field(ge=2)] = 6
    num_blocks: Count = 4
    emb_size_atom: Count = 128
    emb_size_edge: Count = Field(128, description="Features of a message.")
    emb_size_trip: Count = Field(64, description="Features of a message within the triplet interaction.")
    emb_size_rbf: Count = 16
    emb_size_cbf: Count = 16
    emb_size_bil_trip: Count = Field(64, description="Outputs of the bilinear layer.")
    num_before_skip: Count = Field(1, description="Residual layers before messages are added to the former ones.")
    num_after_skip: Count = 1
    num_concat: Count = 1
    num_atom: Count = 2
    rbf: Literal["gaussian", "spherical_bessel"] = "gaussian"
    envelope: Literal["polynomial", "exponential"] = "polynomial"
    envelope_exponent: Count = 5
    cutoff_A: Positive = 5.0


ModelConfig = Annotated[SchNetConfig | NequIPConfig | GemNetTConfig, Field(discriminator="name")]


class SchNetReference(Section):
    """The pretrained SchNet that a run starts from."""

    name: Literal["schnet"] = Field(description="Architecture; picks the folder below `model_dir`.")


class NequIPReference(Section):
    """The pretrained NequIP that a run starts from."""

    name: Literal["nequip"]
    l_max: Degree = Field(1, description="Of several fits to the same data, the one with this degree.")


class GemNetTReference(Section):
    """The pretrained GemNet-T that a run starts from."""

    name: Literal["gemnet_t"]


ModelReference = Annotated[SchNetReference | NequIPReference | GemNetTReference, Field(discriminator="name")]
