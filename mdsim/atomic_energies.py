"""Tables of the energies of isolated atoms, as files and configurations state them."""

from __future__ import annotations

from typing import Any

from ase.data import atomic_numbers

MOST_EV = 1e7  # size of an atomic energy; the heaviest atom has 1.5 million eV


def fault_of_table(value: Any) -> str | None:
    """What a table of energies (eV) by chemical symbol must be. None if the value is one."""
    if not isinstance(value, dict):
        return "an object of energies in eV by chemical symbol"
    if wrong := [key for key in value if atomic_numbers.get(key, 0) < 1]:
        return f"an object of energies by chemical symbol; {str(wrong[0])[:20]!r} is none"
    kinds = (type(energy) in (int, float) and abs(energy) < MOST_EV for energy in value.values())
    return None if all(kinds) else "an object whose values are numbers in eV"
