"""The report of a stress test as a page: checks, dynamics with survival curves, and energies along paths."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mdsim.reporting.figures import AFTER_COLOR, BEFORE_COLOR, DPI, save_figure, survival_figure
from mdsim.reporting.html.page import Block, Listing, Page, Picture, Section, Table, Text, write_page
from mdsim.stability.stable_times import survival_with_band
from mdsim.stress_test.findings import plain
from mdsim.stress_test.report import DYNAMICS_HEADER, dynamics_rows
from mdsim.stress_test.run import Result
from mdsim.stress_test.scans import Scan

REPORT = "report.html"
SURVIVAL, PATHS = "survival.png", "paths.png"
MOST_PATHS, COLUMNS = 9, 3
OUTCOMES = {True: "good", False: "bad"}


def write_report(folder: Path, result: Result) -> Path:
    """Draw the figures of a stress test and write its page. Returns the path of the page."""
    subtitle = f"{result.subject.name} on {result.structure.name} ({result.structure.formula})"
    sections = [
        Section("What to do", _advice(result)),
        Section("Checks", [_checks(result)]),
        Section("Dynamics", _dynamics(folder, result)),
        Section("Energies along paths", _paths(folder, result)),
        Section("Settings", [Listing("All settings", json.dumps(plain(result.settings), indent=2))]),
    ]
    page = Page("Stress test", result.verdict.sentence, sections, OUTCOMES[result.verdict.passed], subtitle)
    write_page(folder / REPORT, page)
    return folder / REPORT


def _advice(result: Result) -> list[Block]:
    return [Text(line) for line in (result.advice.sentence, result.advice.command) if line]


def _checks(result: Result) -> Table:
    words = {"pass": "ok", "warn": "warning", "fail": "FAILS", "skipped": "not done"}
    rows = [[finding.check, words[finding.level], finding.summary] for finding in result.findings]
    return Table("Each check, and its most important numbers", ["check", "state", "result"], rows)


def _dynamics(folder: Path, result: Result) -> list[Block]:
    if not result.outcomes:
        return []
    path = folder / SURVIVAL
    curves = {
        outcome.condition.title: survival_with_band(outcome.lifetimes, outcome.length_ps, rng=np.random.default_rng(0))
        for outcome in result.outcomes
    }
    survival_figure(path, curves)
    caption = "Fraction of replicas that are still stable (Kaplan-Meier), with 95 % intervals."
    alt = "Survival curves. " + "; ".join(
        f"{o.condition.title}: {o.n_broken} of {len(o.lifetimes.times)} replicas broke within {o.length_ps:.3g} ps"
        for o in result.outcomes
    )
    table = Table("Stable times, with 95 % intervals", DYNAMICS_HEADER, dynamics_rows(result))
    return [Picture(path, alt, caption), table]


def _paths(folder: Path, result: Result) -> list[Block]:
    if not result.scans:
        return []
    worst = sorted(result.scans, key=_badness, reverse=True)[:MOST_PATHS]
    path = folder / PATHS
    draw_paths(path, worst)
    bad = [scan for scan in result.scans if _badness(scan) > 0]
    shown = f"{len(worst)} of {len(result.scans)} paths, those with problems first"
    alt = f"Energies along {shown}. " + "; ".join(f"{scan.name}: {problem(scan)}" for scan in bad[:MOST_PATHS])
    blocks: list[Block] = [Picture(path, alt, f"Energies relative to the structure along {shown}, which are marked.")]
    if bad:
        rows = [[scan.name, scan.kind, problem(scan)] for scan in sorted(bad, key=_badness, reverse=True)]
        blocks.append(Table("Paths with problems", ["path", "kind", "problem"], rows, folded=len(rows) > MOST_PATHS))
    return blocks


def _badness(scan: Scan) -> float:
    """Problems come first, and among holes and missing walls the lowest barrier."""
    if scan.jump_eV is not None:
        return 1e3 + abs(scan.jump_eV)
    barriers = [
        barrier
        for barrier in (scan.barrier_eV if scan.hole_eV is not None else None, scan.wall_eV)
        if barrier is not None
    ]
    return 1 / (1e-3 + max(0.0, min(barriers))) if barriers else 0.0


def problem(scan: Scan) -> str:
    """What is wrong with a path, in words."""
    found = []
    if scan.jump_eV is not None and scan.jump_at is not None:
        found.append(f"the energy jumps by {1000 * abs(scan.jump_eV):.3g} meV at {scan.jump_at:.3g} {scan.unit}")
    if scan.kink_eV_per_A is not None and scan.kink_at is not None:
        found.append(f"the force jumps by {abs(scan.kink_eV_per_A):.3g} eV/Å at {scan.kink_at:.3g} {scan.unit}")
    if scan.hole_eV is not None and scan.hole_at is not None and scan.barrier_eV is not None:
        where = f"at {scan.hole_at:.3g} {scan.unit} behind a barrier of {scan.barrier_eV:.3g} eV"
        found.append(f"a hole of {scan.hole_eV:.3g} eV {where}")
    if scan.wall_eV is not None:
        found.append(f"the repulsion ends at {scan.wall_eV:.3g} eV")
    return "; ".join(found) or "none"


def draw_paths(path: Path, scans: Sequence[Scan]) -> None:
    """Energies along paths, a panel each. Jumps and holes are marked."""
    columns = min(COLUMNS, len(scans))
    rows = math.ceil(len(scans) / columns)
    figure = Figure(figsize=(max(3.2, 2.6 * columns), 2.0 * rows + 0.4), dpi=DPI, layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, scan in zip(grid, scans, strict=False):
        energies = np.array(scan.energy_eV, dtype=float)
        axes.plot(scan.coordinate, energies, color=AFTER_COLOR, linewidth=1.2)
        for place in (scan.jump_at, scan.hole_at):
            if place is not None:
                axes.axvline(place, color=BEFORE_COLOR, linewidth=1, linestyle=":")
        axes.set_title(scan.name, fontsize=8, loc="left")
        axes.set_xlabel(scan.unit, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[len(scans) :]:
        axes.remove()
    figure.supylabel("energy (eV)", fontsize=9)
    save_figure(figure, path)
