"""Output of the commands in a terminal, in a pipe, quiet and as JSON: the same run each time."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from paths import ROOT
from tiny import write_world

from mdsim.cli import main as cli

PLAIN_LINE = re.compile(r"\d\d:\d\d:\d\d  \S.*")
SLOW = "--dynamics.fast=false"


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


def _command(world: Path, name: str) -> list[str]:
    flags = {"train": [SLOW], "simulate": [SLOW, "--eval_model=pre"]}.get(name, [])
    return [name, "--config-yml", str(world / f"{name}.yml"), "--overwrite", *flags]


@contextmanager
def _terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """Makes stderr a pseudo terminal; gives a function that returns what was written to it after the block."""
    master, slave = os.openpty()
    chunks: list[bytes] = []

    def read() -> None:
        while True:
            try:
                chunk = os.read(master, 65536)
            except OSError:  # the other end is closed
                return
            if not chunk:
                return
            chunks.append(chunk)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    with os.fdopen(slave, "w", encoding="utf-8", buffering=1) as stderr, monkeypatch.context() as context:
        context.setattr(sys, "stderr", stderr)
        context.setenv("TERM", "xterm-256color")
        context.setenv("COLUMNS", "120")
        for name in ("CI", "NO_COLOR"):
            context.delenv(name, raising=False)
        yield lambda: b"".join(chunks).decode()
    reader.join(timeout=10)
    os.close(master)


@pytest.mark.parametrize(
    ("name", "bar"),
    [
        pytest.param("pretrain", "fit", marks=pytest.mark.slow),
        pytest.param("train", "train", marks=pytest.mark.slow),
        ("simulate", "simulate"),
    ],
)
def test_a_terminal_shows_waits_bars_and_the_files_worth_opening(world, monkeypatch, name, bar):
    with _terminal(monkeypatch) as written:
        assert cli.main(_command(world, name)) == 0
    text = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", written())
    assert "reading the data" in text and f"{bar} ━" in text
    assert written().rindex("\x1b[?25h") > written().rindex("\x1b[?25l"), "the cursor is shown again"
    worth_opening = re.findall(r"^  (/\S+) +\w", text, re.MULTILINE)
    assert len(worth_opening) == 3 and all(Path(path).exists() for path in worth_opening)


def test_a_pipe_has_the_lines_of_the_log_and_nothing_else(world, capsys):
    assert cli.main(_command(world, "train")) == 0
    text = capsys.readouterr().err
    assert "\x1b" not in text and "\r" not in text
    lines = text.splitlines()
    assert all(PLAIN_LINE.fullmatch(line) for line in lines[:-3])
    log = (world / "runs" / "stable_training" / "schnet_water_default" / "log.txt").read_text().splitlines()
    assert [line.split("  ", 1)[1] for line in log] == [line.split("  ", 1)[1] for line in lines[-len(log) :]]
    assert re.search(r"50 % of the training is done, [\d.]+ ns/day, [\d.k]+ force evaluations/s, .* left", text)


def test_quiet_shows_one_line(world, capsys):
    assert cli.main([*_command(world, "train"), "--quiet"]) == 0
    shown = capsys.readouterr()
    (line,) = shown.err.splitlines()
    assert re.match(r"trained: 6 epochs, finished cycles: 2 \(.*\): .*report\.html, .*last\.pt, .*log\.txt", line)
    assert shown.out == ""


def test_quiet_shows_errors(world, capsys):
    assert cli.main([*_command(world, "train"), "--quiet", "--dynamics.timestep=1"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "timestep_fs" in line


@pytest.mark.parametrize(
    "name",
    [pytest.param("pretrain", marks=pytest.mark.slow), "train", pytest.param("simulate", marks=pytest.mark.slow)],
)
def test_every_line_is_json_with_documented_keys(world, capsys, name):
    assert cli.main([*_command(world, name), "--json-logs"]) == 0
    shown = capsys.readouterr()
    objects = [json.loads(line) for line in shown.err.splitlines()]
    assert shown.out == ""
    keys = {key for found in objects for key in found}
    assert keys >= {"time", "level", "message", "scalars", "files"}
    assert keys <= documented_keys()
    assert all(Path(file).exists() for file in objects[-1]["files"])


def test_an_error_is_json_too(world, capsys):
    assert cli.main([*_command(world, "simulate"), "--json-logs", "--dynamics.timestep=1"]) == 1
    (found,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert found["level"] == "error" and "timestep_fs" in found["message"]


def test_predictions(world, capsys, tmp_path):
    (checkpoint,) = (world / "models").rglob("best_checkpoint.pt")
    frames, output = tmp_path / "water.xyz", tmp_path / "predicted.xyz"
    frames.write_text("3\n\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n")
    command = ["predict", "--checkpoint", str(checkpoint), "--frames", str(frames), "--output", str(output), "--cpu"]
    assert cli.main([*command, "--energy-zero", "relative", "--quiet"]) == 0
    assert re.fullmatch(rf"predicted 1 frame \(.*\): {output}( \(.*\))?\n", capsys.readouterr().err)


def documented_keys() -> set[str]:
    """The keys in the table of the manual."""
    page = (ROOT / "docs" / "runs.md").read_text(encoding="utf-8")
    section = page[page.index("(json-logs)=") :]
    table = section[section.index("| key |") :].split("\n\n")[0]
    return {key for line in table.splitlines()[2:] for key in re.findall(r"`(\w+)`", line.split("|")[1])}
