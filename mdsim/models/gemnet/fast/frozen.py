"""GemNet-T with constant weights: energies and forces by a hand-written backward pass.

The results are those of autograd, in less time and memory. Dynamics needs only the gradient with respect to positions.
The backward pass through the network stores little more than the arguments of the activations. Constants are folded
into the weights, and edges are processed in chunks that stay in the cache from one layer to the next. Autograd
differentiates only the geometry: radial functions and spherical harmonics of the positions. Replicas are processed in
groups, so memory does not grow with their number.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from mdsim.models.gemnet.basis import circular_basis
from mdsim.models.gemnet.edges import ALIGNMENT, Edges, Layout, on_both
from mdsim.models.gemnet.fast.blocks import FrozenBlock, FrozenOutput, Geometry, Shared
from mdsim.models.gemnet.fast.layers import Workspace, silu
from mdsim.models.gemnet.fast.stages import Chunk, Circular, FrozenEmbedding
from mdsim.neighbors import MovingCellList, NeighborList, Neighbors, groups_of_replicas
from mdsim.state import System
from mdsim.stress import shifts_of
from mdsim.typing import Float, Tensor

CHUNK_NUMBERS = 2**17  # numbers in the features of a chunk of edges, per CPU thread: they fit into its cache
GROUP_PAIRS_CPU, GROUP_PAIRS_GPU = 6_000, 100_000  # pairs of the replicas in one group


@dataclass(frozen=True)
class Group:
    """Replicas that are processed together, with their pairs.

    On a GPU all pairs of the list are edges, in a layout that is made once for the list. To select those within the
    cutoff in every step, as on a CPU, the host would wait for their number.
    """

    replicas: slice
    pairs: Neighbors
    layout: Layout | None

    def edges(self, cutoff: float, positions: Float[Tensor, "replica atom 3"], pairs: Neighbors) -> Edges:
        """The edges at these positions (Å), with the shifts of these pairs."""
        if self.layout is None:
            return Edges.aligned(cutoff, positions, pairs)
        return Edges.in_layout(cutoff, positions, pairs, self.layout)


def _divided(neighbors: Neighbors, n_replicas: int, n_atoms: int) -> Iterator[Group]:
    on_cpu = neighbors.first.device.type == "cpu"
    most = GROUP_PAIRS_CPU if on_cpu else GROUP_PAIRS_GPU
    for replicas, pairs in groups_of_replicas(neighbors, n_replicas, n_atoms, most):
        n_nodes = n_atoms * len(range(*replicas.indices(n_replicas)))
        yield Group(replicas, pairs, None if on_cpu else Layout.of(pairs.first, pairs.second, n_nodes))


class FrozenGemNetT:
    """Energies and forces of a GemNet-T with copied weights.

    Args:
        model: a `GemNetT`.
    """

    def __init__(self, model) -> None:
        self.cutoff, self.num_spherical = model.cutoff, model.num_spherical
        bases = model.radial_basis, model.cbf_basis3.radial_basis
        self.radial_basis, self.radial_basis_cbf = (copy.deepcopy(basis).requires_grad_(False) for basis in bases)
        self.workspace = Workspace()
        self._neighbors: Neighbors | None = None  # for which the groups were made
        self._groups: list[Group] = []
        with torch.no_grad():
            mlps = model.mlp_rbf3, model.mlp_rbf_h, model.mlp_rbf_out, model.mlp_cbf3.weight
            shared = Shared(*mlps, self.workspace)
            energy_scale = float(model.energy_scale)
            self.atoms = model.atom_emb.embeddings.weight.clone()
            self.embedding = FrozenEmbedding(model.edge_emb, 1.0, 1.0, self.workspace)
            atom_scale, edge_scale = 1.0, self.embedding.scale
            self.outputs = [FrozenOutput(model.out_blocks[0], shared, edge_scale, energy_scale)]
            self.blocks: list[FrozenBlock] = []
            for interaction, output in zip(model.int_blocks, model.out_blocks[1:], strict=True):
                self.blocks.append(FrozenBlock(interaction, shared, atom_scale, edge_scale))
                atom_scale, edge_scale = self.blocks[-1].atom_scale, self.blocks[-1].edge_scale
                self.outputs.append(FrozenOutput(output, shared, edge_scale, energy_scale))

    def __call__(
        self,
        system: System,
        positions: Float[Tensor, "replica atom 3"],
        neighbors: Neighbors,
        cells: Float[Tensor, "replica 3 3"] | None = None,
    ) -> tuple[Any, ...]:
        """Energies (eV, relative to the shift) and forces (eV/Å), and with cells (Å) that move also virials (eV)."""
        if neighbors is not self._neighbors:
            self._groups, self._neighbors = list(_divided(neighbors, len(positions), system.n_atoms)), neighbors
        results = []
        for group in self._groups:
            of_group = None if cells is None else cells[group.replicas]
            results.append(self._of_group(system, positions[group.replicas], group, of_group))
        return tuple(torch.cat(parts) for parts in zip(*results, strict=True))

    def _of_group(
        self,
        system: System,
        positions: Float[Tensor, "replica atom 3"],
        group: Group,
        cells: Float[Tensor, "replica 3 3"] | None,
    ) -> tuple[Tensor, ...]:
        self.workspace.restart()
        pairs = group.pairs if cells is None else group.pairs.in_cells(cells, system.n_atoms)
        with torch.enable_grad():
            positions = positions.detach().requires_grad_()
            variables = [positions]
            if cells is not None:
                variables.append(shifts_of(pairs, positions))
                pairs = replace(pairs, shift=variables[1])
            edges = group.edges(self.cutoff, positions, pairs)
            circular = circular_basis(edges, edges.radial(self.radial_basis_cbf), self.num_spherical)
            bases = edges.radial(self.radial_basis), *circular
        with torch.no_grad(), torch.autocast(positions.device.type, enabled=False):
            gradients = [torch.zeros_like(basis) for basis in bases]
            geometry = _geometry(edges, [basis.detach() for basis in bases], gradients, len(self.embedding.of_edge))
            atomic = self._network(system, geometry)
        # With degree 0 alone the harmonics are constant and not part of the graph.
        attached = [pair for pair in zip(bases, gradients, strict=True) if pair[0].requires_grad]
        outputs, of_outputs = zip(*attached, strict=True)
        of_positions, *of_shifts = torch.autograd.grad(outputs, variables, of_outputs)
        energy = atomic.reshape(positions.shape[:2]).sum(-1)
        if cells is None:
            return energy, -of_positions
        return energy, -of_positions, pairs.virials(positions.detach(), of_positions, *of_shifts)

    def _network(self, system: System, geometry: Geometry) -> Float[Tensor, "node"]:
        """Atomic energies. Gradients with respect to the geometry are filled in."""
        n_nodes = geometry.edges.n_nodes
        h = self.atoms.index_select(0, system.atomic_numbers.repeat(n_nodes // system.n_atoms) - 1)
        m = h.new_empty(len(geometry.edges.receivers), len(self.embedding.of_edge))
        of_atoms, arguments = self.embedding.atoms(h), []
        for chunk in geometry.chunks:
            arguments.append(self.embedding.forward(on_both(chunk.rbf), of_atoms, chunk))
            m[chunk.edges] = silu(arguments[-1])
        energy, saved_output = self.outputs[0].forward(m, geometry)
        saved = []
        for block, output in zip(self.blocks, self.outputs[1:], strict=True):
            of_block = block.forward(h, m, geometry)
            more, of_output = output.forward(m, geometry)
            energy += more
            saved.append((of_block, of_output))

        h_gradient, m_gradient = torch.zeros_like(h), torch.zeros_like(m)
        for block, output in zip(reversed(self.blocks), reversed(self.outputs[1:]), strict=True):
            of_block, of_output = saved.pop()
            output.backward(m_gradient, of_output, geometry)
            block.backward(h_gradient, m_gradient, of_block, geometry)
        self.outputs[0].backward(m_gradient, saved_output, geometry)
        for chunk, argument in zip(geometry.chunks, arguments, strict=True):
            of_rbf = self.embedding.backward(m_gradient[chunk.edges], argument, None, chunk)
            chunk.rbf_gradient.add_(of_rbf.unflatten(0, (-1, 2)).sum(1))
        return energy


class FrozenPotential:
    """The potential of a system under a GemNet-T with constant weights, with its own neighbor list.

    Args:
        model: a `GemNetT`. Its parameters are copied.
        system: the system of all replicas.
    """

    description = "constant weights, hand-written backward pass"

    def __init__(self, model, system: System) -> None:
        self.system = system
        self.frozen, self.neighbor_list = FrozenGemNetT(model), NeighborList(system, model.cutoff)
        self.moving_list = MovingCellList(system, model.cutoff)

    def __call__(
        self, positions: Float[Tensor, "replica atom 3"]
    ) -> tuple[Float[Tensor, "replica"], Float[Tensor, "replica atom 3"]]:
        """Energies (eV, relative to the shift) and forces (eV/Å)."""
        return self.neighbor_list.evaluate(positions, lambda pairs: self.frozen(self.system, positions, pairs))

    def in_cells(
        self, positions: Float[Tensor, "replica atom 3"], cells: Float[Tensor, "replica 3 3"]
    ) -> tuple[Float[Tensor, "replica"], Float[Tensor, "replica atom 3"], Float[Tensor, "replica 3 3"]]:
        """Energies (eV, relative to the shift), forces (eV/Å) and virials (eV) in moving cells (Å)."""
        energy, forces, virials = self.moving_list.evaluate_in_cells(
            positions, cells, lambda pairs: self.frozen(self.system, positions, pairs, cells)
        )
        return energy, forces, 0.5 * (virials + virials.mT)


def _geometry(edges: Edges, bases: list[Tensor], gradients: list[Tensor], n_channels: int) -> Geometry:
    """Geometry from bases and gradients, ordered as radial, harmonics, and radial part of the circular basis."""
    (rbf, *circular), (of_rbf, *of_circular) = bases, gradients
    size = max(1, len(rbf))
    if rbf.device.type == "cpu":
        size = ALIGNMENT * max(1, CHUNK_NUMBERS * torch.get_num_threads() // (2 * n_channels * ALIGNMENT))
    chunks = []
    for start in range(0, len(rbf), size):
        pairs, both = slice(start, start + size), slice(2 * start, 2 * (start + size))
        indices = edges.senders[both], edges.receivers[both], edges.rows[both]
        chunks.append(Chunk(both, *indices, rbf[pairs], of_rbf[pairs]))
    return Geometry(edges, chunks, Circular(*circular), Circular(*of_circular))
