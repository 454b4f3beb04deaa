"""Irreps, spherical harmonics and coupling coefficients of e3nn, of any release since 0.4.4.

Releases before 0.5 read a file of constants by a `torch.load` that newer releases of torch refuse, because it holds
slices. Here they are allowed, and nothing else.
"""

import torch

with torch.serialization.safe_globals([slice]):
    from e3nn.math import normalize2mom as normalize2mom
    from e3nn.o3 import FullyConnectedTensorProduct as FullyConnectedTensorProduct
    from e3nn.o3 import Irrep as Irrep
    from e3nn.o3 import Irreps as Irreps
    from e3nn.o3 import Linear as Linear
    from e3nn.o3 import spherical_harmonics as spherical_harmonics
    from e3nn.o3 import wigner_3j as wigner_3j
