"""`download_data.py` and `data/md17.py` as a user runs them, against a local server; killed, and run again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from file_server import FileServer
from paths import ROOT
from toy_sources import archive, ethanol, water

from mdsim.cli import data as data_cli
from mdsim.cli.data import download_data, one_set
from mdsim.datasets import load_dataset

N_FRAMES = 1500
SMALL = ["--test_frames", "100", "--contiguous", "--contiguous_frames", "1000", "--ignore-checksum"]


@pytest.fixture(scope="module")
def content() -> bytes:
    return archive(ethanol(N_FRAMES))


def start(*options: str, cwd: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "data" / "md17.py"), "--molecule", "ethanol", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_a_killed_download_goes_on_and_becomes_a_data_set(content, tmp_path, capsys):
    with FileServer({"md17_ethanol.npz": content}, pause_s=0.02) as server:
        options = ["--size", "100", "1k", *SMALL, "--base-url", server.url, "--db_path", str(tmp_path)]
        process = start(*options, cwd=tmp_path)
        part = tmp_path / "downloads" / "md17_ethanol.npz.part"
        deadline = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size > 100_000) and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        there = part.stat().st_size
        assert 100_000 < there < len(content) and not part.with_suffix("").exists()

        server.pause_s = 0.0
        assert one_set("md17", ["--molecule", "ethanol", *options]) == 0
        assert "md17/ethanol/1k: wrote train 950, val 50, test 100, contiguous 1,000" in capsys.readouterr().out
        assert server.requests[-1]["range"] == f"bytes={there}-"
    for size, frames in (("100", 95), ("1k", 950)):
        dataset = load_dataset(tmp_path, "md17", "ethanol", size)
        assert len(dataset.train) == frames and dataset.contiguous_trajectory().n_frames == 1000
    assert dataset.metadata.command.startswith("python data/md17.py --molecule ethanol --size 100 1k")


def test_what_is_there_is_left_alone(content, tmp_path, capsys):
    (tmp_path / "ethanol.npz").write_bytes(content)
    options = ["--molecule", "Ethanol", "--size", "100", *SMALL, "--db-path", str(tmp_path)]
    options += ["--from-file", str(tmp_path / "ethanol.npz")]
    assert one_set("md17", options) == 0
    written = (tmp_path / "md17" / "ethanol" / "100" / "train.npz").stat().st_mtime_ns
    assert one_set("md17", options) == 0
    assert "is there already" in capsys.readouterr().out
    assert (tmp_path / "md17" / "ethanol" / "100" / "train.npz").stat().st_mtime_ns == written


@pytest.fixture
def small_paper(monkeypatch):
    """The published sets as small as the test needs them: ethanol stands for the molecules."""
    files = {}
    collections = {}
    for name, molecule in (("md17", "ethanol"), ("md22", "ac_Ala3_NHMe"), ("water", "water")):
        (one,) = (one for one in data_cli.COLLECTIONS[name] if one.molecule == molecule)
        if name == "water":
            import io

            import numpy as np

            buffer = io.BytesIO()
            np.save(buffer, water(60))  # type: ignore[arg-type]
            files[one.remote.name], n_frames, formula = buffer.getvalue(), 60, one.formula
        else:
            files[one.remote.name], n_frames, formula = archive(ethanol(200)), 200, "C2H6O"
        collections[name] = (
            replace(
                one,
                n_frames=n_frames,
                formula=formula,
                divide=lambda n, size, seed, _, d=one.divide: d(n, size, seed, 20),
            ),
        )
    monkeypatch.setattr(data_cli, "COLLECTIONS", collections)
    monkeypatch.setattr(data_cli, "CONTIGUOUS_FRAMES", 50)
    sizes = (
        ("md17", "ethanol", ("40", "100")),
        ("md22", "ac_Ala3_NHMe", ("25percent",)),
        ("water", "water", ("20", "40")),
    )
    monkeypatch.setattr(data_cli, "PAPER", sizes)
    return files


def test_everything_is_fetched_once_and_converted(small_paper, tmp_path, capsys):
    with FileServer(small_paper) as server:
        options = ["--download_path", str(tmp_path), "--base_url", server.url]
        assert download_data([*options, "--dry-run"]) == 0
        assert capsys.readouterr().out.count(f"fetch {server.url}/") == 5 and not server.requests
        assert download_data(options) == 0
        assert len(server.requests) == 3
        assert download_data(options) == 0
        assert capsys.readouterr().out.count("is there already") == 5 and len(server.requests) == 3
    for name, molecule, sizes in data_cli.PAPER:
        for size in sizes:
            dataset = load_dataset(tmp_path, name, molecule, size)
            assert len(dataset.contiguous) == 50 and dataset.contiguous.velocities is not None
            assert len(dataset.test) == 20


def test_the_published_sizes_are_the_default(capsys):
    assert download_data(["--dry-run"]) == 0
    out = capsys.readouterr().out
    for expected in (
        "md17/aspirin/1k",
        "md17/aspirin/10k",
        "ac_Ala3_NHMe/25percent",
        "100percent",
        "water/1k",
        "water/10k",
    ):
        assert expected in out
    assert "http://www.quantum-machine.org/gdml/data/npz/md17_aspirin.npz (202,398,748 bytes)" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--molecule", "caffeine"], "md17 has aspirin"),
        (["--from-file", "absent.npz"], "absent.npz: no such file"),
        (["--size", "half", "--from-file", "FILE"], "size 'half' is not a number of frames"),
        (["--size", "50k", "--from-file", "FILE"], "asks for 50000 frames, but only 1400 are there"),
        (["--size", "40", "--contiguous_frames", "9999", "--from-file", "FILE"], "ask for fewer"),
    ],
)
def test_wrong_input_is_one_line(content, tmp_path, capsys, options, message):
    (tmp_path / "ethanol.npz").write_bytes(content)
    options = [str(tmp_path / "ethanol.npz") if word == "FILE" else word for word in options]
    molecule = [] if "--molecule" in options else ["--molecule", "ethanol"]
    assert one_set("md17", [*molecule, *SMALL, *options, "--db_path", str(tmp_path / "db")]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert errors[-1].startswith("error: ") and message in errors[-1]
    assert not (tmp_path / "db" / "md17").exists()
