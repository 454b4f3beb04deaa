"""Requests to stop, with a clock of the test and signals of this process to itself."""

import os
import signal
import threading

import pytest

from mdsim.reporting.stops import StopRequests, seconds


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _epochs(limit_s: float, durations: list[float], assembly_s: float = 0.0) -> tuple[int, StopRequests]:
    """How many epochs are begun under a limit, and the requests that ended them."""
    clock = Clock()
    stops = StopRequests(limit_s, clock)
    clock.now += assembly_s
    for epoch, duration in enumerate(durations):
        if stops():
            return epoch, stops
        clock.now += duration
    return len(durations), stops


def test_no_limit_and_no_signal_is_no_request():
    stops = StopRequests()
    assert not any(stops() for _ in range(3))
    assert stops.reason is None


@pytest.mark.parametrize(
    ("limit_s", "durations", "assembly_s", "begun"),
    [
        (60.0, [10.0] * 20, 0.0, 6),  # the sixth ends just in time
        (60.0, [10.0] * 20, 1.0, 5),
        (60.0, [1.0, 30.0, *[1.0] * 20], 0.0, 2),  # another one of 30 s would end at 61 s
        (60.0, [30.0, *[1.0] * 100], 0.0, 2),
        (60.0, [20.0, *[1.0] * 100], 0.0, 41),  # the slow first one is forgotten after twenty others
        (5.0, [10.0] * 20, 0.0, 1),  # the first one is begun: its length is not known
        (5.0, [10.0] * 20, 6.0, 0),
    ],
)
def test_no_epoch_is_begun_that_would_exceed_the_limit(limit_s, durations, assembly_s, begun):
    found, stops = _epochs(limit_s, durations, assembly_s)
    assert found == begun
    assert stops.reason is not None and "time limit" in stops.reason
    assert stops(), "a request stays one"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_a_request(number, capfd):
    before = signal.getsignal(number)
    stops = StopRequests()
    with stops.listening():
        assert not stops()
        for _ in range(2):  # a repeated one does not end the process
            os.kill(os.getpid(), number)
        assert stops()
    assert signal.getsignal(number) is before
    assert stops.reason == f"{number.name} was received"
    assert capfd.readouterr().err == f"{stops.reason}: stopping once the epoch in progress is saved\n"


def test_the_first_reason_is_kept():
    clock = Clock()
    stops = StopRequests(10.0, clock)
    with stops.listening():
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
    clock.now += 20.0
    assert stops() and stops.reason == "SIGUSR1 was received"


def test_other_threads_have_no_signals_but_a_limit():
    clock, answers = Clock(), []
    stops = StopRequests(10.0, clock)

    def work() -> None:
        with stops.listening():
            answers.append(stops())
            clock.now += 20.0
            answers.append(stops())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [False, True]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 5400.0), ("0.5", 30.0), ("00:00:30", 30.0), ("01:30:05", 5405.0), ("100:00:00", 3.6e5)],
)
def test_limits_are_minutes_or_hours_minutes_and_seconds(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "0", "-5", "nan", "inf", "10:00", "1:60:00", "1:00:60", "00:00:00", "1:-1:00", "1-00:00:00", "x", "1:2:3:4"],
)
def test_other_limits_are_refused(text):
    with pytest.raises(ValueError):
        seconds(text)
