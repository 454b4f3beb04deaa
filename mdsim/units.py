"""Physical constants and conversions, all taken from `ase.units`.

The package uses eV, Å, amu and ASE's time unit Å·√(amu/eV). At every boundary the unit is part of the name.
"""

from typing import overload

from ase import units as _ase

from mdsim.typing import Tensor

FS: float = _ase.fs  # one femtosecond in ASE time units
PS: float = 1000.0 * _ase.fs
KB_EV_PER_K: float = _ase.kB
KCAL_PER_MOL: float = _ase.kcal / _ase.mol  # in eV
KJ_PER_MOL: float = _ase.kJ / _ase.mol  # in eV
HARTREE: float = _ase.Hartree  # in eV
RYDBERG: float = _ase.Rydberg  # in eV
BOHR: float = _ase.Bohr  # in Å
NM: float = _ase.nm  # in Å
PASCAL: float = _ase.Pascal  # in eV/Å³
GPA: float = _ase.GPa  # in eV/Å³
BAR: float = _ase.bar  # in eV/Å³
AMU_PER_A3_IN_G_PER_CM3: float = _ase._amu * 1e27  # a density of 1 amu/Å³ in g/cm³
PER_CM_IN_PER_FS: float = _ase.invcm / _ase._hplanck * _ase._e * 1e-15  # frequency of a wavenumber of 1/cm, 1/fs
ANGSTROM2_PER_FS_IN_1E9_M2_PER_S: float = 1e4  # 1 Å²/fs = 1e-5 m²/s


@overload
def kT_eV(temperature_K: float) -> float: ...
@overload
def kT_eV(temperature_K: Tensor) -> Tensor: ...
def kT_eV(temperature_K: float | Tensor) -> float | Tensor:
    """Thermal energy k_B T in eV."""
    return KB_EV_PER_K * temperature_K
