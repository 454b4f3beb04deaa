"""Public Python interface to the results of evaluations."""

from __future__ import annotations

import os
from pathlib import Path

from mdsim.evaluation import report
from mdsim.evaluation.report import Results


def read_results(*folders: str | os.PathLike) -> Results:
    """Read evaluations of one kind, and pool the replicas of several.

    Args:
        folders: folders of the evaluations, ``<run folder>/inference/<eval_model>``.

    Returns:
        Their `final_metrics.json` (``summaries``), the stable times of all replicas in ps (``lifetimes``), and the
        observables of each replica.

    Raises:
        ConfigError: a folder holds no evaluation, or a damaged one.
        ValueError: no folder is given.
    """
    if not folders:
        raise ValueError("read_results needs the folder of at least one evaluation")
    return report.read_results([Path(folder) for folder in folders])
