"""`import mdsim`: all public names, their types for editors, and imports on first use."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib import import_module

import pytest
from paths import ROOT

import mdsim

NAMES = [name for name in mdsim.__all__ if name != "__version__"]


def in_a_new_process(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_what_its_module_has(name):
    assert getattr(mdsim, name) is getattr(import_module(mdsim._HOME_OF[name]), name)
    assert getattr(mdsim, name).__doc__


def test_editors_see_what_there_is_at_run_time():
    tree = ast.parse((ROOT / "mdsim" / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert all(alias.asname == alias.name for node in imports for alias in node.names)  # re-exported, says PEP 484
    assert {alias.name: node.module for node in imports for alias in node.names} == mdsim._HOME_OF


def test_dir_has_the_names_before_they_are_used():
    assert set(NAMES) <= set(in_a_new_process("import mdsim; print(*dir(mdsim))").split())


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'mdsim' has no attribute 'simulated'"):
        mdsim.simulated  # noqa: B018
    with pytest.raises(ImportError):
        exec("from mdsim import simulated")


def test_importing_costs_nothing():
    code = (
        "import sys, time; start = time.perf_counter(); import mdsim; "
        "print(time.perf_counter() - start, *(name for name in ('torch', 'numpy', 'ase') if name in sys.modules))"
    )
    seconds = []
    for _ in range(3):
        duration, *imported = in_a_new_process(code).split()
        assert not imported
        seconds.append(float(duration))
    assert min(seconds) < 0.1


def test_a_name_imports_no_more_than_it_needs():
    assert in_a_new_process("import sys, mdsim; mdsim.ConfigError; print('torch' in sys.modules)") == "False"


def test_submodules_stay_modules():
    assert in_a_new_process("import mdsim.force_field as m, mdsim; mdsim.simulate; print(m.__name__)") == (
        "mdsim.force_field"
    )
