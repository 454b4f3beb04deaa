"""Irreps, spherical harmonics and coupling coefficients of e3nn, of any release since 0.4.4.

Releases before 0.5 read a file of constants by a `torch.load` that newer releases of torch refuse, because it holds
slices. Here they are allowed, and nothing else.
"""

import torch

with torch.serialization.safe_globals([slice]):
    from e3nn.math import normalize2mom
    from e3nn.o3 import FullyConnectedTensorProduct, Irrep, Irreps, Linear, spherical_harmonics, wigner_3j

__all__ = [
    "FullyConnectedTensorProduct",
    "Irrep",
    "Irreps",
    "Linear",
    "normalize2mom",
    "spherical_harmonics",
    "wigner_3j",
]
