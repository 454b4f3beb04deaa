"""Short-range repulsion of nuclei, an analytic part of a force field that is not learned.

zbl.py        the screened Coulomb energy, its windows, and the force field's part of it
pairs.py      the pairs of atoms that repel each other
windows.py    windows from the closest contacts of reference frames
potential.py  energies and forces for dynamics
"""
