"""Dynamical observables supported by the contiguous frames of a data set, and the evaluation window for them."""

from __future__ import annotations

from mdsim.models.record import Chosen
from mdsim.suggest.choices import Section
from mdsim.suggest.findings import Contiguous, Findings

LONGEST_VACF_FS = 100.0
COARSEST_VACF_FS = 5.0  # frames further apart do not resolve vibrations
FEWEST_LAGS = 10
DUMP_EVERY_FS = (20, 25, 40, 50, 100)
FEWEST_MOLECULES = 16  # of a liquid, to measure diffusion
DIFFUSION_PS = (1.0, 10.0)  # lags of displacements, between the ballistic regime and poor statistics


def frames_every_steps(found: Findings, step_fs: float) -> int | None:
    """Steps between frames of the dense window: the smallest multiple of the contiguous interval."""
    contiguous = found.contiguous
    if contiguous is None or contiguous.n_frames < FEWEST_LAGS or not contiguous.have_velocities:
        return None
    for steps in range(1, 101):
        ratio = steps * step_fs / contiguous.interval_fs
        if round(ratio) >= 1 and abs(ratio - round(ratio)) < 1e-9:
            return steps
    return None


def dump_every_steps(found: Findings, step_fs: float) -> int:
    """Steps between kept frames: 20 fs, or slightly more if the dense window requires a multiple."""
    dense = frames_every_steps(found, step_fs) or 1
    options = [round(interval / step_fs) for interval in DUMP_EVERY_FS]
    stretch = round(500 / step_fs)
    return next((option for option in options if option % dense == 0 and stretch % option == 0), options[0])


def dense_window(found: Findings, step_fs: float, epochs: int, steps_per_epoch: int) -> Section:
    """Dynamical observables and their window. Empty without contiguous frames."""
    dense = frames_every_steps(found, step_fs)
    contiguous = found.contiguous
    if contiguous is None or dense is None or dump_every_steps(found, step_fs) % dense:
        return {}
    observables = _vacf(contiguous, dense * step_fs, steps_per_epoch * step_fs)
    diffusivity = _diffusivity(found, contiguous, epochs * steps_per_epoch * step_fs / 1000)
    if not observables + diffusivity:
        return {}
    window = epochs if diffusivity else 1
    interval = f"{dense * step_fs:g} fs; the contiguous frames are {contiguous.interval_fs:g} fs apart"
    return {
        "dynamical_observables": observables + diffusivity,
        "dense_window": {
            "epochs": Chosen(window, "the whole run: displacements need it" if diffusivity else "the first stretch"),
            "dump_every_steps": Chosen(dense, interval),
        },
    }


def _vacf(contiguous: Contiguous, interval_fs: float, window_fs: float) -> list[Chosen]:
    stride = round(interval_fs / contiguous.interval_fs)
    available_fs = (contiguous.n_frames // stride // 2) * interval_fs
    lag_fs = min(LONGEST_VACF_FS, available_fs, window_fs / 2) // interval_fs * interval_fs
    if interval_fs > COARSEST_VACF_FS or lag_fs < FEWEST_LAGS * interval_fs:
        return []
    return [Chosen({"name": "vacf", "max_lag_fs": lag_fs}, f"contiguous frames cover {contiguous.length_ps:.3g} ps")]


def _diffusivity(found: Findings, contiguous: Contiguous, horizon_ps: float) -> list[Chosen]:
    start_ps, end_ps = DIFFUSION_PS
    end_ps = min(end_ps, contiguous.length_ps / 2, horizon_ps / 4)
    if not found.is_liquid or found.system.n_molecules < FEWEST_MOLECULES or end_ps < 2 * start_ps:
        return []
    water = set(found.system.atomic_numbers.tolist()) == {1, 8}
    value: Section = {
        "name": "diffusivity",
        "fit_start_fs": 1000.0 * start_ps,
        "fit_end_fs": float(round(1000 * end_ps)),
    }
    value |= {"element": "O"} if water else {"viscosity_mPa_s": None}
    why = (
        "corrected with the viscosity of water" if water else "viscosity_mPa_s of your liquid corrects for the box size"
    )
    return [Chosen(value, why)]
