"""Make a file of starting geometries for `generate.py` from a SMILES string, with a chosen order of atoms.

RDKit embeds conformers and relaxes them with MMFF94. The lowest distinct conformers are relaxed with GFN2-xTB and
written in order of energy. If every atom of the SMILES string, including hydrogens, has a map number (1, 2, ...), these
numbers set the order of atoms in the file. Otherwise RDKit's order is kept.

Example (`molecules/ac_Ala3_NHMe.xyz`, L-alanine tetrapeptide in the order of MD22; about a minute):
    python data/build_molecule.py --conformers 4 --out data/molecules/ac_Ala3_NHMe.xyz --smiles \\
        '[H:1][C:4]([H:2])([H:3])[C:6](=[O:5])[N:7]([H:8])[C@@:9]([H:10])([C:11]([H:14])([H:15])[H:16])[C:12](=[O:13])'\\
        '[N:17]([H:18])[C@@:19]([H:20])([C:21]([H:24])([H:25])[H:26])[C:22](=[O:23])'\\
        '[N:27]([H:28])[C@@:29]([H:30])([C:31]([H:34])([H:35])[H:36])[C:32](=[O:33])'\\
        '[N:37]([H:38])[C:39]([H:40])([H:41])[H:42]'
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import write
from ase.optimize import BFGS
from rdkit import Chem
from rdkit.Chem import AllChem, rdMolAlign

EMBEDDED_PER_CONFORMER = 25
DIFFERENT_RMSD_A = 0.75  # of the heavy atoms; closer structures count as the same conformer
FORCE_TOLERANCE_EV_PER_A = 0.02


def molecule(smiles: str) -> Chem.Mol:
    """The molecule with all hydrogens, ordered by map numbers if every atom has one."""
    parser = Chem.SmilesParserParams()
    parser.removeHs = False
    parsed = Chem.MolFromSmiles(smiles, parser)
    if parsed is None:
        raise SystemExit(f"--smiles {smiles}: RDKit cannot read it")
    parsed = Chem.AddHs(parsed)
    numbers = [atom.GetAtomMapNum() for atom in parsed.GetAtoms()]
    if not any(numbers):
        return parsed
    if sorted(numbers) != list(range(1, len(numbers) + 1)):
        raise SystemExit(f"--smiles: map numbers must be 1 to {len(numbers)}, hydrogens included; found {numbers}")
    return Chem.RenumberAtoms(parsed, np.argsort(numbers).tolist())


def distinct_conformers(mol: Chem.Mol, count: int, seed: int) -> list[int]:
    """Embed and relax conformers with MMFF94. Returns identifiers of the lowest distinct ones."""
    parameters = AllChem.ETKDGv3()
    parameters.randomSeed = seed
    identifiers = list(AllChem.EmbedMultipleConfs(mol, EMBEDDED_PER_CONFORMER * count, parameters))
    energies = [energy for _, energy in AllChem.MMFFOptimizeMoleculeConfs(mol, maxIters=5000)]
    heavy = Chem.RemoveHs(mol)
    kept: list[int] = []
    for index in np.argsort(energies):
        candidate = identifiers[index]
        distances = (rdMolAlign.GetBestRMS(heavy, heavy, candidate, other) for other in kept)
        if all(distance > DIFFERENT_RMSD_A for distance in distances):
            kept.append(candidate)
        if len(kept) == count:
            return kept
    raise SystemExit(f"--conformers {count}: only {len(kept)} of {len(identifiers)} embedded ones differ")


def relaxed(mol: Chem.Mol, identifier: int) -> Atoms:
    """A conformer at its GFN2-xTB minimum, with the center of mass at the origin."""
    from tblite.ase import TBLite

    symbols = [atom.GetSymbol() for atom in mol.GetAtoms()]
    atoms = Atoms(symbols, mol.GetConformer(identifier).GetPositions())
    atoms.set_initial_charges([Chem.GetFormalCharge(mol) / len(atoms)] * len(atoms))
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    if not BFGS(atoms, logfile=None).run(fmax=FORCE_TOLERANCE_EV_PER_A, steps=2000):
        raise SystemExit(f"conformer {identifier}: no GFN2-xTB minimum within 2000 steps")
    atoms.positions -= atoms.get_center_of_mass()
    return atoms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smiles", required=True, help="SMILES string, with map numbers if the order of atoms matters")
    parser.add_argument("--out", type=Path, required=True, help="xyz file to write")
    parser.add_argument("--conformers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=2024, help="seed of the embedding")
    arguments = parser.parse_args()
    mol = molecule(arguments.smiles)
    identifiers = distinct_conformers(mol, arguments.conformers, arguments.seed)
    minima = sorted((relaxed(mol, identifier) for identifier in identifiers), key=Atoms.get_potential_energy)
    for index, atoms in enumerate(minima):
        comment = f"{arguments.out.stem}, GFN2-xTB minimum {index}, {atoms.get_potential_energy():.4f} eV, Angstrom"
        write(arguments.out, atoms, format="xyz", comment=comment, append=index > 0, fmt="%16.8f")
    print(f"{arguments.out}: wrote {len(minima)} conformers of {len(minima[0])} atoms")


if __name__ == "__main__":
    main()
