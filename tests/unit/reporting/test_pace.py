"""Speed of a run and the time left, by a clock that the test sets."""

from mdsim.reporting.pace import Pace


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
