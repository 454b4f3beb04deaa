"""The rule for parameter steps whose losses or gradient are not finite: they are skipped; too many end a training."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

from mdsim.errors import TrainingError

log = logging.getLogger("mdsim")

MOST_SKIPPED = 20  # consecutive skipped steps that end a training


def skipped_in_a_row(before: int, numbers: Mapping[str, float], remedy: str) -> int:
    """Count the consecutive skipped steps.

    Args:
        before: consecutive steps skipped until now.
        numbers: the losses of the next step and the norm of its gradient, by what they are.
        remedy: what to do about too many skipped steps.

    Returns:
        Zero if all numbers are finite: the step may be taken. Otherwise the count that includes it.

    Raises:
        TrainingError: too many steps have been skipped.
    """
    wrong = [name for name, number in numbers.items() if not math.isfinite(number)]
    if not wrong:
        return 0
    skipped = before + 1
    log.warning("not finite: %s: step skipped (%d in a row)", ", ".join(wrong), skipped)
    if skipped >= MOST_SKIPPED:
        raise TrainingError(f"{skipped} steps in a row had no finite {' or '.join(wrong)}: {remedy}")
    return skipped
