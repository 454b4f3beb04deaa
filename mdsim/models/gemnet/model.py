"""GemNet-T: directional messages over triplets of atoms (Gasteiger et al., NeurIPS 2021, arXiv 2106.08903).

    paper                                          here
    radial and circular basis, envelope            radial_basis, cbf_basis3 (basis.py)
    shared down-projections of the bases           mlp_rbf3, mlp_cbf3, mlp_rbf_h, mlp_rbf_out
    atom and edge embedding                        atom_emb, edge_emb
    interaction block, efficient bilinear layer    int_blocks[k], .trip_interaction.mlp_cbf (interaction.py)
    output blocks, summed                          out_blocks[k]
    scaling factors                                scale_rbf, scale_cbf_sum, scale_sum (scaling.py)

Parameters have the names of the published PyTorch implementation (Open Catalyst, `gemnet_t`), so that its weights load.
Energies are sums over atoms. Forces are minus the gradient of the energy, never a separate output head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from mdsim.force_field import FAST_TOLERANCE, ForceField
from mdsim.interfaces import Potential
from mdsim.models.gemnet.basis import RadialBasis, circular_basis
from mdsim.models.gemnet.edges import Edges, on_both
from mdsim.models.gemnet.fast.frozen import FrozenGemNetT, FrozenPotential
from mdsim.models.gemnet.interaction import Bases, InteractionBlock, OutputBlock
from mdsim.models.gemnet.layers import MAX_ATOMIC_NUMBER, AtomEmbedding, Dense, EdgeEmbedding, he_orthogonal_
from mdsim.models.gemnet.scaling import fitting
from mdsim.neighbors import Neighbors
from mdsim.neighbors import neighbors as find_neighbors
from mdsim.state import System
from mdsim.typing import Float, Tensor

FITTING_FRAMES, FITTING_PAIRS = 64, 50_000  # at most, to fit scaling factors, which are single numbers


class CircularBasis(nn.Module):
    """The radial part of the circular basis. The angular part has no parameters."""

    def __init__(self, radial_basis: RadialBasis) -> None:
        super().__init__()
        self.radial_basis = radial_basis


class CircularProjection(nn.Module):
    """Weights that reduce the circular basis, for each degree, to `emb_size_cbf` functions of the distance."""

    def __init__(self, num_spherical: int, num_radial: int, emb_size_cbf: int) -> None:
        super().__init__()
        matrix = he_orthogonal_(torch.empty(emb_size_cbf, num_spherical * num_radial))
        self.weight = nn.Parameter(matrix.T.reshape(num_spherical, num_radial, emb_size_cbf).clone())


class GemNetT(ForceField):
    """GemNet-T with conservative forces.

    Args:
        species: atomic numbers seen in training, up to 83. Empty if unknown.
        num_spherical: degrees of the circular basis.
        num_radial: radial basis functions.
        num_blocks: interaction blocks.
        emb_size_atom, emb_size_edge: features of atoms and of edges.
        emb_size_trip: features of the messages over triplets.
        emb_size_rbf, emb_size_cbf: features of the reduced radial and circular basis.
        emb_size_bil_trip: output features of the bilinear layer.
        num_before_skip, num_after_skip: residual layers before and after the skip connection.
        num_concat: residual layers after atoms and edges are joined.
        num_atom: residual layers of atom updates and of output blocks.
        rbf: ``gaussian`` or ``spherical_bessel``.
        envelope: ``polynomial`` or ``exponential``.
        envelope_exponent: exponent of the polynomial envelope.
        cutoff: Å.
        energy_shift_eV: see `ForceField`.
        energy_scale: factor on the network's output, in eV.
    """

    energy_scale: Tensor
    _frozen: FrozenGemNetT | None = None  # of a copy whose parameters never change

    def __init__(
        self,
        species: Sequence[int] = (),
        num_spherical: int = 7,
        num_radial: int = 6,
        num_blocks: int = 4,
        emb_size_atom: int = 128,
        emb_size_edge: int = 128,
        emb_size_trip: int = 64,
        emb_size_rbf: int = 16,
        emb_size_cbf: int = 16,
        emb_size_bil_trip: int = 64,
        num_before_skip: int = 1,
        num_after_skip: int = 1,
        num_concat: int = 1,
        num_atom: int = 2,
        rbf: str = "gaussian",
        envelope: str = "polynomial",
        envelope_exponent: int = 5,
        cutoff: float = 5.0,
        energy_shift_eV: float = 0.0,
        energy_scale: float = 1.0,
    ) -> None:
        if species and max(species) > MAX_ATOMIC_NUMBER:
            raise ValueError(f"GemNet-T has embeddings up to Z = {MAX_ATOMIC_NUMBER}, found Z = {max(species)}")
        super().__init__(cutoff, tuple(species), energy_shift_eV)
        self.message_steps = 2 * num_blocks + 1  # a block updates edges from edges, atoms from edges, edges from atoms
        self.hyperparameters = {
            "num_spherical": num_spherical,
            "num_radial": num_radial,
            "num_blocks": num_blocks,
            "emb_size_atom": emb_size_atom,
            "emb_size_edge": emb_size_edge,
            "emb_size_trip": emb_size_trip,
            "emb_size_rbf": emb_size_rbf,
            "emb_size_cbf": emb_size_cbf,
            "emb_size_bil_trip": emb_size_bil_trip,
            "num_before_skip": num_before_skip,
            "num_after_skip": num_after_skip,
            "num_concat": num_concat,
            "num_atom": num_atom,
            "rbf": rbf,
            "envelope": envelope,
            "envelope_exponent": envelope_exponent,
            "cutoff": self.cutoff,
        }
        self.num_spherical = num_spherical
        self.register_buffer("energy_scale", torch.tensor(float(energy_scale)))

        self.radial_basis = RadialBasis(num_radial, self.cutoff, rbf, envelope, envelope_exponent)
        self.cbf_basis3 = CircularBasis(RadialBasis(num_radial, self.cutoff, rbf, envelope, envelope_exponent))
        self.mlp_rbf3 = Dense(num_radial, emb_size_rbf, activation=False)
        self.mlp_cbf3 = CircularProjection(num_spherical, num_radial, emb_size_cbf)
        self.mlp_rbf_h = Dense(num_radial, emb_size_rbf, activation=False)
        self.mlp_rbf_out = Dense(num_radial, emb_size_rbf, activation=False)
        self.atom_emb = AtomEmbedding(emb_size_atom)
        self.edge_emb = EdgeEmbedding(emb_size_atom, num_radial, emb_size_edge)
        self.out_blocks = nn.ModuleList(
            OutputBlock(emb_size_atom, emb_size_edge, emb_size_rbf, num_atom) for _ in range(num_blocks + 1)
        )
        self.int_blocks = nn.ModuleList(
            InteractionBlock(
                emb_size_atom,
                emb_size_edge,
                emb_size_trip,
                emb_size_rbf,
                emb_size_cbf,
                emb_size_bil_trip,
                num_before_skip,
                num_after_skip,
                num_concat,
                num_atom,
            )
            for _ in range(num_blocks)
        )

    def atomic_energies(
        self, system: System, positions: Float[Tensor, "replica atom 3"], neighbors: Neighbors
    ) -> Float[Tensor, "replica atom"]:
        """Energy of each atom in eV; they sum to the energy of the replica, relative to `zero_energy_eV`."""
        edges = Edges.within(self.cutoff, positions, neighbors)
        rbf = edges.radial(self.radial_basis)
        rbf_out = self.mlp_rbf_out(rbf)
        bases = self.bases(rbf, edges)
        h = self.atom_emb(system.atomic_numbers).repeat(len(positions), 1)
        m = self.edge_emb(h, on_both(rbf), edges)
        output = self.out_blocks[0](m, rbf_out, edges)
        for interaction, out in zip(self.int_blocks, self.out_blocks[1:], strict=True):
            h, m = interaction(h, m, bases, edges)
            output = output + out(m, rbf_out, edges)
        return self.energy_scale * output.reshape(positions.shape[:2])

    def forward(
        self,
        system: System,
        positions: Float[Tensor, "replica atom 3"],
        neighbors_of_all: Neighbors | None = None,
        create_graph: bool = False,
    ) -> tuple[Float[Tensor, "replica"], Float[Tensor, "replica atom 3"]]:
        """Energies (eV) and forces (eV/Å), see `ForceField`. Without a graph they come from `FrozenGemNetT`."""
        if create_graph:
            return super().forward(system, positions, neighbors_of_all, create_graph)
        if neighbors_of_all is None:
            neighbors_of_all = find_neighbors(system, positions, self.cutoff)
        frozen = FrozenGemNetT(self) if self._frozen is None else self._frozen
        return frozen(system, positions, neighbors_of_all)

    def frozen_copy(self) -> GemNetT:
        """A copy in evaluation mode, whose parameters never change, with the constants of its forces."""
        copied = super().frozen_copy()
        assert isinstance(copied, GemNetT)
        copied._frozen = FrozenGemNetT(copied)
        return copied

    def fast_potential(self, system: System, tolerance: float = FAST_TOLERANCE) -> Potential:
        """Constant weights and a hand-written backward pass, without interpolation."""
        return FrozenPotential(self, system)

    def bases(self, rbf: Float[Tensor, "pair radial"], edges: Edges) -> Bases:
        """Features shared by all interaction blocks."""
        harmonics, radial = circular_basis(edges, edges.radial(self.cbf_basis3.radial_basis), self.num_spherical)
        return Bases(
            rbf3=self.mlp_rbf3(rbf),
            rbf_h=self.mlp_rbf_h(rbf),
            harmonics=harmonics,
            radial=radial,
            mlp_cbf3=self.mlp_cbf3.weight,
        )

    def normalize_to(
        self,
        system: System,
        positions: Float[Tensor, "frame atom 3"],
        energy: Float[Tensor, "frame"],
        forces: Float[Tensor, "frame atom 3"],
    ) -> None:
        """Shift energies by their mean, scale by the root mean square force component, and fit the scaling factors."""
        super().normalize_to(system, positions, energy, forces)
        self.energy_scale.fill_(forces.square().mean().sqrt())
        self.fit_scale_factors(system, positions)

    def fit_scales(
        self, system: System, positions: Float[Tensor, "replica atom 3"], pairs: Neighbors, force_rms: float
    ) -> None:
        """Scale by the root mean square force component, and fit the scaling factors."""
        self.energy_scale.fill_(force_rms)
        with fitting(self):
            self.atomic_energies(system, positions, pairs)

    def fit_scale_factors(self, system: System, positions: Float[Tensor, "frame atom 3"]) -> None:
        """Fit the variance-preserving scaling factors on frames spread evenly over the given ones.

        Args:
            system: the system of the frames.
            positions: Å.
        """
        here = system.to(device=self.energy_scale.device, dtype=self.energy_scale.dtype)
        first = find_neighbors(here, positions[:1].to(here.masses), self.cutoff)
        count = max(1, min(len(positions), FITTING_FRAMES, FITTING_PAIRS // max(1, first.n_pairs)))
        chosen = torch.linspace(0, len(positions) - 1, count).long()
        with fitting(self):
            self.energy(here, positions[chosen].to(here.masses))
