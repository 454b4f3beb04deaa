"""Speed of a run and the time left, by a clock that the test sets."""

from mdsim.reporting.pace import Pace, scaled


def test_the_time_before_the_first_measurement_does_not_count():
    times = iter([100.0, 110.0, 130.0, 150.0])
    pace = Pace(10.0, clock=lambda: next(times))
    assert pace.per_second is None and pace.left is None and pace.done == 0
    pace.measure(2.0)
    assert pace.per_second is None and pace.left is None and pace.done == 2
    pace.measure(4.0)
    assert pace.per_second == 0.2 and pace.left == "30.0 s left"
    pace.measure(5.0)
    assert pace.per_second == 0.1 and pace.left == "50.0 s left"
    pace.measure(10.0)
    assert pace.left is None, "nothing is left"


def test_no_progress_gives_no_estimate():
    times = iter([0.0, 5.0])
    pace = Pace(10.0, clock=lambda: next(times))
    pace.measure(1.0)
    pace.measure(1.0)
    assert pace.left is None


def test_speeds_of_dynamics():
    times = iter([0.0, 10.0])
    pace = Pace(100.0, clock=lambda: next(times))
    pace.measure(10.0, 500, simulated_ps=10.0)
    assert pace.parts == [] and pace.fields == {"done": 10.0, "total": 100.0}
    pace.measure(30.0, 12500, simulated_ps=30.0)
    assert pace.ns_per_day == 2.0 * 86400 / 1000 and pace.evaluations_per_second == 1200
    assert pace.parts == ["173 ns/day", "1.2k force evaluations/s", "35.0 s left"]
    assert pace.fields["ns_per_day"] == 172.8 and pace.fields["left_s"] == 35.0


def test_prefixes():
    assert [scaled(number) for number in (7.0, 999.0, 1234.0, 4.56e6, 2e9)] == ["7", "999", "1.23k", "4.56M", "2G"]
