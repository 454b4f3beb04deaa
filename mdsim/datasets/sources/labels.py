"""Selection of the energy and force labels among the arrays of a frame. Ambiguity is an error."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from ase import Atoms

from mdsim.errors import DatasetError

NO_LABELS = "no labels"
#: Words in a name that mark a quantity related to an energy or a force, but not the label.
ABOUT_A_LABEL = {
    "weight",
    "weights",
    "kinetic",
    "kin",
    "ke",
    "tol",
    "tolerance",
    "sigma",
    "std",
    "stdev",
    "var",
    "variance",
    "err",
    "error",
    "errors",
    "uncertainty",
    "unc",
    "mask",
    "threshold",
    "cutoff",
    "conv",
    "convergence",
    "atom",
    "per",
    "atomic",
    "atoms",
    "shift",
    "mae",
    "rmse",
    "loss",
    "change",
    "diff",
    "difference",
    "delta",
    "unit",
    "units",
    "zero",
    "point",
    "zpe",
    "zpve",
    "dispersion",
    "correction",
    "entropy",
    "thermal",
    "initial",
    "magnitude",
    "norm",
    "max",
    "min",
    "mean",
    "fixed",
}
#: Names of energies without the word energy, in order of preference.
SHORT_ENERGIES = ("etot", "e_tot", "toten", "epot", "e_pot", "e", "u", "u0", "e0", "potential", "pe", "dft_e")
SHORT_FORCES = ("f", "frc", "grad_neg")


def choose(path: Path, images: list[Atoms], what: str, flag: str, asked: str | None) -> str:
    """The name of a label: the given one, the only candidate, or the first of several with equal values.

    Args:
        path: path of the file.
        images: all frames.
        what: ``energy`` or ``forces``.
        flag: flag that gives the label on the command line.
        asked: value of the flag.

    Raises:
        DatasetError: there is no candidate, or several differ.
    """
    if asked is not None:
        return asked
    candidates = _candidates(images[0], what)
    if not candidates:
        there = _there(images[0])
        hint = "" if there == NO_LABELS else f". If one of these is meant, give it with {flag}"
        raise DatasetError(f"{path}: the frames have no {what}; they have {there}{hint}")
    first, *others = (each(path, images, what, name) for name in candidates)
    if any(not all(map(np.array_equal, first, other)) for other in others):
        raise DatasetError(f"{path}: {' and '.join(candidates)} may each be the {what}: choose with {flag}")
    return candidates[0]


def where_present(
    path: Path, images: list[Atoms], what: str, flag: str, asked: str | None
) -> tuple[str | None, list[np.ndarray | None]]:
    """A label of frames that may be of several systems, and of which some or all may have none.

    Args:
        path, images, what, flag, asked: as in `choose`.

    Returns:
        The name of the label, None if no frame has one, and its value in each frame, None where it is missing or not
        finite.

    Raises:
        DatasetError: several candidates differ, frames have labels of different names, or none has the name asked for.
    """
    having = [bool(_candidates(image, what)) if asked is None else asked in names(image) for image in images]
    labeled = [image for image, has in zip(images, having, strict=True) if has]
    if not labeled and asked is None:
        return None, [None] * len(images)
    key = choose(path, labeled or images, what, flag, asked)
    values = iter(each(path, labeled or images, what, key))
    found = (next(values) if has else None for has in having)
    return key, [value if value is not None and np.isfinite(value).all() else None for value in found]


def collect(path: Path, images: list[Atoms], what: str, key: str) -> np.ndarray:
    """One label of all frames of one system, as `each` gives it."""
    return np.stack(each(path, images, what, key))


def each(path: Path, images: list[Atoms], what: str, key: str) -> list[np.ndarray]:
    """One label of every frame, an energy of shape (1,) or forces of shape (atom, 3).

    Raises:
        DatasetError: a frame lacks it, or has a value of another shape.
    """
    values = []
    for index, image in enumerate(images):
        value = next((place[key] for place in places(image) if key in place), None)
        if value is None:
            raise DatasetError(f"{path}: frame {index} has no {what} named {key!r}; it has {_there(image)}")
        shape = (len(image), 3) if what == "forces" else (1,)
        try:
            array = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DatasetError(f"{path}: {key} of frame {index} is not a number ({value!r:.60})") from error
        if array.size != int(np.prod(shape)):
            raise DatasetError(f"{path}: {key} of frame {index} has shape {array.shape}, expected {shape}")
        values.append(array.reshape(shape))
    return values


def places(image: Atoms) -> tuple[dict, dict, dict]:
    """The sources of labels in a frame."""
    return (image.calc.results if image.calc is not None else {}, image.info, image.arrays)


def names(image: Atoms) -> set[str]:
    """All quantities of a frame besides its geometry."""
    return {str(name) for place in places(image) for name in place} - {"numbers", "positions", "masses"}


def words(name: str) -> list[str]:
    """The words of a name, such as those of ``REF_energy``, ``TotEnergy`` or ``energy-per-atom``, in lower case."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", str(name))
    return [word for word in re.split(r"[^a-z]+", parted.lower()) if word]


def _candidates(image: Atoms, what: str) -> list[str]:
    """Names under which a frame may have energies or forces."""
    shape = (len(image), 3) if what == "forces" else ()
    known = ("force", "forces") if what == "forces" else ("energy", "energies")
    shorts = SHORT_FORCES if what == "forces" else SHORT_ENERGIES
    fitting: list[str] = []
    for content in places(image):
        for name, value in content.items():
            if np.shape(value) in (shape, shape or (1,)) and np.asarray(value).dtype.kind in "fi":
                fitting.append(name)
    fitting = [name for name in dict.fromkeys(fitting) if not ABOUT_A_LABEL & set(words(name))]
    long = [name for name in fitting if any(word.endswith(known) for word in words(name)) and name != "free_energy"]
    return long or [name for short in shorts for name in fitting if name.lower() == short]


def _there(image: Atoms) -> str:
    return ", ".join(sorted(names(image))) or NO_LABELS
