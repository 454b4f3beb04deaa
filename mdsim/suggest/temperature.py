"""The temperature of the dynamics, and its source."""

from __future__ import annotations

from dataclasses import dataclass

from mdsim.datasets.inspection.check import Checked
from mdsim.datasets.inspection.report import mean_temperature_K
from mdsim.errors import DatasetError


@dataclass(frozen=True)
class Temperature:
    """The temperature of the dynamics and its source."""

    value_K: float
    source: str
    of_data_K: float | None  # of the frames, if stated in their metadata


def temperature_of(checked: Checked, asked_K: float | None) -> Temperature:
    """The temperature from the argument, the metadata, or the velocities, in this order.

    Raises:
        DatasetError: none of these is available.
    """
    stated_K = checked.temperature_K
    if asked_K is not None:
        return Temperature(asked_K, "asked for", stated_K)
    if stated_K is not None:
        return Temperature(stated_K, "that of the data, by metadata.json", stated_K)
    for part in ("contiguous", "train", "test"):
        frames = checked.parts.get(part)
        if frames is not None and frames.velocities is not None:
            kelvin, free = mean_temperature_K(frames, checked)
            return Temperature(float(round(kelvin)), f"by equipartition over {free:.0f} momenta of {part}.npz", None)
    raise DatasetError(
        f"{checked.folder}: metadata.json states no temperature, and there are no velocities to take it from; say"
        " --temperature-K, the temperature of the dynamics that generated the frames"
    )
