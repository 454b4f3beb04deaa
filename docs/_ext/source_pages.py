"""Pages of source code without the tree of all pages, which takes longer to make than the rest of the manual."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

BEFORE_THE_THEME = 100


def _without_tree(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    if page.startswith("_modules/"):
        context.pop("toctree", None)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("html-page-context", _without_tree, priority=BEFORE_THE_THEME)
    return {"parallel_read_safe": True}
