"""The runs behind the scripts: pretraining, StABlE training, evaluation, prediction and comparison."""

from __future__ import annotations

import numpy as np
import torch

from mdsim.assembly.runs.evaluation import build_evaluation, compare, draw_report, evaluate
from mdsim.assembly.runs.prediction import predict
from mdsim.assembly.runs.pretraining import pretrain, report_fit, validate
from mdsim.assembly.runs.stable import build_stable_training, train_stable

__all__ = [
    "build_evaluation",
    "build_stable_training",
    "compare",
    "draw_report",
    "evaluate",
    "flush_denormals",
    "predict",
    "pretrain",
    "report_fit",
    "train_stable",
    "validate",
]


def flush_denormals() -> None:
    """Flush numbers below 1e-38 (1e-308 in float64) to zero, in this thread and those it starts.

    The far tails of Gaussian basis functions are such denormal numbers. A CPU is a hundred times slower on them, and a
    fit of SchNet takes twice as long.
    """
    for dtype in (np.float32, np.float64):
        np.finfo(dtype)  # cached now, because numpy would warn later that the smallest number is zero
    torch.set_flush_denormal(True)
