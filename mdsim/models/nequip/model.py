"""NequIP: E(3)-equivariant message passing (Batzner et al., Nature Communications 13, 2453 (2022)).

    paper                                      here
    species embedding                          embedding
    Bessel basis times polynomial cutoff       Bessel, polynomial_cutoff
    radial network R(r) and convolution        layers[k].convolution
    self-interaction before and after          layers[k].linear_1, .linear_2
    self-connection by species                 layers[k].self_connection
    gate                                       layers[k].gate
    output block                               readout_1, readout_2

The building blocks are in `layers.py`. Features without a path to the energy (in the last layer, all but even scalars)
are not computed and have no weights. Radial functions are evaluated once per pair, not once per direction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import torch
from torch import nn

from mdsim.compiled import HAS_NUMBA, NEEDS_NUMBA
from mdsim.force_field import FAST_TOLERANCE, ForceField, NoFastPath, in_full_precision
from mdsim.interfaces import Potential
from mdsim.models.nequip.irreps import Irrep, Irreps, spherical_harmonics
from mdsim.models.nequip.layers import SCALAR, Convolution, EdgeFeatures, Features, Gate, Linear, SelfConnection
from mdsim.neighbors import Neighbors
from mdsim.neighbors import neighbors as find_neighbors
from mdsim.state import System
from mdsim.typing import Float, Tensor

STATISTICS_FRAMES = 64  # training frames, at least, in which neighbors are counted
MAX_ATOMIC_NUMBER = 118


class NequIP(ForceField):
    """NequIP with gated non-linearities and self-connections.

    Args:
        species: atomic numbers that the model has embeddings for.
        l_max: highest degree of features and spherical harmonics.
        parity: keep features of both parities. Otherwise keep only those of the spherical harmonics.
        num_layers: interaction blocks.
        num_features: channels of each irrep.
        num_bessels: radial basis functions, with trainable frequencies.
        polynomial_cutoff_p: power of the cutoff function.
        radial_mlp_depth, radial_mlp_width: hidden layers of the radial network, and their neurons.
        cutoff: Å.
        energy_shift_eV: see `ForceField`.
    """

    energy_scale: Tensor  # factor on the output of each species: the root mean square of the training forces
    avg_num_neighbors: Tensor  # over the training set; its root divides sums over neighbors
    one_hot: Tensor  # by atomic number

    def __init__(
        self,
        species: Sequence[int],
        l_max: int = 1,
        parity: bool = True,
        num_layers: int = 3,
        num_features: int = 32,
        num_bessels: int = 8,
        polynomial_cutoff_p: int = 6,
        radial_mlp_depth: int = 2,
        radial_mlp_width: int = 64,
        cutoff: float = 5.0,
        energy_shift_eV: float = 0.0,
    ) -> None:
        if not species:
            raise ValueError("NequIP needs to know its species: pass the atomic numbers that occur in the data")
        super().__init__(cutoff, tuple(species), energy_shift_eV)
        self.message_steps = num_layers
        self.hyperparameters = {
            "l_max": l_max,
            "parity": parity,
            "num_layers": num_layers,
            "num_features": num_features,
            "num_bessels": num_bessels,
            "polynomial_cutoff_p": polynomial_cutoff_p,
            "radial_mlp_depth": radial_mlp_depth,
            "radial_mlp_width": radial_mlp_width,
            "cutoff": self.cutoff,
        }
        n_species = len(self.species)
        self.register_buffer("energy_scale", torch.ones(n_species))
        self.register_buffer("avg_num_neighbors", torch.tensor(1.0))
        one_hot = torch.zeros(MAX_ATOMIC_NUMBER + 1, n_species)
        one_hot[self.species, torch.arange(n_species)] = 1.0
        self.register_buffer("one_hot", one_hot, persistent=False)

        self.polynomial_cutoff_p = polynomial_cutoff_p
        self.bessel = Bessel(num_bessels, self.cutoff)
        harmonics = [Irrep(degree, (-1) ** degree) for degree in range(l_max + 1)]
        self.irreps_harmonics = Irreps(harmonics)
        hidden = [Irrep(degree, p) for degree in range(l_max + 1) for p in (1, -1) if parity or p == (-1) ** degree]
        radial = [num_bessels] + radial_mlp_depth * [radial_mlp_width]
        self.embedding = Linear({SCALAR: n_species}, {SCALAR: num_features})
        self.layers = nn.ModuleList()
        irreps = [SCALAR]
        for wanted in _needed(hidden, harmonics, num_layers):
            layer = InteractionLayer(irreps, harmonics, wanted, num_features, n_species, radial)
            self.layers.append(layer)
            irreps = layer.irreps_out
        self.readout_1 = Linear({SCALAR: num_features}, {SCALAR: max(1, num_features // 2)})
        self.readout_2 = Linear({SCALAR: max(1, num_features // 2)}, {SCALAR: 1})

    def atomic_energies(
        self, system: System, positions: Float[Tensor, "replica atom 3"], neighbors: Neighbors
    ) -> Float[Tensor, "replica atom"]:
        """Energy of each atom in eV; they sum to the energy of the replica, relative to `zero_energy_eV`."""
        self.check_species(system)
        edges = self.edges(positions, neighbors)
        layers = cast("list[InteractionLayer]", self.layers)
        convolutions = [partial(layer.convolution, edges=edges) for layer in layers]
        return self.network(system, len(positions), convolutions)

    def edges(self, positions: Float[Tensor, "replica atom 3"], neighbors: Neighbors) -> EdgeFeatures:
        """Both directions of every pair within the cutoff."""
        displacements, distances, first, second = self.pairs_within_cutoff(positions, neighbors)
        irreps = [ir for _, ir in self.irreps_harmonics]
        forward = self.harmonics(displacements).split([ir.dim for ir in irreps], dim=-1)
        return EdgeFeatures(
            receivers=torch.cat([first, second]),
            senders=torch.cat([second, first]),
            harmonics={ir: torch.cat([y, ir.p * y]) for ir, y in zip(irreps, forward, strict=True)},
            radial=self.radial_basis(distances),
        )

    def pairs_within_cutoff(
        self, positions: Float[Tensor, "replica atom 3"], neighbors: Neighbors
    ) -> tuple[Float[Tensor, "pair 3"], Float[Tensor, "pair"], Tensor, Tensor]:
        """Displacements and distances (Å), first and second atoms of the pairs that interact.

        On a GPU all pairs of the list are kept, because the host would wait for their number in every step. At the
        cutoff, radial functions and their slopes are zero, so clamping smoothly removes every pair beyond it.
        """
        displacements = neighbors.displacements(positions)
        distances = torch.linalg.vector_norm(displacements, dim=-1)
        if positions.device.type != "cpu":
            return displacements, distances.clamp(max=self.cutoff), neighbors.first, neighbors.second
        # "Not beyond" instead of "within" keeps the pairs of a non-finite atom, whose energy must be non-finite too.
        kept = torch.nonzero(~(distances.detach() >= self.cutoff))[:, 0]
        first, second = neighbors.first.index_select(0, kept), neighbors.second.index_select(0, kept)
        return displacements.index_select(0, kept), distances.index_select(0, kept), first, second

    def harmonics(self, displacements: Float[Tensor, "pair 3"]) -> Float[Tensor, "pair harmonic"]:
        """Spherical harmonics of the directions, all degrees up to l_max, with mean square one."""
        return spherical_harmonics(self.irreps_harmonics, displacements, normalize=True, normalization="component")

    def radial_basis(self, distances: Float[Tensor, "pair"]) -> Float[Tensor, "pair basis"]:
        """Bessel functions times the cutoff."""
        return self.bessel(distances) * polynomial_cutoff(distances / self.cutoff, self.polynomial_cutoff_p)[:, None]

    def network(
        self, system: System, n_replicas: int, convolutions: Sequence[Callable[[Features], Features]]
    ) -> Float[Tensor, "replica atom"]:
        """Atomic energies in eV, given the convolution of each layer."""
        species = self.one_hot[system.atomic_numbers].repeat(n_replicas, 1)
        features = self.embedding({SCALAR: species[:, None]})
        for layer, convolution in zip(self.layers, convolutions, strict=True):
            features = layer(features, species, convolution, self.avg_num_neighbors)
        hidden = self.readout_1(features)[SCALAR]
        with in_full_precision(hidden):
            output = self.readout_2({SCALAR: hidden.to(self.energy_scale.dtype)})[SCALAR].reshape(n_replicas, -1)
            return output * (self.one_hot[system.atomic_numbers] @ self.energy_scale)

    def fast_potential(self, system: System, tolerance: float = FAST_TOLERANCE) -> Potential:
        """Compiled loops with tabulated weights on the CPU, cuEquivariance's kernels on a GPU (if installed)."""
        if system.masses.device.type == "cpu":
            if not HAS_NUMBA:
                raise NoFastPath(NEEDS_NUMBA)
            from mdsim.models.nequip.fast.tabulated import TabulatedNequIP

            return TabulatedNequIP(self, system, tolerance)
        try:
            from mdsim.models.nequip.fast.cuequivariance import CuequivarianceNequIP
        except (ImportError, OSError) as error:
            raise NoFastPath(f"on a GPU it needs the extra `gpu` ({error})") from error

        return CuequivarianceNequIP(self, system)

    def normalize_to(
        self,
        system: System,
        positions: Float[Tensor, "frame atom 3"],
        energy: Float[Tensor, "frame"],
        forces: Float[Tensor, "frame atom 3"],
    ) -> None:
        """Shift energies by their mean, scale by the root mean square force component, and count the neighbors."""
        super().normalize_to(system, positions, energy, forces)
        every = max(1, len(positions) // STATISTICS_FRAMES)
        counted = positions[::every].to(system.masses)
        pairs = find_neighbors(system, counted, self.cutoff)
        self.fit_scales(system, counted, pairs, float(forces.square().mean().sqrt()))

    def fit_scales(
        self, system: System, positions: Float[Tensor, "replica atom 3"], pairs: Neighbors, force_rms: float
    ) -> None:
        """Scale by the root mean square force component, and count the neighbors."""
        self.energy_scale.fill_(force_rms)
        self.avg_num_neighbors.fill_(max(1.0, 2 * pairs.n_pairs / (len(positions) * system.n_atoms)))


def _needed(hidden: Sequence[Irrep], harmonics: Sequence[Irrep], num_layers: int) -> list[list[Irrep]]:
    """For each layer, the irreps from which later layers can reach an even scalar, and so the energy."""
    needed = [[SCALAR]]
    while len(needed) < num_layers:
        needed.insert(0, [ir for ir in hidden if any(out in needed[0] for ir_y in harmonics for out in ir * ir_y)])
    return needed


class InteractionLayer(nn.Module):
    """One interaction block and its gate.

    Args:
        irreps_in: irreps of the input features.
        harmonics: irreps of the edges.
        wanted: irreps of the output features. Those without a path are left out.
        channels: channels per irrep.
        n_species: number of species of the self-connection.
        radial: see `Convolution`.
    """

    def __init__(
        self,
        irreps_in: Sequence[Irrep],
        harmonics: Sequence[Irrep],
        wanted: Sequence[Irrep],
        channels: int,
        n_species: int,
        radial: Sequence[int],
    ) -> None:
        super().__init__()
        channels_in = dict.fromkeys(irreps_in, channels)
        self.convolution = Convolution(irreps_in, harmonics, wanted, channels, radial)
        self.irreps_out = self.convolution.irreps_out
        self.gate = Gate(self.irreps_out, channels)
        self.linear_1 = Linear(channels_in, channels_in)
        self.linear_2 = Linear(self.convolution.channels_out, self.gate.channels_in)
        kept = {ir: n for ir, n in self.gate.channels_in.items() if ir in channels_in}
        self.self_connection = SelfConnection(channels_in, kept, n_species)

    def forward(
        self,
        features: Features,
        species: Float[Tensor, "node species"],
        convolution: Callable[[Features], Features],
        avg_num_neighbors: Float[Tensor, ""],
    ) -> Features:
        received = convolution(self.linear_1(features))
        update = self.linear_2({ir: total * avg_num_neighbors.rsqrt() for ir, total in received.items()})
        for ir, own in self.self_connection(features, species).items():
            update[ir] = update[ir] + own
        return self.gate(update)


class Bessel(nn.Module):
    """2 / r_c · sin(k r / r_c) / r, with trainable k, initially n π (Gasteiger et al., ICLR 2020, eq. 7)."""

    def __init__(self, num_bessels: int, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.frequencies = nn.Parameter(math.pi * torch.arange(1.0, num_bessels + 1.0))

    def forward(self, distances: Float[Tensor, "pair"]) -> Float[Tensor, "pair basis"]:
        # sin(k r / r_c) / r by the sinc function, sin(π x) / (π x), which is smooth at zero.
        x = self.frequencies * distances[:, None] / (math.pi * self.cutoff)
        return 2.0 / self.cutoff**2 * self.frequencies * torch.sinc(x)


def polynomial_cutoff(x: Float[Tensor, "*shape"], p: int) -> Float[Tensor, "*shape"]:
    """1 at x = 0, and 0 with two vanishing derivatives at x = 1 (Gasteiger et al., ICLR 2020, eq. 8)."""
    polynomial = (p + 1) * (p + 2) / 2 - p * (p + 2) * x + p * (p + 1) / 2 * x * x
    return 1.0 - polynomial * x**p
