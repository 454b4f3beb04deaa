"""Advice that follows a verdict: one sentence, and a command to try."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from mdsim.models.registry import MODELS
from mdsim.stress_test.dynamics import Outcome
from mdsim.stress_test.findings import Finding
from mdsim.stress_test.subjects.base import Subject
from mdsim.stress_test.subjects.force_field import ForceFieldSubject
from mdsim.stress_test.verdict import Verdict

LONGER = 10


@dataclass(frozen=True)
class Advice:
    """What to do next."""

    sentence: str
    command: str | None


def advice_of(
    verdict: Verdict,
    findings: Sequence[Finding],
    outcomes: Sequence[Outcome],
    subject: Subject,
    arguments: Sequence[str],
    data: str | None,
) -> Advice:
    """The advice.

    Args:
        verdict, findings, outcomes: of the test.
        subject: what was tested.
        arguments: the model and structure on the command line, for commands that test again.
        data: the data set of the test.
    """
    again = f"mdsim stress-test {shlex.join(arguments)}"
    by_check = {finding.check: finding for finding in findings}
    match verdict.label:
        case "stable" | "stable_with_warnings":
            length = LONGER * max((outcome.length_ps for outcome in outcomes), default=1.0)
            return Advice(
                "Nothing broke in this time; rare failures need longer runs.", f"{again} --length-ps {length:g}"
            )
        case "unstable_timestep":
            steps = [o.condition.timestep_fs for o in outcomes if not o.n_broken]
            return Advice("Use the shorter time step.", f"{again} --timesteps-fs {min(steps):g}")
        case "unstable" | "holes":
            return _train(subject, outcomes, by_check, data)
        case "wrong_units":
            text = (
                "Convert energies and forces to eV and eV/Å where they are handed out; if the training data had the "
                "wrong unit, convert them again and refit."
            )
            return Advice(text, "mdsim data convert FRAMES --name NAME --molecule MOLECULE")
        case "non_conservative" | "inconsistent_forces":
            text = (
                "Use forces that are derivatives of the energy (a conservative head, if the model has one), or fit a "
                "model whose forces are; a thermostat only hides the heating."
            )
            return Advice(text, _fit(data))
        case "discontinuous" | "energy_drift":
            text = (
                "Shorter time steps do not help: the energy must be smooth. Let the potential vanish at its cutoff, or "
                "fit a model that does."
            )
            return Advice(text, _fit(data))
        case _:
            return Advice("Check the structure, its elements and its cell.", None)


def _fit(data: str | None) -> str:
    return f"mdsim init --data {shlex.quote(data or 'DATA')} --model schnet"


def _train(subject: Subject, outcomes: Sequence[Outcome], by_check: dict[str, Finding], data: str | None) -> Advice:
    """StABlE training, or new data for what cannot be trained here."""
    firsts = [name for outcome in outcomes for name, _ in outcome.first_coordinates()]
    contacts = any(name.startswith("contact") for name in firsts[:1]) or (
        "repulsion" in by_check and by_check["repulsion"].level == "fail"
    )
    prior = " Add a repulsion of nuclei to the model (`repulsion: {name: zbl}`), as contacts fail." if contacts else ""
    temperatures = [outcome.condition.temperature_K for outcome in outcomes if outcome.n_broken]
    at = f" --temperature-K {max(temperatures):g}" if temperatures else ""
    if isinstance(subject, ForceFieldSubject) and subject.model in MODELS:
        text = (
            "Train it against its own dynamics (StABlE training), which needs frames of the system but no new labels."
        )
        command = f"mdsim init --data {shlex.quote(data or 'DATA')} --model {subject.model}"
        return Advice(text + prior, f"{command} --checkpoint {shlex.quote(subject.name)}{at}")
    where = f" near {firsts[0]}" if firsts else ""
    text = (
        f"Add labeled structures{where} to its training data, or fit a model of mdsim and train that against its own "
        "dynamics."
    )
    return Advice(text + prior, _fit(data) + at)
