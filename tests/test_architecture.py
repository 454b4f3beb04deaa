"""The import rule: modules import only from lower layers, and never in cycles."""

import ast
from fnmatch import fnmatch
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from paths import ROOT

#: Plain data, of which the configuration is made.
MODEL_RECORDS = ("models.registry", "models.record", "models.*.record", "models.adapters.records")
FLOORS = {
    0: ("errors", "units", "typing", "kept", "plugins", "memory", "compiled", "distributed", *MODEL_RECORDS),
    1: ("geometry", "boundaries", "state", "losses", "atomic_energies", "reference_energies"),
    2: (
        *("neighbors", "interfaces", "energy_zero", "force_field", "checkpoints", "payloads", "compiled.fast_paths"),
        *("repulsion", "stress", "moving_cells", "flat_batch"),
    ),
    3: ("models", "integrators", "observables", "datasets", "reporting"),
    4: ("stability",),
    5: ("dynamics", "datasets.inspection"),
    6: ("estimator", "calculator"),
    7: ("training", "evaluation", "replicas", "export", "stress_test"),
    8: ("config",),  # nothing below knows pydantic
    9: ("assembly", "suggest"),
    10: ("cli",),
}


def modules() -> dict[str, Path]:
    names = {}
    for path in sorted((ROOT / "mdsim").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def floor_of(module: str) -> int:
    name = module.removeprefix("mdsim").removeprefix(".")
    matches = [
        (len(prefix), floor)
        for floor, prefixes in FLOORS.items()
        for prefix in prefixes
        if fnmatch(name, prefix) or name.startswith(prefix + ".")
    ]
    assert matches, f"{module} has no floor: give it one in tests/test_architecture.py"
    return max(matches)[1]


def imports_of(path: Path) -> set[str]:
    known = modules()
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mdsim"):
            for alias in node.names:
                child = f"{node.module}.{alias.name}"
                found.add(child if child in known else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("mdsim")}
    return found - {"mdsim"}


@pytest.mark.parametrize("module", [name for name in modules() if name != "mdsim"])
def test_imports_go_down(module: str) -> None:
    up = {target for target in imports_of(modules()[module]) if floor_of(target) > floor_of(module)}
    assert not up, f"{module} (floor {floor_of(module)}) imports from above: {up}"


def test_no_circles() -> None:
    graph = {name: imports_of(path) for name, path in modules().items()}
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError


def test_scripts_are_short() -> None:
    for script in ("pretraining.py", "stable_training.py", "download_data.py"):
        lines = (ROOT / script).read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 40, f"{script} has {len(lines)} lines"


def test_no_pickle_and_no_unsafe_yaml() -> None:
    restricted = (
        ROOT / "mdsim" / "datasets" / "sources" / "plain_pickle.py"
    )  # reads arrays out of one without running it
    allowed_by_users = set((ROOT / "mdsim" / "models" / "adapters").glob("*.py"))  # the only way to read such files
    for path in {*(ROOT / "mdsim").rglob("*.py"), *(ROOT / "data").glob("*.py")} - allowed_by_users:
        text = path.read_text(encoding="utf-8")
        assert "allow_pickle=True" not in text and "weights_only=False" not in text, path
        assert "import pickle" not in text and "yaml.unsafe" not in text, path
        assert "from pickle import" not in text or path == restricted, path


def test_only_the_configuration_and_what_reads_it_know_pydantic() -> None:
    for module, path in modules().items():
        if module == "mdsim" or floor_of(module) < floor_of("mdsim.config"):
            assert "import pydantic" not in path.read_text(encoding="utf-8").replace(
                "from pydantic", "import pydantic"
            ), path
