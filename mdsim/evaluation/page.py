"""The page about one or several evaluations: its verdict and its sections."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdsim.evaluation.comparison import pooled, rows, stable_time_ratio
from mdsim.evaluation.endings import breaks_of
from mdsim.evaluation.replays import Kept, chosen, read_kept
from mdsim.evaluation.results import Results
from mdsim.evaluation.tables import cell, conditions, legend, thermostat_text
from mdsim.reporting.console import format_interval
from mdsim.reporting.html.page import Block, Listing, Page, Picture, Replays, Section, Table, Text
from mdsim.reporting.html.replay import MOST_COORDINATES

SURVIVAL, BREAKS = "survival", "breaks"
ABBREVIATIONS = ("rdf", "adf", "vacf")
TIMES = ("stable_time", "fraction_stable", "departure_time", "fraction_never")  # beginnings of keys of stability
MOST_ROWS, MOST_UNFOLDED = 60, 8
MOST_REPLAYS = 12
MOST_LISTED = 600_000  # characters of all files in a page


@dataclass(frozen=True)
class Evaluated:
    """Evaluations of one kind, such as those of several seeds, under one label."""

    label: str
    folders: tuple[Path, ...]
    results: Results


@dataclass(frozen=True)
class Drawn:
    """A figure that was drawn: survival curves, breaks, or the observables with these names."""

    path: Path
    title: str
    names: tuple[str, ...] = ()


def evaluation_page(evaluated: Sequence[Evaluated], drawn: Sequence[Drawn], trainings: Sequence[Path] = ()) -> Page:
    """The report of evaluations.

    Args:
        evaluated: one, or several to be compared.
        drawn: figures of them.
        trainings: figures of their training.
    """
    metrics = rows([one.results for one in evaluated])
    kept = {one.label: _kept(one) for one in evaluated}
    verdict, outcome = _verdict(evaluated)
    sections = [
        Section("Stability", _stability(evaluated, drawn, metrics)),
        Section("Breaks", _breaks(evaluated, drawn, kept)),
        Section("Replay", _replays(kept)),
        Section("Observables and errors", _observables(evaluated, drawn, metrics)),
        Section("Training", [training_picture(path) for path in trainings]),
        Section("Runs", [_runs(evaluated)]),
        Section("Configuration and provenance", [_origin(evaluated), *_files(evaluated)]),
    ]
    what = evaluated[0].folders[0].parent.parent.name
    title = f"Stability of {what}" if len(evaluated) == 1 else f"Comparison of {len(evaluated)} evaluations: {what}"
    return Page(title, verdict, sections, outcome, conditions(evaluated[0].results.summaries[0]))


def _kept(one: Evaluated) -> list[Kept]:
    pairs = zip(one.folders, one.results.summaries, strict=True)
    return [kept for folder, summary in pairs for kept in read_kept(folder, breaks_of(summary))]


def _broke(results: Results) -> str:
    broken = results.lifetimes.broken
    return f"{int(broken.sum())} of {len(broken)} replicas broke"


def _verdict(evaluated: Sequence[Evaluated]) -> tuple[str, str]:
    """The result in words, and whether it is good, bad or open."""
    if len(evaluated) == 1:
        return _verdict_of_one(evaluated[0].results)
    counts = "; ".join(f"{one.label}: {_broke(one.results)}" for one in evaluated)
    text = f"Within {evaluated[0].results.horizon_ps:g} ps, {counts}."
    if len(evaluated) > 2:
        return text, "open"
    first, second = evaluated
    ratio = stable_time_ratio(first.results, second.results)
    if ratio is None:
        return f"{text} The ratio of their mean stable times is unknown.", "open"
    interval = format_interval(ratio.estimate, ratio.low, ratio.high)
    outcome = "good" if ratio.low > 1 else "bad" if ratio.high < 1 else "open"
    words = {"good": "more stable", "bad": "less stable", "open": "not distinguishable from the first in stability"}
    name = second.label[:1].upper() + second.label[1:]
    costs = _costs(first.results, second.results)
    return f"{name} is {words[outcome]}: mean stable time × {interval}. {text}{costs}", outcome


def _costs(before: Results, after: Results) -> str:
    """The change of the force errors in words."""
    old, new = (pooled(one).get("force_mae_meV_per_A") for one in (before, after))
    if not old or not new:
        return ""
    return f" Its force MAE on the test frames is {new:.3g} meV/Å, from {old:.3g} ({100 * (new / old - 1):+.0f} %)."


def _verdict_of_one(results: Results) -> tuple[str, str]:
    summary, broken = pooled(results), results.lifetimes.broken
    if not broken.any():
        high = summary["break_rate_per_ns_high"]
        rate = "" if high is None else f" The 95 % interval of the rate of breaks is 0 to {high:.3g} per ns."
        count = f"None of {len(broken)} replicas" if len(broken) > 1 else "The only replica did not break:"
        verb = " broke within" if len(broken) > 1 else " stable for"
        return f"Stable: {count}{verb} {results.horizon_ps:g} ps.{rate}".replace("Stable: The", "The"), "good"
    mean = cell(summary, "stable_time_mean_ps")
    outcome = "bad" if 2 * broken.sum() >= len(broken) else "open"
    word = "Unstable" if outcome == "bad" else "Partly unstable"
    return f"{word}: {_broke(results)} within {results.horizon_ps:g} ps; mean stable time {mean} ps.", outcome


def _header(evaluated: Sequence[Evaluated]) -> list[str]:
    return ["quantity", *(one.label for one in evaluated), *(["change"] if len(evaluated) == 2 else [])]


def _stability(evaluated: Sequence[Evaluated], drawn: Sequence[Drawn], metrics: dict[str, list[str]]) -> list[Block]:
    counts = "; ".join(f"{one.label}: {_broke(one.results)}" for one in evaluated)
    mean = "; ".join(f"{one.label}: {cell(pooled(one.results), 'stable_time_mean_ps')} ps" for one in evaluated)
    alt = f"Survival curves: fraction of stable replicas over time. {counts}. Mean stable times: {mean}."
    caption = "Fraction of replicas that are still stable (Kaplan-Meier), with 95 % intervals."
    return [
        *[Picture(one.path, alt, caption) for one in drawn if one.title == SURVIVAL],
        Table("Stable times, with 95 % intervals", _header(evaluated), _some(metrics, stability=True)),
        Text(legend(pooled(evaluated[0].results), len(evaluated[0].folders))),
    ]


def _some(metrics: dict[str, list[str]], stability: bool) -> list[list[str]]:
    return [row for key, row in metrics.items() if key.startswith(TIMES) == stability]


def _breaks(evaluated: Sequence[Evaluated], drawn: Sequence[Drawn], kept: dict[str, list[Kept]]) -> list[Block]:
    if not any(one.results.lifetimes.broken.any() for one in evaluated):
        return [Text("No replica broke.")]
    counts = {
        one.label: Counter(each.reason for summary in one.results.summaries for each in breaks_of(summary))
        for one in evaluated
    }
    reasons = sorted({reason for count in counts.values() for reason in count})
    if not reasons:
        return [Text("Replicas broke, but these results do not say how (an earlier version).")]
    table = [[reason, *(str(count[reason]) for count in counts.values())] for reason in reasons]
    alt = "When replicas broke, by reason. " + "; ".join(
        f"{label}: {', '.join(f'{name} {n}' for name, n in count.most_common()) or 'none'}"
        for label, count in counts.items()
    )
    caption = "Each mark is the break of one replica; the number on the right counts them."
    return [
        *[Picture(one.path, alt, caption) for one in drawn if one.title == BREAKS],
        Table("Replicas that broke, by reason", ["reason", *counts], table),
        *_places(evaluated, kept),
        _each_break(evaluated, kept),
    ]


def _places(evaluated: Sequence[Evaluated], kept: dict[str, list[Kept]]) -> list[Block]:
    """The places where replicas broke, the most frequent ones first, as far as their frames were kept."""
    counts = {one.label: Counter(each.group for each in kept[one.label] if each.group) for one in evaluated}
    total = sum(counts.values(), Counter())
    if not total:
        return []
    table = [[place, *(str(count[place]) for count in counts.values())] for place, _ in total.most_common(MOST_ROWS)]
    note = (
        "The place is the bond whose length differs most from its median in the last frame that was kept, or the "
        "closest atoms of two molecules if these are what the criterion is about. Atoms are numbered from zero."
    )
    return [Table("Where they broke, by place in the last frame", ["place", *counts], table), Text(note)]


def _each_break(evaluated: Sequence[Evaluated], kept: dict[str, list[Kept]]) -> Table:
    """Every break, the first ones first."""
    found = []
    for one in evaluated:
        places = {(each.folder, each.replica): f"{each.place}{each.change}" for each in kept[one.label] if each.broke}
        for folder, summary in zip(one.folders, one.results.summaries, strict=True):
            for one_break in breaks_of(summary):
                name = f"replica {one_break.replica}" + (f" of {one.label}" if len(evaluated) > 1 else "")
                place = places.get((folder, one_break.replica), "-")
                time = one_break.stable_time_ps
                found.append((time, [name, f"{time:.3f}", one_break.reason, place, one_break.departed_by or "-"]))
    found.sort(key=lambda entry: entry[0])
    header = ["replica", "stable (ps)", "reason", "place, with its length", "left the support first by"]
    more = f", the first {MOST_ROWS} of {len(found)}" if len(found) > MOST_ROWS else ""
    shown = [row for _, row in found[:MOST_ROWS]]
    return Table(f"All breaks in order of time{more}", header, shown, folded=len(found) > MOST_UNFOLDED)


def _replays(kept: dict[str, list[Kept]]) -> list[Block]:
    """Replays of some replicas of each evaluation, which share the space that there is in a page."""
    shown = [(label, each) for label, some in kept.items() for each in chosen(some)][:MOST_REPLAYS]
    if not shown:
        return [Text("No frames were kept.")]
    share = MOST_COORDINATES // len(shown)
    found = [one for label, each in shown if (one := each.replay(label if len(kept) > 1 else "", share)) is not None]
    if not found:
        return [Text("The system is too large to be shown here; the frames are in trajectories/.")]
    return [Replays(found)]


def _observables(evaluated: Sequence[Evaluated], drawn: Sequence[Drawn], metrics: dict[str, list[str]]) -> list[Block]:
    summaries = [pooled(one.results) for one in evaluated]
    blocks: list[Block] = [
        Table("Errors against the reference, with 95 % intervals", _header(evaluated), _some(metrics, stability=False))
    ]
    for one in (figure for figure in drawn if figure.names):
        errors = [
            f"{name.replace('_', ' ')} of {each.label}: {cell(summary, f'{name}_mae')}"
            for name in one.names
            for each, summary in zip(evaluated, summaries, strict=True)
        ]
        title = _title(one.title)
        alt = f"{title} of the simulations and of the reference. Mean absolute errors: {'; '.join(errors)}."
        blocks.append(Picture(one.path, alt, f"{title} against the reference, shaded: ± 2 standard errors."))
    return blocks


def _title(name: str) -> str:
    """Name of an observable at the beginning of a sentence: RDF OH, Bond length distribution OH."""
    kind, *others = name.split()
    return " ".join([kind.upper() if kind in ABBREVIATIONS else kind.capitalize(), *others])


def training_picture(path: Path) -> Picture:
    """A figure of a training, of all its scalars or of its course."""
    name = path.parent.name
    if path.stem == "phases":
        words = "fraction of unstable replicas, mean stable time, and losses over the epochs of exploring and learning"
        return Picture(path, f"The course of the training {name}: {words}.", f"Course of the training {name}.")
    alt = f"The scalars that the training {name} recorded, one panel each, over its epochs."
    return Picture(path, alt, f"All scalars of the training {name}.")


def _runs(evaluated: Sequence[Evaluated]) -> Table:
    found = []
    for one in evaluated:
        for number, (folder, summary) in enumerate(zip(one.folders, one.results.summaries, strict=True), start=1):
            lives = one.results.groups[number - 1]
            name = one.label if len(one.folders) == 1 else f"{one.label}, {number}"
            mean = cell(summary, "stable_time_mean_ps")
            counts = [f"{summary['replicas']}", f"{int(lives.broken.sum())}", f"{summary['horizon_ps']:g}", mean]
            found.append([name, folder.parent.parent.name, *counts, str(summary.get("checkpoint", "-"))])
    header = ["evaluation", "run", "replicas", "broke", "length (ps)", "mean stable time (ps)", "checkpoint"]
    return Table("Evaluations in this report", header, found)


def _origin(evaluated: Sequence[Evaluated]) -> Table:
    """What is known of the origin of each evaluation: a column each."""
    summaries = [(one.label, summary) for one in evaluated for summary in one.results.summaries]
    found = {
        "checkpoint (sha256)": [str(s.get("checkpoint_sha256", "-"))[:16] for _, s in summaries],
        "seed": [str(s.get("seed", "-")) for _, s in summaries],
        "temperature (K)": [f"{s['temperature_K']:g}" for _, s in summaries],
        "thermostat": [_thermostat(s) for _, s in summaries],
        "time step (fs)": [str(s.get("timestep_fs", "-")) for _, s in summaries],
    }
    found["commit of mdsim"] = [str(s.get("commit") or "-") for _, s in summaries]
    versions = [s["versions"] if isinstance(s.get("versions"), dict) else {} for _, s in summaries]
    for name in dict.fromkeys(name for each in versions for name in each):
        found[f"{name} version"] = [str(each.get(name, "-")) for each in versions]
    header = ["", *(label for label, _ in summaries)]
    return Table("Origin of the results", header, [[name, *cells] for name, cells in found.items()])


def _thermostat(summary: dict[str, Any]) -> str:
    found = summary.get("thermostat")
    return thermostat_text(found) if isinstance(found, dict) else "-"


def _files(evaluated: Sequence[Evaluated]) -> list[Block]:
    """The configuration of each evaluation, its inputs, and its metrics."""
    blocks: list[Block] = []
    most = MOST_LISTED // (3 * sum(len(one.folders) for one in evaluated))
    for one in evaluated:
        for folder, summary in zip(one.folders, one.results.summaries, strict=True):
            name = f"{folder.parent.parent.name}/{folder.name}"
            for file in ("config.yml", "inputs.json"):
                if (found := listing(folder / file, name, most)) is not None:
                    blocks.append(found)
            blocks.append(Listing(f"All metrics of {name}", _shortened(json.dumps(summary, indent=2), most)))
    return blocks


def listing(path: Path, name: str, most: int = MOST_LISTED // 2) -> Listing | None:
    """The text of a file of a run, up to so many characters, or None if there is no such file."""
    if not path.is_file():
        return None
    return Listing(f"{path.name} of {name}", _shortened(path.read_bytes().decode(errors="replace"), most))


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}\n... ({len(text) - most} more characters are in the file)"
