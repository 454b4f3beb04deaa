import pytest
import torch

from mdsim.stability.departures import Departures, sustained_frames
from mdsim.stability.support import Support
from mdsim.state import Trajectory

NAMES = ("bond", "angle", "energy")
STABLE = 10**6


class Made(Support):
    """A support whose coordinates are outside where the positions say so: one atom, one coordinate per axis."""

    names = NAMES

    def __init__(self) -> None:
        pass

    def outside(self, trajectory):
        return trajectory.positions[:, :, 0] > 0.5


def _follow(departures, outside, breaks=None, alive=None, sizes=None):
    """Judge the frames, in stretches of the given sizes; replicas that broke leave."""
    n_frames, n_replicas, _ = outside.shape
    breaks = torch.full((n_replicas,), STABLE) if breaks is None else torch.as_tensor(breaks)
    begin = 0
    for size in sizes or [n_frames]:
        alive = torch.nonzero(breaks >= begin)[:, 0]
        part = outside[begin : begin + size, alive].double()
        first = (breaks[alive] - begin).clamp(max=size)
        departures.follow(alive, Trajectory(part[:, :, None], None, None, 1.0), first)
        begin += size
    return departures


def _frames(text: str) -> torch.Tensor:
    """Frames of one replica: b, a, e for the coordinate outside, ``.`` for none, ``*`` for all."""
    return torch.tensor([[letter == name[0] or letter == "*" for name in NAMES] for letter in text])[:, None]


@pytest.mark.parametrize(
    ("text", "breaks", "expected", "name"),
    [
        ("..aa..aa..", STABLE, -1, None),  # swings back
        ("..aaaa....", STABLE, 2, "angle"),  # sustained, although it returns later
        ("..baea..aa", STABLE, 2, "angle"),  # outside all along, by different coordinates
        ("........aa", STABLE, -1, None),  # undecided at the end
        ("......aaaa", STABLE, 6, "angle"),
        ("..aa..aabb", 8, 6, "angle"),  # breaks in an excursion
        ("..aa......", 7, 7, None),  # breaks with all coordinates in their ranges
        ("..aa...b..", 7, 7, "bond"),
        ("*.........", 0, 0, "bond"),
        ("..eeee....", 6, 2, "energy"),
    ],
)
@pytest.mark.parametrize("sizes", [[10], [5, 5], [1] * 10, [3, 4, 3]])
def test_an_excursion_is_a_departure_if_it_lasts(text, breaks, expected, name, sizes):
    departures = _follow(Departures(Made(), 1, 4), _frames(text), [breaks], sizes=sizes)
    assert departures.frames_before.tolist() == [expected]
    assert departures.departed.tolist() == [expected >= 0]
    assert departures.coordinates == [name]


def _one_by_one(outside, first, sustained):
    """The departure of one replica, frame by frame."""
    begin, counts = 0, torch.zeros(outside.shape[-1], dtype=torch.long)
    for frame, flags in enumerate(outside[: min(first + 1, len(outside))]):
        if not flags.any() and frame != first:
            begin, counts = frame + 1, torch.zeros_like(counts)
            continue
        counts = counts + flags
        if frame == first or frame + 1 - begin >= sustained:
            return begin, int(counts.argmax()) if counts.any() else -1
    return -1, -1


@pytest.mark.parametrize("seed", range(5))
def test_all_replicas_at_once_are_each_alone(seed):
    generator = torch.Generator().manual_seed(seed)
    n_frames, n_replicas, sustained = 60, 40, 5
    slow = torch.rand(n_frames // 4, n_replicas, 3, generator=generator).repeat_interleave(4, dim=0) < 0.12
    outside = slow & (torch.rand(n_frames, n_replicas, 3, generator=generator) < 0.9)
    breaks = torch.randint(0, 3 * n_frames, (n_replicas,), generator=generator)
    whole = _follow(Departures(Made(), n_replicas, sustained), outside, breaks, sizes=[12] * 5)
    pairs = [_one_by_one(outside[:, replica], int(breaks[replica]), sustained) for replica in range(n_replicas)]
    assert whole.frames_before.tolist() == [begin for begin, _ in pairs]
    assert whole.coordinates == [None if which < 0 else NAMES[which] for _, which in pairs]
    assert 0 < sum(begin >= 0 for begin, _ in pairs) < n_replicas


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_a_restored_state_goes_on_as_if_nothing_had_happened(stop):
    generator = torch.Generator().manual_seed(7)
    outside = torch.rand(60, 30, 3, generator=generator) < 0.35
    whole = _follow(Departures(Made(), 30, 6), outside, sizes=[12] * 5)
    first = _follow(Departures(Made(), 30, 6), outside[: 12 * stop], sizes=[12] * stop)
    second = Departures(Made(), 30, 6)
    second.load_state_dict(first.state_dict())
    _follow(second, outside[12 * stop :], sizes=[12] * (5 - stop))
    for name, value in whole.state_dict().items():
        assert torch.equal(torch.as_tensor(second.state_dict()[name]), torch.as_tensor(value)), name


def test_the_state_does_not_grow():
    departures = Departures(Made(), 4, 3)
    sizes = []
    for _ in range(3):
        _follow(departures, torch.ones(20, 4, 3, dtype=torch.bool))
        sizes.append(sum(torch.as_tensor(value).numel() for value in departures.state_dict().values()))
    assert len(set(sizes)) == 1


def test_a_damaged_coordinate_is_refused():
    state = Departures(Made(), 2, 3).state_dict() | {"coordinate": torch.tensor([0, 99])}
    with pytest.raises(ValueError, match="more coordinates than the support has"):
        Departures(Made(), 2, 3).load_state_dict(state)


@pytest.mark.parametrize(("ps", "interval_fs", "expected"), [(0.5, 20.0, 25), (0.5, 30.0, 17), (0.1, 500.0, 2)])
def test_a_time_is_a_number_of_frames(ps, interval_fs, expected):
    assert sustained_frames(ps, interval_fs) == expected
