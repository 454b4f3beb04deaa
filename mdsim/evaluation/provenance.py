"""The origin of results: the commit of the code, and versions of the packages that they depend on."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

import mdsim

GIT_TIMEOUT_S = 10.0
PACKAGES = ("torch", "numpy", "scipy", "ase", "e3nn")


def versions() -> dict[str, str]:
    """Versions of Python, mdsim and the packages that do the arithmetic."""
    return {
        "python": platform.python_version(),
        "mdsim": mdsim.__version__,
        **{name: version(name) for name in PACKAGES},
    }


@cache
def commit(root: Path = Path(mdsim.__file__).parents[1]) -> str | None:
    """The commit of the checkout that the code runs from, with "+changes" if tracked files differ from it.

    None outside of a checkout, as for an installed wheel, or without git. A repository that merely holds the
    environment with the wheel does not count: the checkout must begin in ``root``.
    """
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        return head + ("+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *words: str) -> str:
    command = ["git", "-C", str(root), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=GIT_TIMEOUT_S).stdout.strip()
