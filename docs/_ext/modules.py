"""Generator of the module lists in the API reference.

A line ``<!-- modules: mdsim.state mdsim.observables.* -->`` in a page is replaced by the documentation of these
modules, each under a heading; ``.*`` stands for the modules of a package whose names do not begin with an underscore.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules

from sphinx.application import Sphinx

PLACE = re.compile(r"^<!-- modules: (.+) -->$", re.MULTILINE)


def expanded(names: str) -> Iterator[str]:
    """The modules that the words of a line stand for."""
    for name in names.split():
        package = name.removesuffix(".*")
        if package == name:
            yield name
            continue
        for module in iter_modules(import_module(package).__path__, f"{package}."):
            if not module.name.rpartition(".")[2].startswith("_"):
                yield from expanded(f"{module.name}.*") if module.ispkg else [module.name]


def documentation(module: str) -> str:
    return f"## {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n   :members:\n```\n"


def _fill(app: Sphinx, name: str, source: list[str]) -> None:
    source[0] = PLACE.sub(lambda match: "\n".join(map(documentation, expanded(match[1]))), source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True}
