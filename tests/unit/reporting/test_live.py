"""Bars and waits: live lines on a terminal, lines of the log elsewhere."""

import io
import re
import sys
import time
from collections.abc import Callable

import pytest
from rich.console import Console

from mdsim.reporting import live
from mdsim.reporting.console import STYLE, on_terminal, setup_logging
from mdsim.reporting.live import Bar, clear, waiting
from mdsim.reporting.pace import Pace

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


class Terminal(io.StringIO):
    """A terminal that keeps everything that is written to it."""

    def isatty(self) -> bool:
        return True

    @property
    def text(self) -> str:
        """What was written, without control sequences."""
        return re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", self.getvalue())


@pytest.fixture
def terminal(monkeypatch) -> Callable[[], Terminal]:
    """Makes stderr a terminal. To be called within the test, because pytest sets stderr anew before it."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("CI", "NO_COLOR", "RANK"):
        monkeypatch.delenv(name, raising=False)

    def begin() -> Terminal:
        made = Terminal()
        monkeypatch.setattr(sys, "stderr", made)
        return made

    return begin


def test_a_bar_with_speeds_below_the_log(terminal):
    terminal = terminal()
    times = iter([0.0, 10.0])
    pace = Pace(50.0, clock=lambda: next(times))
    logger = setup_logging(None)
    with Bar(total=50.0, desc="simulate", unit="ps", pace=pace, note="compiling") as bar:
        pace.measure(10.0, 1000, simulated_ps=10.0)
        bar.show()
        pace.measure(20.0, 21000, simulated_ps=20.0)
        bar.show("7 of 8 replicas stable")
        logger.info("a line")
        shown = Terminal()
        Console(file=shown, width=100).print(bar.drawn())
    assert "20/50 ps" in shown.text
    assert "7 of 8 replicas stable · 86.4 ns/day · 2k force evaluations/s · 30.0 s left" in shown.text
    assert terminal.getvalue().index(HIDE_CURSOR) < terminal.getvalue().rindex(SHOW_CURSOR)
    assert "simulate" in terminal.text and "compiling" in terminal.text
    assert re.search(r"\d\d:\d\d:\d\d  a line *\r?\n", terminal.text)


def test_a_wait_is_shown_until_it_is_over(terminal):
    terminal = terminal()
    setup_logging(None)
    with waiting("reading the data"), waiting("first forces"):
        pass
    assert "reading the data" in terminal.text and "first forces" in terminal.text
    assert terminal.getvalue().rindex(SHOW_CURSOR) > terminal.getvalue().rindex(HIDE_CURSOR)


def test_an_error_leaves_no_live_lines_behind(terminal):
    terminal = terminal()
    with pytest.raises(ValueError, match="broken"), Bar(total=3, desc="predict") as bar:
        bar.update()
        raise ValueError("broken")
    Bar(total=3, desc="left open")
    clear()
    assert terminal.getvalue().rindex(SHOW_CURSOR) > terminal.getvalue().rindex(HIDE_CURSOR)


@pytest.mark.parametrize("colors", [True, False])
def test_colors_follow_no_color(terminal, monkeypatch, colors):
    terminal = terminal()
    if not colors:
        monkeypatch.setenv("NO_COLOR", "1")
    setup_logging(None).warning("replica 2 broke")
    assert ("\x1b[1;33m" in terminal.getvalue()) == colors  # bold yellow
    assert "WARNING: replica 2 broke" in terminal.text


@pytest.mark.parametrize(("name", "value"), [("TERM", "dumb"), ("CI", "true"), ("RANK", "1")])
def test_no_live_lines_where_they_are_no_use(terminal, monkeypatch, name, value):
    terminal = terminal()
    monkeypatch.setenv(name, value)
    setup_logging(None)
    assert not on_terminal()
    with waiting("reading the data"), Bar(range(3), desc="explore") as bar:
        assert list(bar) == [0, 1, 2]
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("style", ["quiet", "as_json"])
def test_no_live_lines_if_the_output_is_quiet_or_json(terminal, monkeypatch, style):
    terminal = terminal()
    monkeypatch.setattr(STYLE, style, True)
    assert not on_terminal()


def test_short_loops_and_waits_log_nothing_without_a_terminal(tmp_path, capsys):
    setup_logging(tmp_path)
    with waiting("reading the data"):
        assert sum(Bar(range(10), desc="explore")) == 45
    assert capsys.readouterr().err == ""
    assert (tmp_path / "log.txt").read_text() == ""


def test_long_loops_and_waits_log_lines_without_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(live, "WAITS_LOGGED_AFTER_S", 0.02)
    setup_logging(tmp_path)
    with waiting("reading the data"):
        time.sleep(0.2)
    with Bar(total=5, desc="explore", unit="ps", log_interval_s=0.02) as bar:
        for _ in range(5):
            time.sleep(0.03)
            bar.update()
    console = capsys.readouterr().err
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert "\r" not in console and "\x1b" not in console
    assert len(console.splitlines()) == len(lines) == 6
    assert lines[0].endswith("  reading the data")
    assert re.search(r"  explore: 4/5 ps \[0\.\d s, 0\.\d s left\]", lines[-2])


def test_the_lines_have_their_numbers_for_json(caplog):
    with caplog.at_level("INFO", logger="mdsim"), Bar(total=4, desc="predict", log_interval_s=0.0) as bar:
        bar.update(3)
    (record,) = caplog.records
    assert record.fields["done"] == 3 and record.fields["total"] == 4 and record.fields["left_s"] > 0


def test_bytes_and_unknown_totals():
    assert Bar(total=2_500_000, unit="B", unit_scale=True, initial=1200).count == "1.2k/2.5M B"
    assert Bar(desc="frames", unit="frames", initial=7).count == "7 frames"
    assert Bar(total=0.5, unit="", initial=0).count == "0 %"
