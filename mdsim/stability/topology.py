"""Bonded structure of a system: dihedrals, atoms that bonds do not distinguish, and pairs that bonds hold together."""

from __future__ import annotations

import torch

from mdsim.observables.adf import bonded_partners, bonded_triplets
from mdsim.state import System
from mdsim.typing import Int, Tensor


def bonded_quadruplets(system: System) -> Int[Tensor, "quadruplet 4"]:
    """Every chain of three bonds i-j-k-l between four different atoms, once, with j < k."""
    partners = bonded_partners(system)
    second, third = system.bonds.T
    first, last = torch.broadcast_tensors(partners[second][:, :, None], partners[third][:, None, :])
    middle = [atoms[:, None, None].expand_as(first) for atoms in (second, third)]
    chains = torch.stack([first, *middle, last], dim=-1).reshape(-1, 4)
    i, j, k, end = chains.T
    return chains[(i >= 0) & (end >= 0) & (i != k) & (end != j) & (i != end)]


def equivalence_classes(system: System) -> Int[Tensor, "atom"]:
    """A number per atom, equal for atoms that elements and bonds do not distinguish, such as those of a methyl group.

    Atoms are divided by element, and then again and again by the classes of their bonded partners, until nothing
    changes (Weisfeiler & Leman 1968; the extended connectivity of Morgan 1965).
    """
    partners = bonded_partners(system)
    classes = torch.unique(system.atomic_numbers, return_inverse=True)[1]
    while True:
        around = torch.where(partners >= 0, classes[partners.clamp_min(0)], -1).sort(-1).values
        finer = torch.unique(torch.cat([classes[:, None], around], dim=1), dim=0, return_inverse=True)[1]
        if finer.max() == classes.max():
            return classes
        classes = finer


def classes_of_tuples(system: System, tuples: Int[Tensor, "tuple order"]) -> list[Int[Tensor, "member"]]:
    """Indices of the tuples of each class. Tuples are alike if their atoms are, read in either direction."""
    if not len(tuples):
        return []
    along = equivalence_classes(system)[tuples]
    n_classes = system.n_atoms
    weights = n_classes ** torch.arange(tuples.shape[1], device=tuples.device)
    codes = torch.minimum((along * weights).sum(-1), (along.flip(1) * weights).sum(-1))
    order = codes.argsort(stable=True)
    sizes = torch.unique(codes, return_counts=True)[1]
    return list(order.split(sizes.tolist()))


def pairs_held_by_bonds(system: System) -> Int[Tensor, "pair 2"]:
    """Pairs of atoms one or two bonds apart, i < j, each at least once. All other pairs are nonbonded."""
    pairs = torch.cat([system.bonds, bonded_triplets(system)[:, [0, 2]]])
    return pairs.sort(-1).values
