"""The course of a training as TensorBoard charts, as a figure, and in its report."""

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from mdsim.evaluation import report
from mdsim.reporting.phases import CHARTS, phases_figure
from mdsim.reporting.scalars import ScalarWriter


def _train(folder) -> None:
    """Two cycles of two epochs of exploring and one of learning."""
    with ScalarWriter(folder) as writer:
        writer.lay_out("StABlE training", CHARTS)
        for epoch in range(1, 7):
            if epoch % 3:
                scalars = {"explore/fraction_unstable": 0.1 * epoch, "explore/mean_stable_time_ps": 0.5 * epoch}
            else:
                scalars = {"learn/fraction_unstable": 0.2, "learn/energies_forces_loss": 10.0**-epoch}
            writer.log(epoch, scalars | {"cycle": 1 + (epoch - 1) // 3})


def test_tensorboard_has_the_charts(tmp_path):
    _train(tmp_path)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (event,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    (category,) = layout.category
    assert [chart.title for chart in category.chart] == list(CHARTS)
    assert list(category.chart[1].multiline.tag) == ["explore/mean_stable_time_ps"]


def test_the_report_of_a_training_has_its_course(tmp_path):
    _train(tmp_path)
    (tmp_path / "config.yml").write_text("seed: 5\n", encoding="utf-8")
    assert [path.name for path in report.draw_training(tmp_path)] == ["phases.png", "training.png"]
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "6 epochs, 2 cycles" in text
    assert "50 % of the replicas were unstable" in text
    assert "mean stable time was 2.5 ps then, and 2.5 ps at most" in text
    assert text.count("data:image/png") == 2 and "seed: 5" in text
    assert "<script" not in text, "a page without a replay needs no viewer"


def test_phases_and_cycles_are_marked(tmp_path, monkeypatch):
    shaded, lines = [], []
    monkeypatch.setattr("matplotlib.axes.Axes.axvspan", lambda _, low, high, **__: shaded.append((low, high)))
    monkeypatch.setattr("matplotlib.axes.Axes.axvline", lambda _, x, **__: lines.append(x))
    epochs = np.arange(1.0, 5.0)
    scalars = {
        "explore/fraction_unstable": (epochs[[0, 2]], np.array([0.5, 0.2])),
        "learn/fraction_unstable": (epochs[[1, 3]], np.array([0.4, 0.1])),
        "cycle": (epochs, np.array([1, 1, 2, 2])),
    }
    phases_figure(tmp_path / "phases.png", scalars)
    assert shaded == [(1.5, 2.5), (3.5, 4.5)]
    assert lines == [2.5]


def test_no_scalars_of_a_training_are_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"no scalars of a StABlE training among \['train/loss'\]"):
        phases_figure(tmp_path / "phases.png", {"train/loss": (np.ones(1), np.ones(1))})
