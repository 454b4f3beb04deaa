"""A stress test from beginning to end, within a budget of time."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch

from mdsim.dynamics.velocities import maxwell_boltzmann
from mdsim.errors import ConfigError
from mdsim.interfaces import Potential
from mdsim.reporting.live import COMPILES, waiting
from mdsim.stress_test import conservativeness, drift, dynamics, paths, scans, stiffness
from mdsim.stress_test.advice import Advice, advice_of
from mdsim.stress_test.budget import Budget, affordable_ps, seconds
from mdsim.stress_test.compression import compressed
from mdsim.stress_test.criteria import criteria_of, ranges_of
from mdsim.stress_test.findings import Finding
from mdsim.stress_test.noise import energy_noise_eV
from mdsim.stress_test.structure import Structure
from mdsim.stress_test.subjects.base import Subject
from mdsim.stress_test.verdict import Verdict, verdict_of
from mdsim.typing import Float, Tensor

log = logging.getLogger("mdsim")

LARGE_FORCE_EV_PER_A = 10.0
SHORT_PS = 1.0  # dynamics that is too short for a verdict of "stable" without a warning


@dataclass(frozen=True)
class Plan:
    """The settings of a stress test.

    Args:
        temperatures_K: of the dynamics. A ramp heats from the first to the last.
        timesteps_fs: of the dynamics.
        ensemble: nvt, nve or ramp.
        n_replicas: per temperature and time step.
        length_ps: of the dynamics. None: as long as the budget allows, at most 10 ps.
        budget_s: approximate time of the whole test, unless a length is given.
        compression_percent: also run in a cell whose edges are shorter by this.
        min_stable_ps: time that every replica must be stable.
        seed: of velocities, noise and directions.
    """

    temperatures_K: tuple[float, ...] = (300.0, 500.0)
    timesteps_fs: tuple[float, ...] = (0.5,)
    ensemble: dynamics.Ensemble = "nvt"
    n_replicas: int = 8
    length_ps: float | None = None
    budget_s: float = 300.0
    compression_percent: float = 0.0
    min_stable_ps: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Result:
    """Everything that a stress test found."""

    subject: Subject
    structure: Structure
    settings: dict[str, Any]
    findings: list[Finding]
    outcomes: list[dynamics.Outcome]
    scans: list[scans.Scan]
    verdict: Verdict
    advice: Advice
    wall_s: float = field(default=0.0)


def stress_test(
    subject: Subject,
    structure: Structure,
    plan: Plan,
    reference: Float[Tensor, "frame atom 3"] | None = None,
    arguments: Sequence[str] = (),
    data: str | None = None,
) -> Result:
    """Examine a force field.

    Args:
        subject: the force field.
        structure: where it is tested.
        plan: settings.
        reference: frames of the same system (Å), which give the ranges of coordinates.
        arguments: the model and structure as on the command line, for the advice.
        data: name of the data set of the reference, for the advice.
    """
    begun = time.perf_counter()
    if plan.compression_percent and structure.system.cell is None:
        raise ConfigError("--compress-percent: the structure has no cell; open systems are tested by approaching pairs")
    precise = subject.potential(structure.system, precise=True)
    with waiting(f"first forces; {COMPILES}"):
        start = _start(precise, structure)
    findings, outcomes, scanned = [start], list[dynamics.Outcome](), list[scans.Scan]()
    lengths: dict[str, float] = {}
    if start.level != "fail":
        noise_eV = energy_noise_eV(precise, structure.reference, torch.Generator().manual_seed(plan.seed))
        structure_s = seconds(precise, structure.reference, plan.n_replicas) / plan.n_replicas
        budget = Budget(plan.budget_s, structure_s)
        with waiting("forces, units and scans"):
            scanned = _static(precise, structure, plan, budget, noise_eV, findings)
        with waiting("energy conservation"):
            findings.append(_drift(precise, structure, plan, budget, noise_eV))
        outcomes = _dynamics(subject, structure, plan, reference, lengths)
        findings.append(_survival(outcomes))
    verdict = verdict_of(findings, outcomes, plan.min_stable_ps)
    advice = advice_of(verdict, findings, outcomes, subject, arguments, data)
    settings = asdict(plan) | lengths | {"reference_frames": 0 if reference is None else len(reference)}
    wall_s = time.perf_counter() - begun
    return Result(subject, structure, settings, findings, outcomes, scanned, verdict, advice, wall_s)


def _start(potential: Potential, structure: Structure) -> Finding:
    """Energies and forces of the structure itself."""
    energy, forces = potential(structure.reference[None])
    largest = float(forces.abs().max())
    values = {"energy_eV": float(energy[0]), "largest_force_eV_per_A": largest}
    if not bool(torch.isfinite(energy).all() and torch.isfinite(forces).all()):
        return Finding("start", "fail", "the energy or a force of the structure itself is not a number", values)
    if largest > LARGE_FORCE_EV_PER_A:
        text = f"forces on the structure reach {largest:.3g} eV/Å: it is far from a minimum of this force field"
        return Finding("start", "warn", text, values)
    return Finding("start", "pass", f"forces on the structure are at most {largest:.2g} eV/Å", values)


def _static(
    potential: Potential, structure: Structure, plan: Plan, budget: Budget, noise_eV: float, findings: list[Finding]
) -> list[scans.Scan]:
    """Forces, units and scans."""
    generator = torch.Generator().manual_seed(plan.seed)
    noise = torch.randn(2, *structure.reference.shape, generator=generator, dtype=torch.float64)
    displaced = structure.reference + conservativeness.DISPLACEMENT_A * noise
    findings.append(conservativeness.judge(conservativeness.force_errors(potential, displaced, noise_eV, generator)))
    findings.append(stiffness.judge(stiffness.stiffness(potential, structure)))
    sizes = budget.scans()
    chosen = [
        *paths.stretches(structure, sizes.most_of_a_kind, sizes.points),
        *paths.bends(structure, sizes.most_of_a_kind, sizes.points),
        *paths.approaches(structure, sizes.most_of_a_kind, sizes.points),
        *paths.lines(structure, generator, sizes.lines, sizes.line_points),
    ]
    if structure.system.cell is None:
        chosen.append(paths.breathing(structure, sizes.line_points))
    found = scans.scan(potential, chosen, noise_eV)
    findings += scans.judge(found, max(plan.temperatures_K))
    return found


def _drift(potential: Potential, structure: Structure, plan: Plan, budget: Budget, noise_eV: float) -> Finding:
    """Energy conservation from equilibrated replicas at the first temperature."""
    timesteps = [max(plan.timesteps_fs) * fraction for fraction in drift.FRACTIONS]
    log.info("stress test: energy conservation at %s fs", ", ".join(f"{t:g}" for t in timesteps))
    sizes, system, temperature_K = budget.drift(timesteps), structure.system, plan.temperatures_K[0]
    generator = torch.Generator().manual_seed(plan.seed)
    positions = structure.reference.expand(sizes.n_replicas, -1, -1).clone()
    velocities = maxwell_boltzmann(system, sizes.n_replicas, temperature_K, generator, positions=positions)
    state = dynamics.equilibrated(
        system, potential, positions, velocities, temperature_K, max(timesteps), generator, sizes.equilibration_ps
    )
    start = state.positions, state.velocities
    return drift.judge(drift.energy_drift(system, potential, *start, timesteps, sizes.length_ps, noise_eV))


def conditions_of(plan: Plan) -> list[dynamics.Condition]:
    """All combinations of temperature, time step and compression."""
    squeezes = [0.0, plan.compression_percent] if plan.compression_percent else [0.0]
    if plan.ensemble == "ramp":
        if len(plan.temperatures_K) < 2:
            raise ConfigError("--ensemble ramp: heats between two temperatures; give both, --temperatures-K 300 1000")
        spans: list[tuple[float, float | None]] = [(plan.temperatures_K[-1], plan.temperatures_K[0])]
    else:
        spans = [(temperature_K, None) for temperature_K in plan.temperatures_K]
    return [
        dynamics.Condition(plan.ensemble, temperature_K, timestep_fs, start_K, squeeze)
        for squeeze in squeezes
        for temperature_K, start_K in spans
        for timestep_fs in plan.timesteps_fs
    ]


def _dynamics(
    subject: Subject, structure: Structure, plan: Plan, reference: Tensor | None, lengths: dict[str, float]
) -> list[dynamics.Outcome]:
    """Dynamics at all conditions."""
    conditions = conditions_of(plan)
    support = ranges_of(structure, reference)
    found = []
    for squeeze in dict.fromkeys(condition.compression_percent for condition in conditions):
        squeezed = compressed(structure, squeeze) if squeeze else structure
        potential = subject.potential(squeezed.system)
        positions = squeezed.positions.to(subject.device, subject.dtype)
        if "length_ps" not in lengths:
            lengths["length_ps"] = _length_ps(potential, positions[0], plan, conditions)
        setting = dynamics.Setting(
            squeezed.system.to(subject.device, subject.dtype),
            squeezed.topology.to(dtype=subject.dtype),
            positions,
            support,
            partial(criteria_of, squeezed),
            plan.n_replicas,
            plan.seed,
        )
        for condition in conditions:
            if condition.compression_percent == squeeze:
                found.append(_one(setting, potential, condition, lengths["length_ps"]))
    return found


def _one(
    setting: dynamics.Setting, potential: Potential, condition: dynamics.Condition, length_ps: float
) -> dynamics.Outcome:
    """Dynamics at one condition, with messages in the log."""
    log.info("stress test: %s, %d replicas, %.3g ps", condition.title, setting.n_replicas, length_ps)
    outcome = dynamics.run(setting, potential, condition, length_ps)
    log.info("stress test: %s: %d of %d replicas broke", condition.title, outcome.n_broken, setting.n_replicas)
    return outcome


def _length_ps(potential: Potential, start: Tensor, plan: Plan, conditions: Sequence[dynamics.Condition]) -> float:
    """Length of the dynamics: that of the plan, or what its budget allows."""
    if plan.length_ps is not None:
        return plan.length_ps
    if plan.min_stable_ps is not None:
        return plan.min_stable_ps
    step_s = seconds(potential, start, plan.n_replicas)
    return affordable_ps(plan.budget_s, step_s, [condition.timestep_fs for condition in conditions])


def _survival(outcomes: Sequence[dynamics.Outcome]) -> Finding:
    """The finding on the dynamics."""
    broken, total = sum(o.n_broken for o in outcomes), sum(len(o.lifetimes.times) for o in outcomes)
    reasons = sorted({reason for o in outcomes for reason in o.reasons if reason is not None})
    values = {"n_broken": broken, "n_replicas": total, "reasons": reasons}
    text = f"{broken} of {total} replicas broke" + (f" ({', '.join(reasons)})" if reasons else "")
    shortest_ps = min(o.length_ps for o in outcomes)
    if not broken and shortest_ps < SHORT_PS * (1 - 1e-6):
        text += f", but {shortest_ps:.2g} ps are too short to say much: raise --budget-minutes, or give --length-ps"
        return Finding("dynamics", "warn", text, values)
    return Finding("dynamics", "fail" if broken else "pass", text, values)
