"""Tables of metrics on the console: quantities as rows, evaluations as columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mdsim.evaluation.measures import ENDINGS, error_units
from mdsim.evaluation.metrics import interval_methods
from mdsim.evaluation.observable_metrics import BULK_MODULUS, DIFFUSIVITY_UNIT, ENERGY_OFFSET, MEAN_OF
from mdsim.reporting.console import format_interval, format_table

#: Endings of keys of means and of their references, and how labels go on.
MEANS = {
    f"{MEAN_OF}{reference}{ending}": words + ("" if unit == "1" else f" ({unit})")
    for reference, words in (("", ""), ("_reference", " of the reference"))
    for unit, ending in ENDINGS.items()
}
MOST_SHOWN = 5  # coordinates listed below a table


def table(summaries: dict[str, dict[str, Any]]) -> str:
    """Table with one row per quantity and one column per evaluation."""
    first = next(iter(summaries.values()))
    units = error_units(first)
    rows = [
        [label(key, units), *(cell(summary, key) for summary in summaries.values())]
        for key in first
        if is_shown(key, first)
    ]
    lines = [conditions(first), format_table(["", *summaries], rows), legend(first), ended_by(first)]
    return "\n".join(line for line in lines if line)


def conditions(summary: dict[str, Any]) -> str:
    """The conditions under which stable times were measured, in one line. Old results do not state all of them."""
    parts = [f"{summary['temperature_K']:g} K"] if "temperature_K" in summary else []
    if isinstance(thermostat := summary.get("thermostat"), dict):
        parts.append(thermostat_text(thermostat))
    if isinstance(barostat := summary.get("barostat"), dict):
        parts.append(barostat_text(barostat))
    if (timestep_fs := summary.get("timestep_fs")) is not None:
        parts.append(f"time step {timestep_fs:g} fs")
    return ", ".join(parts)


def thermostat_text(thermostat: Mapping[str, Any]) -> str:
    """Name and settings of an integrator, such as ``langevin (friction 0.1 per ps)``."""
    settings = ((key.replace("_", " "), value) for key, value in thermostat.items() if key != "name")
    shown = [
        f"{key.removesuffix(' per ps')} {value}{'/ps' if key.endswith(' per ps') else ''}" for key, value in settings
    ]
    return f"{thermostat.get('name', '')} ({', '.join(shown)})" if shown else str(thermostat.get("name", ""))


def barostat_text(barostat: Mapping[str, Any]) -> str:
    """Pressure, if stated, and method of a barostat: ``1 bar, cell_rescaling (relaxation time 1.0 ps, ...)``."""
    settings = thermostat_text({key: value for key, value in barostat.items() if key != "pressure_bar"})
    return f"{barostat['pressure_bar']:g} bar, {settings}" if "pressure_bar" in barostat else settings


def ended_by(summary: dict[str, Any]) -> str:
    """What ended the stability of the replicas, in one line."""
    kinds = (("broke by", "reasons_unstable"), ("left the support first by", "departed_by"))
    found = []
    for verb, key in kinds:
        if counts := summary.get(key):
            most = sorted(counts.items(), key=lambda item: -item[1])
            shown = ", ".join(f"{name} ({count})" for name, count in most[:MOST_SHOWN])
            found.append(f"{verb}: {shown}{', ...' if len(most) > MOST_SHOWN else ''}")
    return "; ".join(found)


def legend(summary: dict[str, Any], n_groups: int = 1) -> str:
    """Footnote of a table: the methods of its intervals."""
    methods = interval_methods(n_groups)
    shown = {
        "mean times": (methods["stable_time_mean_ps"], "stable_time_mean_ps" in summary),
        "fractions": (methods["fraction_stable_to_end"], "fraction_stable_to_end" in summary),
        "observables": (methods["observables"], any(key.endswith("_mae") for key in summary)),
        "diffusivity": (methods["diffusivity"], any(key.endswith(DIFFUSIVITY_UNIT) for key in summary)),
    }
    return "95 % intervals: " + "; ".join(f"{name}: {method}" for name, (method, there) in shown.items() if there)


def is_shown(key: str, summary: dict[str, Any]) -> bool:
    """Whether a key has a row in tables: the keys listed below, and keys with an interval."""
    has_interval = f"{key}_low" in summary or f"{key.replace(f'{MEAN_OF}_reference', MEAN_OF)}_low" in summary
    return key in SHOWN or (key.endswith(("_mae", DIFFUSIVITY_UNIT, *MEANS)) and has_interval)


SHOWN = {
    "stable_time_mean_ps": "mean stable time (ps)",
    "stable_time_median_ps": "median stable time (ps)",
    "fraction_stable_to_end": "fraction stable to the end",
    "departure_time_mean_ps": "mean time within the support (ps)",
    "departure_time_median_ps": "median time within the support (ps)",
    "fraction_never_departed": "fraction within the support to the end",
    BULK_MODULUS: "bulk modulus (GPa)",
    ENERGY_OFFSET: "potential energy - labels (meV)",
    "energy_mae_meV": "energy MAE (meV)",
    "force_mae_meV_per_A": "force MAE (meV/Å)",
}


def label(key: str, units: Mapping[str, str] | None = None) -> str:
    """Label of a key in tables, with the units of errors by observable."""
    if ending := next((ending for ending in MEANS if key.endswith(ending)), None):
        return f"mean {key.removesuffix(ending).replace('_', ' ')}{MEANS[ending]}"
    unit = (units or {}).get(key.removesuffix("_mae"))
    if key.endswith(DIFFUSIVITY_UNIT):
        return key.removesuffix(DIFFUSIVITY_UNIT).replace("_", " ") + " (1e-9 m²/s)"
    error = key.removesuffix("_mae").upper().replace("_", " ") + " MAE" + (f" ({unit})" if unit else "")
    return SHOWN.get(key, error)


def cell(summary: dict[str, Any], key: str) -> str:
    """Text of a value with its interval, if it has one."""
    value = summary.get(key)
    if value is None:
        return "not reached" if key in summary and key.endswith("_time_median_ps") else "-"
    low, high = summary.get(f"{key}_low"), summary.get(f"{key}_high")
    if low is not None and high is not None:
        return format_interval(value, low, high)
    return f"{value:.3g}"
