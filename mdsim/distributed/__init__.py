"""One run on several processes (ranks): each simulates and differentiates its share, and all hold the same state.

Every rank executes the same code with the same random numbers. Only four places divide work: stretches of dynamics
and observables by replica, energies and gradients by structure, and the gradient of labels by frame. Their results are
gathered or summed, after which all ranks have the same ones again. With one process none of this does anything.
"""

from mdsim.distributed.collectives import (
    agreed,
    check_same,
    gathered,
    gathered_objects,
    n_ranks,
    rank,
    share,
    share_of_equals,
    summed,
)

__all__ = [
    "agreed",
    "check_same",
    "gathered",
    "gathered_objects",
    "n_ranks",
    "rank",
    "share",
    "share_of_equals",
    "summed",
]
