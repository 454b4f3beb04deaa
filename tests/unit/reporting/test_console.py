"""Log lines, the last line, tables, intervals and durations."""

import json
import logging
import re
import time
import warnings

import pytest

from mdsim.reporting.console import (
    STYLE,
    exclaim,
    finished,
    format_duration,
    format_interval,
    format_table,
    setup_logging,
)
from mdsim.reporting.lines import folded


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
    monkeypatch.setattr(STYLE, "hidden_warnings", 0)
    logger = setup_logging(tmp_path)
    logger.info("epoch 1")
    logger.warning("replica 2 broke")
    assert capsys.readouterr().err == ""
    finished("trained", {tmp_path / "last.pt": "the force field", tmp_path / "log.txt": "this log"})
    line = f"trained: {tmp_path / 'last.pt'}, {tmp_path / 'log.txt'} (warnings not shown: 1)\n"
    assert capsys.readouterr().err == line
    logger.error("no room")
    assert capsys.readouterr().err.startswith("ERROR: no room")
    written = (tmp_path / "log.txt").read_text()
    assert "epoch 1" in written and "WARNING: replica 2 broke" in written
    monkeypatch.setattr(STYLE, "quiet", False)
    monkeypatch.setattr(STYLE, "as_json", True)
    setup_logging(tmp_path).info("two\nlines of %s", "Å")
    (line,) = capsys.readouterr().err.splitlines()
    found = json.loads(line)
    assert found["level"] == "info" and found["message"] == "two\nlines of Å"
    assert abs(found["time"] - time.time()) < 60


def test_everything_on_stderr_is_json_on_request(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(STYLE, "as_json", True)
    logger = setup_logging(tmp_path)
    logger.info("epoch 1", extra={"fields": {"epoch": 1, "scalars": {"loss": float("nan"), "rate": 0.5}}})
    warnings.warn("from another package", stacklevel=1)
    exclaim("train.yml: unknown key")
    monkeypatch.setattr(STYLE, "as_json", False)
    setup_logging(None)  # gives warnings back to Python
    first, second, third = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (first["epoch"], first["scalars"]) == (1, {"loss": None, "rate": 0.5})
    assert second["level"] == "warning" and "from another package" in second["message"]
    assert (third["level"], third["message"]) == ("error", "train.yml: unknown key")


def test_the_last_line_lists_files_below_it(tmp_path, capsys):
    setup_logging(tmp_path)
    finished("trained", {tmp_path / "report.html": "the report", tmp_path / "last.pt": "the force field"})
    first, *below = capsys.readouterr().err.splitlines()
    assert first.endswith("  trained")
    assert below == [f"  {tmp_path / 'report.html'}  the report", f"  {tmp_path / 'last.pt'}      the force field"]


def test_long_lines_are_folded_between_words():
    assert folded("19:40:00  aa bb  cc", 15) == "19:40:00  aa bb\n          cc"
    assert folded("19:40:00  a/very/long-path/last.pt", 15) == "19:40:00\n          a/very/long-path/last.pt"
    assert folded("  a command that is copied as it is", 15) == "  a command that is copied as it is"


def test_tables_are_folded_in_their_last_column():
    table = format_table(["check", "result"], [["forces", "are minus the gradient"], ["units", "ok"]])
    assert folded(table + "\n\nnot stable at all", 16, indent=0).splitlines() == [
        "check   result",
        "──────  ────────",
        "forces  are",
        "        minus",
        "        the",
        "        gradient",
        "units   ok",
        "",
        "not stable at",
        "all",
    ]
    whole = format_table(["a long title of a column", "x"], [["1", "2"]])
    assert folded(whole, 16) == whole, "the last column begins too far right"


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
