"""HTML pages in one file, made of sections, with all figures, scripts and data inside.

A page makes no request: its content security policy allows none. Whatever is put into a page is escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

import jinja2

from mdsim.reporting.html.replay import Replay

ASSETS = Path(__file__).parent
MOST_FIGURE_BYTES = 2_500_000  # of all figures in one page; a third more as text


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Table:
    """A table, whose first column names its rows. It can be folded away below its caption."""

    kind: ClassVar[str] = "table"
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False


@dataclass(frozen=True)
class Picture:
    """A figure in a PNG file, with its caption and the text that stands for it where it cannot be seen."""

    kind: ClassVar[str] = "picture"
    path: Path
    alt: str
    caption: str


@dataclass(frozen=True)
class Listing:
    """Preformatted text, folded away below a summary."""

    kind: ClassVar[str] = "listing"
    summary: str
    text: str


@dataclass(frozen=True)
class Replays:
    """Trajectories to be watched. A page has at most one block of them."""

    kind: ClassVar[str] = "replays"
    replays: Sequence[Replay]


Block = Text | Table | Picture | Listing | Replays


@dataclass(frozen=True)
class Section:
    """A heading and what is below it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        title: heading of the page.
        verdict: the result in one or two sentences.
        sections: those without blocks are left out.
        outcome: "good", "bad" or "open"; sets the color beside the verdict.
        subtitle: conditions, in one line.
    """

    title: str
    verdict: str
    sections: Sequence[Section]
    outcome: str = "open"
    subtitle: str = ""


def write_page(path: Path, page: Page) -> None:
    """Write a page under a temporary name that is then renamed."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(render(page), encoding="utf-8")
    temporary.replace(path)


def render(page: Page) -> str:
    """The page as HTML."""
    sections = [section for section in page.sections if section.blocks]
    blocks = [block for section in sections for block in section.blocks]
    replays = [replay for block in blocks if isinstance(block, Replays) for replay in block.replays]
    return (
        _environment()
        .get_template("page.html")
        .render(
            page=page,
            sections=sections,
            images=_images([block for block in blocks if isinstance(block, Picture)]),
            replays=[replay.as_json() for replay in replays],
            style=_asset("page.css"),
            viewer=_asset("viewer/3Dmol-min.js") if replays else "",
            script=_asset("replay.js") if replays else "",
        )
    )


def _images(pictures: Sequence[Picture]) -> dict[Path, str]:
    """Data URIs of the figures, until the page is full."""
    images, used = {}, 0
    for picture in pictures:
        content = picture.path.read_bytes()
        if used + len(content) <= MOST_FIGURE_BYTES:
            used += len(content)
            images[picture.path] = "data:image/png;base64," + base64.b64encode(content).decode()
    return images


@cache
def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
