"""SchNet (Schütt et al., J. Chem. Phys. 148, 241722 (2018))."""
