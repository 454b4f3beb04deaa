"""The origin of a model of another package: which file it comes from."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path


def origin_of(path: Path, package: str) -> dict[str, str]:
    """Name and sha256 of the file, and the release of the package that read it, for checkpoints.

    Args:
        path: the file.
        package: name of the distribution.
    """
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"file": path.name, "sha256": digest, "package": f"{package} {version(package)}"}
