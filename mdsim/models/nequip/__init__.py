"""NequIP (Batzner et al., Nat. Commun. 13, 2453 (2022))."""
