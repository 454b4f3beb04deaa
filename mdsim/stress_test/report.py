"""The report of a stress test: plain data for `stress_test.json`, and text for the console."""

from __future__ import annotations

from typing import Any

import mdsim
from mdsim.reporting.console import format_interval, format_table
from mdsim.stress_test import scans
from mdsim.stress_test.findings import plain
from mdsim.stress_test.run import Result

FORMAT, VERSION = "mdsim stress test", 1
MOST_FIRST = 2
DYNAMICS_HEADER = ["dynamics", "broke", "mean stable time", "score", "first"]


def as_json(result: Result) -> dict[str, Any]:
    """The content of `stress_test.json`. Its keys are documented in `docs/stress_test.md`."""
    return plain(
        {
            "format": FORMAT,
            "version": VERSION,
            "mdsim": mdsim.__version__,
            "model": {"name": result.subject.name, "kind": result.subject.kind},
            "structure": {
                "file": result.structure.name,
                "formula": result.structure.formula,
                "n_atoms": result.structure.system.n_atoms,
                "periodic": result.structure.system.cell is not None,
                "n_covalent_bonds": len(result.structure.topology.bonds),
                "n_structures": len(result.structure.positions),
            },
            "settings": result.settings,
            "verdict": {
                "label": result.verdict.label,
                "passed": result.verdict.passed,
                "sentence": result.verdict.sentence,
                "advice": result.advice.sentence,
                "command": result.advice.command,
            },
            "findings": [finding.as_json() for finding in result.findings],
            "dynamics": [outcome.as_json() for outcome in result.outcomes],
            "scans": scans.as_json(result.scans),
            "wall_s": result.wall_s,
        }
    )


def as_text(result: Result) -> str:
    """The report for the console: findings, dynamics, verdict and advice."""
    marks = {"pass": "ok", "warn": "WARN", "fail": "FAIL", "skipped": "-"}
    checks = format_table(["check", "", "result"], [[f.check, marks[f.level], f.summary] for f in result.findings])
    parts = [
        f"{result.subject.name} ({result.subject.kind}), {result.structure.name}: {result.structure.formula}",
        checks,
    ]
    if result.outcomes:
        parts.append(format_table(DYNAMICS_HEADER, dynamics_rows(result)))
    parts.append(result.verdict.sentence)
    parts.append(result.advice.sentence + (f"\n  {result.advice.command}" if result.advice.command else ""))
    return "\n\n".join(parts)


def dynamics_rows(result: Result) -> list[list[str]]:
    """The cells below `DYNAMICS_HEADER`, a row for each condition."""
    rows = []
    for outcome in result.outcomes:
        values = outcome.as_json()
        low, high = values["mean_stable_ps_95"]
        mean = format_interval(values["mean_stable_ps"], low, high, "ps")
        end = f" of {outcome.length_ps:.3g}"
        first = ", ".join(f"{name} ({count})" for name, count in outcome.first_coordinates()[:MOST_FIRST])
        broke = f"{outcome.n_broken}/{len(outcome.lifetimes.times)}"
        rows.append([outcome.condition.title, broke, mean + end, f"{values['mlipaudit_score']:.2f}", first])
    return rows
