"""Log lines, bars with and without a terminal, tables, intervals and durations."""

import io
import json
import logging
import re
import sys
import time

import pytest

from mdsim.reporting.console import STYLE, format_duration, format_interval, format_table, progress, setup_logging


@pytest.fixture(autouse=True)
def restored_logger():
    """Later tests find the logger as they expect it: without handlers, passing its records on."""
    yield
    logger = logging.getLogger("mdsim")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_go_to_console_and_file(tmp_path, capsys):
    logger = setup_logging(tmp_path / "run")
    logging.getLogger("mdsim.training").info("cycle %d begins", 3)
    logger.warning("replica 2 broke")
    logger.debug("unseen")
    console = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d  cycle 3 begins", console[0])
    assert re.fullmatch(r"\d\d:\d\d:\d\d  WARNING: replica 2 broke", console[1])
    assert len(console) == 2
    written = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8").splitlines()
    assert [line[11:] for line in written] == console
    assert re.match(r"\d{4}-\d\d-\d\d ", written[0])


def test_quiet_and_json(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(STYLE, "quiet", True)
    logger = setup_logging(tmp_path)
    logger.info("epoch 1")
    logger.warning("replica 2 broke")
    assert capsys.readouterr().err.splitlines()[0].endswith("WARNING: replica 2 broke")
    assert "epoch 1" in (tmp_path / "log.txt").read_text()
    monkeypatch.setattr(STYLE, "quiet", False)
    monkeypatch.setattr(STYLE, "as_json", True)
    setup_logging(tmp_path).info("two\nlines of %s", "Å")
    (line,) = capsys.readouterr().err.splitlines()
    found = json.loads(line)
    assert found["level"] == "info" and found["message"] == "two\nlines of Å"
    assert abs(found["time"] - time.time()) < 60


def test_log_file_is_appended_to_and_handlers_do_not_pile_up(tmp_path, capsys):
    for message in ("first run", "resumed"):
        setup_logging(tmp_path).info(message)
    assert [line[21:] for line in (tmp_path / "log.txt").read_text().splitlines()] == ["first run", "resumed"]
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_console_alone_and_verbose(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    setup_logging(None, verbose=True).debug("detail in Å")
    assert capsys.readouterr().err.endswith("  detail in Å\n")
    assert list(tmp_path.iterdir()) == []


def test_handlers_of_others_stay(tmp_path):
    other = logging.NullHandler()
    logging.getLogger("mdsim").addHandler(other)
    assert other in setup_logging(tmp_path).handlers


def test_exceptions_are_logged_with_their_traceback(tmp_path):
    try:
        raise RuntimeError("out of range")
    except RuntimeError:
        setup_logging(tmp_path).exception("failed")
    text = (tmp_path / "log.txt").read_text()
    assert "ERROR: failed" in text
    assert "RuntimeError: out of range" in text


def test_bar_on_a_terminal_and_log_lines_above_it(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    logger = setup_logging(None)
    assert list(progress(range(3), desc="explore")) == [0, 1, 2]
    with progress(total=2, desc="learn") as bar:
        bar.update()
        logger.info("a line")
        bar.update()
    text = terminal.getvalue()
    assert "\r" in text
    assert "explore:   0%" in text
    assert re.search(r"[\r\n]\d\d:\d\d:\d\d  a line\n", text)


def test_short_loops_log_nothing_without_a_terminal(tmp_path, capsys):
    setup_logging(tmp_path)
    assert sum(progress(range(10), desc="explore")) == 45
    assert capsys.readouterr().err == ""
    assert (tmp_path / "log.txt").read_text() == ""


def test_long_loops_log_lines_without_a_terminal(tmp_path, capsys):
    setup_logging(tmp_path)
    with progress(total=5, desc="explore", unit="ps", log_interval_s=0.02) as bar:
        for _ in range(5):
            time.sleep(0.03)
            bar.update()
    console = capsys.readouterr().err
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert "\r" not in console
    assert len(console.splitlines()) == len(lines)
    assert 3 <= len(lines) <= 6
    assert re.search(r"  explore: [345]/5 ps \[", lines[-1])
    assert not any(re.search(r": 0/5", line) for line in lines)


def test_table_aligns_text_left_and_numbers_right():
    table = format_table(
        ["model", "stable (ps)", "MAE", "note"],
        [
            ["SchNet", "12.3", "1.2e-3", "ok"],
            ["NequIP before", "9 [8, 10]", "-", ""],
            ["GemNet", "nan", "-0.5", "3 broke"],
        ],
    )
    assert table.splitlines() == [
        "model          stable (ps)     MAE  note",
        "─────────────  ───────────  ──────  ───────",
        "SchNet                12.3  1.2e-3  ok",
        "NequIP before    9 [8, 10]       -",
        "GemNet                 nan    -0.5  3 broke",
    ]


def test_a_column_of_numbers_stays_right_aligned_beside_a_word_and_one_of_words_left():
    rows = [["mean", "1.5", "30 K"], ["median", "not reached", "ok"], ["fraction", "0.75", "ok"]]
    lines = format_table(["", "pre", "note"], rows).splitlines()
    assert lines[2:] == ["mean              1.5  30 K", "median    not reached  ok", "fraction         0.75  ok"]


def test_table_without_rows_and_with_a_short_row():
    assert format_table(["a", "b"], []) == "a  b\n─  ─"
    with pytest.raises(ValueError, match="row 1 of the table has 1 cells, the header has 2"):
        format_table(["a", "b"], [["1", "2"], ["3"]])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((1.2345, 1.1, 1.4, "ps"), "1.23 [1.10, 1.40] ps"),
        ((123.45, 99.5, 150.2), "123 [100, 150]"),
        ((9.996, 9.0, 11.0, "%"), "10.0 [9.0, 11.0] %"),
        ((0.0, -0.02, 0.03), "0.0000 [-0.0200, 0.0300]"),
        ((-0.0512, -0.06, -0.04, "eV", 2), "-0.051 [-0.060, -0.040] eV"),
        ((2.5e-7, 1e-7, 3e-7), "2.50e-07 [1.00e-07, 3.00e-07]"),
        ((float("inf"), 20.0, float("inf"), "ps"), "inf [20.0, inf] ps"),
        ((float("nan"), float("nan"), float("nan")), "nan [nan, nan]"),
    ],
)
def test_interval(arguments, expected):
    assert format_interval(*arguments) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.04, "0.0 s"),
        (12.34, "12.3 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (245.0, "4 min 05 s"),
        (3599.7, "1 h 00 min"),
        (8000.0, "2 h 13 min"),
        (100_000.0, "1 d 03 h"),
    ],
)
def test_duration(seconds, expected):
    assert format_duration(seconds) == expected
