"""SchNet: continuous-filter convolutions over interatomic distances (Schütt et al., J. Chem. Phys. 148, 241722 (2018)).

    paper                          here
    a_Z (atom embedding)           embedding
    e_k(d_ij) (radial basis)       distance_expansion
    W^l(d_ij) (filter network)     interactions[l].mlp, times the cosine cutoff
    x^l -> x^(l+1) (interaction)   interactions[l].conv.lin1, .conv.lin2, .lin
    atom-wise energy               lin1, lin2

Layers and parameter names are those of `torch_geometric.nn.models.SchNet`, so that its weights load unchanged. Message
passing differs. Filters depend only on the distance, so each filter is evaluated once per pair, not once per direction.
Pairs come from `mdsim.neighbors`, without a cap on their number.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import nn

from mdsim.compiled import HAS_NUMBA, NEEDS_NUMBA, radial_spline
from mdsim.compiled.pair_convolution import convolve
from mdsim.force_field import FAST_TOLERANCE, ForceField, NoFastPath, in_full_precision
from mdsim.interfaces import Potential
from mdsim.models.schnet.layers import GaussianSmearing, InteractionBlock, ShiftedSoftplus
from mdsim.neighbors import Neighbors
from mdsim.state import System
from mdsim.typing import Float, Tensor

MAX_ATOMIC_NUMBER = 99


class SchNet(ForceField):
    """SchNet with a cosine cutoff, and energies summed over atoms.

    Args:
        hidden_channels: features per atom.
        num_filters: channels of the continuous filters.
        num_interactions: interaction blocks.
        num_gaussians: radial basis functions, evenly spaced from 0 to the cutoff.
        cutoff: Å.
        species: atomic numbers seen in training.
        energy_shift_eV: see `ForceField`.
        energy_scale: factor on the network's output (the standard deviation that labels were divided by).
    """

    energy_scale: Tensor

    def __init__(
        self,
        hidden_channels: int = 64,
        num_filters: int = 64,
        num_interactions: int = 6,
        num_gaussians: int = 25,
        cutoff: float = 5.0,
        species: list[int] | tuple[int, ...] = (),
        energy_shift_eV: float = 0.0,
        energy_scale: float = 1.0,
    ) -> None:
        super().__init__(cutoff, species, energy_shift_eV)
        self.message_steps = num_interactions
        self.hyperparameters = {
            "hidden_channels": hidden_channels,
            "num_filters": num_filters,
            "num_interactions": num_interactions,
            "num_gaussians": num_gaussians,
            "cutoff": self.cutoff,
        }
        self.register_buffer("energy_scale", torch.tensor(float(energy_scale)))
        self.embedding = nn.Embedding(MAX_ATOMIC_NUMBER + 1, hidden_channels, padding_idx=0)
        self.distance_expansion = GaussianSmearing(0.0, self.cutoff, num_gaussians)
        self.interactions = nn.ModuleList(
            InteractionBlock(hidden_channels, num_gaussians, num_filters) for _ in range(num_interactions)
        )
        self.lin1 = nn.Linear(hidden_channels, hidden_channels // 2)
        self.act = ShiftedSoftplus()
        self.lin2 = nn.Linear(hidden_channels // 2, 1)
        for readout in (self.lin1, self.lin2):
            nn.init.xavier_uniform_(readout.weight)
            nn.init.zeros_(readout.bias)

    def atomic_energies(
        self, system: System, positions: Float[Tensor, "replica atom 3"], neighbors: Neighbors
    ) -> Float[Tensor, "replica atom"]:
        """Energy of each atom in eV; they sum to the energy of the replica, relative to `zero_energy_eV`."""
        # At the cutoff, weight and slope are zero, so clamping smoothly removes every pair beyond it.
        distances = torch.linalg.vector_norm(neighbors.displacements(positions), dim=-1).clamp(max=self.cutoff)
        features = self.embedding(system.atomic_numbers).repeat(len(positions), 1)
        blocks = cast("list[InteractionBlock]", self.interactions)
        for block, filters in zip(blocks, self._filters(distances), strict=True):
            features = features + _interaction(block, features, filters, neighbors)
        hidden = self.act(self.lin1(features))
        with in_full_precision(positions):
            output = self.lin2(hidden.to(positions.dtype))
        return self.energy_scale * output.reshape(positions.shape[:2])

    def _filters(self, distances: Float[Tensor, "pair"]) -> Iterator[Float[Tensor, "pair filter"]]:
        """The filters of each layer in turn. In training, large minibatches interpolate them."""
        if self.lin1.weight.requires_grad and radial_spline.worthwhile(distances):
            for values in self.filter_networks(radial_spline.knots(self.cutoff)):
                yield radial_spline.interpolate(distances, values, self.cutoff)
        else:
            yield from self.filter_networks(distances)

    def filter_networks(self, distances: Float[Tensor, "distance"]) -> Iterator[Float[Tensor, "distance filter"]]:
        """The filters of each layer in turn, times the cosine cutoff, in the precision of the distances (Å)."""
        weight = 0.5 * (torch.cos(math.pi / self.cutoff * distances) + 1.0)[:, None]
        basis = self.distance_expansion(distances)
        for block in self.interactions:
            layers: Any = block.mlp
            first, activation, second = layers
            yield _linear(second, activation(_linear(first, basis))) * weight

    def fast_potential(self, system: System, tolerance: float = FAST_TOLERANCE) -> Potential:
        """Tabulated filters in compiled loops on the CPU (if numba is installed)."""
        if not HAS_NUMBA:
            raise NoFastPath(NEEDS_NUMBA)
        from mdsim.models.schnet.fast.tabulated import TabulatedSchNet

        return TabulatedSchNet(self, system, tolerance)


def _interaction(
    block: InteractionBlock,
    features: Float[Tensor, "node channel"],
    filters: Float[Tensor, "pair filter"],
    neighbors: Neighbors,
) -> Float[Tensor, "node channel"]:
    """Update of the features by one interaction block."""
    sent = block.conv.lin1(features).to(filters.dtype)  # under autocast its precision differs from that of the filters
    messages = convolve(filters, sent, neighbors.first, neighbors.second)
    return block.lin(block.act(block.conv.lin2(messages)))


def _linear(layer: nn.Linear, x: Float[Tensor, "row channel"]) -> Float[Tensor, "row filter"]:
    """Apply the layer in the precision of its input, because tables are computed in float64."""
    return nn.functional.linear(x, layer.weight.to(x), layer.bias.to(x))
