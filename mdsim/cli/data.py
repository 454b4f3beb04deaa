"""Commands for data: download of published data sets, and `mdsim data check`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from mdsim.cli.shared import flag, run
from mdsim.datasets.inspection.check import Checked, folders_of, open_checked, suspects
from mdsim.datasets.inspection.figure import data_figure
from mdsim.datasets.inspection.mixed import open_mixed, report_mixed
from mdsim.datasets.inspection.report import report
from mdsim.datasets.sources import md17, md22, water
from mdsim.datasets.sources.convert import Excerpt
from mdsim.datasets.sources.published import CONTIGUOUS_FRAMES, SEED, PublishedSet, Request, find, make
from mdsim.reporting.console import format_table, show
from mdsim.reporting.live import Bar

COLLECTIONS = {"md17": md17.MOLECULES, "md22": md22.MOLECULES, "water": water.MOLECULES}
SIZES = {"md17": "1k", "md22": "25percent", "water": "1k"}
GOES_ON = "the same command goes on where it stopped"
#: Data sets of the published experiments, each with contiguous frames.
PAPER = (
    ("md17", "aspirin", ("1k", "10k")),
    ("md22", "ac_Ala3_NHMe", ("25percent", "100percent")),
    ("water", "water", ("1k", "10k")),
)


def download_data(arguments: Sequence[str] | None = None) -> int:
    """`download_data.py`: all data of the published experiments."""
    parser = argparse.ArgumentParser(
        description="Fetch and convert all data of the published experiments. Existing data are kept; an"
        " interrupted download continues where it stopped."
    )
    flag(parser, "--download_path", type=Path, default=Path("DATAPATH"), help="root of the data sets [DATAPATH]")
    _source_flags(parser)
    known = parser.parse_args(arguments)
    jobs = [
        (find(COLLECTIONS[name], molecule), _request(known, size, True, "download_data.py", arguments))
        for name, molecule, sizes in PAPER
        for size in sizes
    ]
    return run(lambda: _make_all(jobs, known, known.download_path), GOES_ON)


def one_set(name: str, arguments: Sequence[str] | None = None) -> int:
    """`data/md17.py`, `data/md22.py` and `data/water.py`: sizes of one published data set."""
    sets = COLLECTIONS[name]
    parser = argparse.ArgumentParser(description=f"Fetch {sets[0].description.source}, and convert it.")
    if len(sets) > 1:
        names = ", ".join(one.molecule for one in sets)
        parser.add_argument("--molecule", default=sets[0].molecule, help=f"one of {names} [{sets[0].molecule}]")
    parser.add_argument("--size", nargs="+", default=[SIZES[name]], help=f"1k, 10k, 25percent, ... [{SIZES[name]}]")
    parser.add_argument("--contiguous", action="store_true", help="also write contiguous.npz, frames in time order")
    flag(parser, "--contiguous_frames", type=int, default=CONTIGUOUS_FRAMES, help=f"their number [{CONTIGUOUS_FRAMES}]")
    flag(parser, "--contiguous_start", type=int, default=0, help="index of the first one [0]")
    flag(parser, "--test_frames", type=int, help="number of test frames [the published number]")
    flag(parser, "--db_path", type=Path, default=Path("DATAPATH"), help="root of the data sets [DATAPATH]")
    _source_flags(parser)
    flag(parser, "--from_file", type=Path, help="the published file, downloaded by other means")
    known = parser.parse_args(arguments)

    def action() -> None:
        chosen = find(sets, known.molecule if len(sets) > 1 else sets[0].molecule)
        requests = [_request(known, size, known.contiguous, f"data/{name}.py", arguments) for size in known.size]
        _make_all([(chosen, request) for request in requests], known, known.db_path)

    return run(action, GOES_ON)


def check(arguments: Sequence[str] | None = None) -> int:
    """`mdsim data check`."""
    known = check_parser().parse_args(arguments)
    return run(lambda: _check_all(known))


def check_parser() -> argparse.ArgumentParser:
    """The arguments of `mdsim data check`."""
    parser = argparse.ArgumentParser(
        prog="mdsim data check", description="Print and draw statistics and warnings for a data set."
    )
    parser.add_argument("path", type=Path, help="folder of a data set, or of several, or an npz file of frames")
    parser.add_argument("--output", type=Path, help="folder of the figures [that of each data set]")
    parser.add_argument("--no-figure", action="store_true", help="print only")
    return parser


def _check_all(known: argparse.Namespace) -> None:
    for place in [known.path] if known.path.is_file() else folders_of(known.path):
        mixed = open_mixed(place)
        if mixed is not None:
            show(report_mixed(mixed))
        else:
            for checked in open_checked(place):
                _check(checked, known)
        print()


def _check(checked: Checked, known: argparse.Namespace) -> None:
    found = suspects(checked)
    show(report(checked, found))
    if not known.no_figure:
        figure = _figure_path(checked, known.output)
        data_figure(figure, checked, found)
        print(f"\n{figure}")


def _figure_path(checked: Checked, output: Path | None) -> Path:
    """Path of the figure: in the folder of the data, or with a unique name in the given folder."""
    named = f"{checked.name.replace('/', '_')}_check.png"
    if output is not None:
        return output / named
    return checked.folder / ("data_check.png" if checked.metadata is not None else named)


def _source_flags(parser: argparse.ArgumentParser) -> None:
    flag(parser, "--data_path", type=Path, help="folder of the published files [downloads in the root]")
    flag(parser, "--base_url", nargs="+", default=[], metavar="URL", help="mirrors instead of the published address")
    flag(parser, "--ignore_checksum", action="store_true", help="accept a file with another size or sha256")
    flag(parser, "--dry_run", action="store_true", help="print the planned actions only")
    parser.add_argument("--seed", type=int, default=SEED, help=f"seed of the split [{SEED}]")


def _request(
    known: argparse.Namespace, size: str, contiguous: bool, script: str, arguments: Sequence[str] | None
) -> Request:
    stretch = Excerpt(
        getattr(known, "contiguous_frames", CONTIGUOUS_FRAMES),
        getattr(known, "contiguous_start", 0),
    )
    words = ["python", script, *(sys.argv[1:] if arguments is None else arguments)]
    return Request(
        size=size,
        contiguous=stretch if contiguous else None,
        seed=known.seed,
        test_frames=getattr(known, "test_frames", None),
        base_urls=tuple(known.base_url),
        from_file=getattr(known, "from_file", None),
        check_sum=not known.ignore_checksum,
        command=shlex.join(words),
    )


def _make_all(jobs: Sequence[tuple[PublishedSet, Request]], known: argparse.Namespace, root: Path) -> None:
    downloads = known.data_path or root / "downloads"
    if known.dry_run:
        print(_plan(jobs, downloads, root))
        return
    for published, request in jobs:
        folder = root / published.name / published.molecule / request.size
        dataset = make(published, request, downloads, root, _bar)
        if dataset is None:
            print(f"{folder}: is there already")
            continue
        frames = ", ".join(f"{name} {count:,}" for name, count in dataset.metadata.n_frames.items())
        print(f"{folder}: wrote {frames}")


def _plan(jobs: Sequence[tuple[PublishedSet, Request]], downloads: Path, root: Path) -> str:
    rows = []
    for published, request in jobs:
        folder = root / published.name / published.molecule / request.size
        remote = published.remote.at(request.base_urls) if request.base_urls else published.remote
        file = request.from_file or downloads / remote.name
        part = file.with_name(file.name + ".part")
        if (folder / "metadata.json").is_file():
            state = "there already"
        elif file.is_file():
            state = f"convert {file}"
        elif part.is_file():
            state = f"fetch {remote.urls[0]} from byte {part.stat().st_size:,} on, convert"
        else:
            size = f" ({remote.size_bytes:,} bytes)" if remote.size_bytes else ""
            state = f"fetch {remote.urls[0]}{size}, convert"
        rows.append([str(folder), state])
    return format_table(["data set", "to do"], rows)


def _bar(total: int | None, initial: int, description: str) -> AbstractContextManager[Any]:
    return Bar(total=total, initial=initial, desc=description, unit="B", unit_scale=True)
