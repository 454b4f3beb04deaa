"""NequIP (Batzner et al., Nat. Commun. 13, 2453 (2022))."""

from mdsim.models.nequip.model import NequIP

__all__ = ["NequIP"]
