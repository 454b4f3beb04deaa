"""Paths in the repository."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
BUNDLED = ROOT / "data" / "bundled"
MOLECULES = ROOT / "data" / "molecules"
CONFIGS = ROOT / "configs"
