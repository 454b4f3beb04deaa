"""Figures: complete files, the given curves, and the scalars of a real training."""

import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from mdsim.reporting import figures


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """The figure objects behind the files."""
    kept: list[Figure] = []
    save = figures.save_figure

    def keep(figure: Figure, path: Path) -> None:
        kept.append(figure)
        save(figure, path)

    monkeypatch.setattr(figures, "save_figure", keep)
    return kept


def survival_curve(rate: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    times = np.linspace(0, 300, 31)
    survival = np.exp(-rate * times)
    return times, survival, np.clip(survival - 0.1, 0, 1), np.clip(survival + 0.1, 0, 1)


def test_survival_curves_are_steps_in_the_colors_of_their_roles(tmp_path, drawn):
    curves = {"before StABlE": survival_curve(0.02), "after StABlE": survival_curve(0.001)}
    figures.survival_figure(tmp_path / "plots" / "survival.png", curves)
    (axes,) = drawn[0].axes
    for line, (label, (times, survival, *_)) in zip(axes.lines, curves.items(), strict=True):
        assert line.get_label() == label
        assert line.get_drawstyle() == "steps-post"
        np.testing.assert_array_equal(line.get_xydata(), np.stack([times, survival], axis=1))
    assert [line.get_color() for line in axes.lines] == [figures.BEFORE_COLOR, figures.AFTER_COLOR]
    assert axes.get_xlabel() == "time (ps)"
    assert len(axes.collections) == 2  # the bands


@pytest.mark.parametrize(("n", "shape"), [(1, (1, 1)), (4, (2, 2)), (6, (2, 3)), (7, (3, 3))])
def test_panels_are_in_rows_with_their_curves_and_floors(tmp_path, drawn, n, shape):
    x = np.linspace(-175, 175, 36)
    curves = {"before": (x**2, x**2 - 1, x**2 + 1), "after": (x**2 + 5, x**2, x**2 + 10)}
    panels = {f"phi {i}": figures.Panel(x, x**2 + i, curves, floor=4e4) for i in range(n)}
    figures.panels_figure(tmp_path / "dihedrals.png", panels, "angle (deg)", "meV", "empty", ticks=(-180.0, 0.0, 180.0))
    assert imread(tmp_path / "dihedrals.png").shape[2] in (3, 4)
    (figure,) = drawn
    assert len(figure.axes) == n
    assert figure.axes[0].get_gridspec().get_geometry() == shape
    for i, axes in enumerate(figure.axes):
        assert axes.get_title(loc="left") == f"phi {i}"
        np.testing.assert_array_equal(axes.lines[0].get_ydata(), x**2 + i)
        assert [line.get_color() for line in axes.lines[1:3]] == [figures.BEFORE_COLOR, figures.AFTER_COLOR]
        assert list(axes.lines[3].get_ydata()) == [4e4, 4e4]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["reference", "before", "after", "empty"]


def test_times_within_the_support_are_dashed_in_the_same_color(tmp_path, drawn):
    curves = {"before": survival_curve(0.02), "after": survival_curve(0.001)}
    within = {"before": survival_curve(0.05)}
    figures.survival_figure(tmp_path / "survival.png", curves, within, title="500 K")
    (axes,) = drawn[0].axes
    assert axes.get_title() == "500 K"
    before, dashed, after = axes.lines
    assert drawn[0].legends[0].get_title().get_text().startswith("dashed: within the support of the reference; ")
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["before", "after"]
    assert dashed.get_color() == before.get_color() != after.get_color()
    assert before.get_linestyle() == after.get_linestyle() == "-" and dashed.get_linestyle() == "--"
    np.testing.assert_array_equal(dashed.get_ydata(), within["before"][1])
    assert len(axes.collections) == 2, "no band of its own"


def test_observable_figure_shows_residuals_and_two_standard_errors(tmp_path, drawn):
    r = np.linspace(0.5, 6, 50)
    reference = np.sin(r) ** 2
    mean, standard_error = reference + 0.1, np.full(50, 0.03)
    figures.observable_figure(tmp_path / "rdf.png", r, reference, {"after": (mean, standard_error)}, "r (Å)", "RDF")
    main, residual = drawn[0].axes
    np.testing.assert_array_equal(main.lines[0].get_ydata(), reference)
    assert main.lines[0].get_color() == figures.REFERENCE_COLOR
    np.testing.assert_allclose(residual.lines[1].get_ydata(), 0.1)
    band = residual.collections[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([band.min(), band.max()], [0.04, 0.16])
    assert (main.get_ylabel(), residual.get_xlabel()) == ("RDF", "r (Å)")


def test_training_figure_has_a_panel_for_each_series_and_survives_what_training_gives(tmp_path, drawn):
    steps = np.arange(50)
    series = {
        "learn/loss": (steps, 10.0 ** (-steps / 10)),
        "explore/unstable fraction": (steps, np.where(steps == 10, np.nan, 0.5)),
        "force MAE (meV/Å)": (steps[:1], np.array([3.0])),
        "all lost": (steps, np.full(50, np.nan)),
    }
    figures.training_figure(tmp_path / "training.png", series)
    assert [axes.get_title(loc="left") for axes in drawn[0].axes] == list(series)
    assert [axes.get_yscale() for axes in drawn[0].axes] == ["log", "linear", "linear", "linear"]
    assert drawn[0].axes[2].lines[0].get_marker() == "o"
    assert [text.get_text() for axes in drawn[0].axes for text in axes.texts] == ["no finite values"]


def test_loss_figure_is_logarithmic_where_the_loss_falls_far(tmp_path, drawn):
    epochs = np.arange(1, 101)
    figures.loss_figure(tmp_path / "a.png", {"training": (epochs, 1 / epochs**2)}, "loss")
    figures.loss_figure(tmp_path / "b.png", {"training": (epochs, 1 + 1 / epochs)}, "loss")
    assert [figure.axes[0].get_yscale() for figure in drawn] == ["log", "linear"]


def test_files_are_png_at_full_resolution_and_leave_nothing_behind(tmp_path):
    path = tmp_path / "survival.png"
    path.write_bytes(b"of an earlier run")
    figures.survival_figure(path, {"before": survival_curve(0.01)})
    assert list(tmp_path.iterdir()) == [path]
    assert imread(path).shape[:2] == (round(3.6 * figures.DPI), round(5.2 * figures.DPI))


def test_a_failing_figure_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "survival.png"
    path.write_bytes(b"of an earlier run")
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        figures.survival_figure(path, {"before": survival_curve(0.01)})
    assert path.read_bytes() == b"of an earlier run"


def test_colors_of_unnamed_roles_differ():
    colors = figures._colors(["SchNet", "NequIP", "before", "After training", "GemNet"])
    assert colors["before"] == figures.BEFORE_COLOR
    assert colors["After training"] == figures.AFTER_COLOR
    assert len(set(colors.values())) == 5


def test_pyplot_is_not_needed():
    source = Path(sys.modules["mdsim.reporting.figures"].__file__).read_text(encoding="utf-8")
    assert "import pyplot" not in source
    assert "matplotlib.pyplot" not in source
