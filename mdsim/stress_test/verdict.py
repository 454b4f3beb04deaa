"""The verdict of a stress test: one label, the cause that explains most, and whether the test is passed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mdsim.reporting.console import format_interval
from mdsim.stress_test.conservativeness import DIFFERENT_UNITS, NO_GRADIENT
from mdsim.stress_test.dynamics import Outcome
from mdsim.stress_test.findings import Finding

Label = Literal[
    "not_finite",
    "wrong_units",
    "inconsistent_forces",
    "non_conservative",
    "discontinuous",
    "unstable",
    "unstable_timestep",
    "holes",
    "energy_drift",
    "stable_with_warnings",
    "stable",
]
PASSED = ("stable", "stable_with_warnings")


@dataclass(frozen=True)
class Verdict:
    """The verdict in one word and one sentence.

    Args:
        label: the cause.
        passed: the label is a good one, and a required stable time is reached.
        sentence: the verdict line.
    """

    label: Label
    passed: bool
    sentence: str


def verdict_of(findings: Sequence[Finding], outcomes: Sequence[Outcome], min_stable_ps: float | None) -> Verdict:
    """The verdict. Causes come before consequences: wrong units explain broken bonds.

    Args:
        findings: of all checks.
        outcomes: of all dynamics.
        min_stable_ps: time that every replica must be stable. None: none may break.
    """
    by_check = {finding.check: finding for finding in findings}
    label, why = _cause(by_check, outcomes)
    survived = summary(outcomes)
    passed = label in PASSED
    if min_stable_ps is not None:
        early = sum(int((o.lifetimes.broken & (o.lifetimes.times < min_stable_ps)).sum()) for o in outcomes)
        missed = early > 0 or any(o.length_ps < min_stable_ps * (1 - 1e-6) for o in outcomes)
        needed = f"; required: {min_stable_ps:g} ps, {'not reached' if missed else 'reached'}"
        passed = not missed and (passed or label in ("unstable", "unstable_timestep"))
        survived += needed
    head = {"stable": "STABLE", "stable_with_warnings": "STABLE, with warnings"}.get(label, f"FAILS ({label})")
    return Verdict(label, passed, f"{head}: {why}{'; ' if why and survived else ''}{survived}")


def summary(outcomes: Sequence[Outcome]) -> str:
    """Broken replicas and mean stable time of the worst dynamics."""
    if not outcomes:
        return ""
    worst = min(outcomes, key=lambda o: (float(o.lifetimes.times.mean()), o.condition.temperature_K))
    values = worst.as_json()
    low, high = values["mean_stable_ps_95"]
    if worst.n_broken == 0:
        total = sum(len(o.lifetimes.times) for o in outcomes)
        return f"none of {total} replicas broke within {worst.length_ps:.3g} ps"
    interval = format_interval(values["mean_stable_ps"], low, high, "ps")
    n = len(worst.lifetimes.times)
    where = f"{worst.n_broken} of {n} replicas broke within {worst.length_ps:.3g} ps at {worst.condition.title}"
    return f"{where} (mean stable time {interval})"


def _cause(by_check: dict[str, Finding], outcomes: Sequence[Outcome]) -> tuple[Label, str]:
    """The cause that explains most, and its finding."""

    def fails(check: str) -> bool:
        return check in by_check and by_check[check].level == "fail"

    def said(check: str) -> str:
        return by_check[check].summary

    broke = [outcome for outcome in outcomes if outcome.n_broken]
    if fails("start"):
        return "not_finite", said("start")
    if fails("forces"):
        return _of_forces(by_check["forces"], by_check.get("units"))
    if fails("units"):
        return "wrong_units", said("units")
    if fails("smoothness") and (fails("energy_drift") or not broke):
        return "discontinuous", said("smoothness")
    if broke:
        return _of_broken(broke, outcomes)
    for check in ("holes", "repulsion"):
        if fails(check):
            return "holes", said(check)
    if fails("energy_drift"):
        return "energy_drift", said("energy_drift")
    if any(finding.level == "warn" for finding in by_check.values()):
        return "stable_with_warnings", next(f.summary for f in by_check.values() if f.level == "warn")
    return "stable", ""


def _of_forces(forces: Finding, units: Finding | None) -> tuple[Label, str]:
    """Why forces and energies disagree."""
    if DIFFERENT_UNITS in forces.summary:
        both = units is not None and units.level == "fail"
        return "wrong_units", forces.summary + (f"; {units.summary}" if both and units is not None else "")
    return ("non_conservative" if NO_GRADIENT in forces.summary else "inconsistent_forces"), forces.summary


def _of_broken(broke: Sequence[Outcome], outcomes: Sequence[Outcome]) -> tuple[Label, str]:
    """What broke, and whether smaller time steps help."""
    intact = [outcome.condition.timestep_fs for outcome in outcomes if not outcome.n_broken]
    smallest = min(outcome.condition.timestep_fs for outcome in broke)
    same = {(o.condition.temperature_K, o.condition.ensemble) for o in broke}
    stable_at = [
        o.condition.timestep_fs
        for o in outcomes
        if not o.n_broken and (o.condition.temperature_K, o.condition.ensemble) in same
    ]
    if intact and stable_at and max(stable_at) < smallest:
        return "unstable_timestep", f"time steps of {smallest:g} fs are too long, {max(stable_at):g} fs are not"
    worst = max(broke, key=lambda o: (o.n_broken, -float(o.lifetimes.times.mean())))
    first = worst.first_coordinates()
    cause = f"{first[0][0]} leaves its range first" if first else f"{worst.reasons[0] or 'a criterion'} is met"
    return "unstable", cause
