"""TensorBoard events are read back with TensorBoard's own reader; W&B is replaced by a recorder, or run offline."""

import math
import resource
import shutil
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.metadata import EXPERIMENT_TAG, SESSION_START_INFO_TAG
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from mdsim.reporting.figures import survival_figure
from mdsim.reporting.scalars import OUTCOMES, WANDB_ID_FILE, ScalarWriter


def read_scalars(run_dir, name: str) -> dict[int, float]:
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0})
    events.Reload()
    return {event.step: event.value for event in events.Scalars(name)}


class FakeWandb:
    """Records what a run is started with and logs."""

    def __init__(self):
        self.Image = str
        self.starts, self.logged, self.metrics, self.finished = [], [], [], 0

    def init(self, **arguments):
        self.starts.append(arguments)
        return SimpleNamespace(
            id=arguments["id"] or "fresh",
            log=self.logged.append,
            define_metric=lambda *names, **options: self.metrics.append((names, options)),
            finish=self._finish,
        )

    def _finish(self):
        self.finished += 1


@pytest.fixture
def fake_wandb(monkeypatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_tensorboard_reads_back_what_was_logged(tmp_path):
    with ScalarWriter(tmp_path) as writer:
        for step in range(5):
            writer.log(step, {"learn/loss": 0.5 * step, "explore/unstable": torch.tensor(step)})
    assert read_scalars(tmp_path, "learn/loss") == {step: 0.5 * step for step in range(5)}
    assert read_scalars(tmp_path, "explore/unstable") == {step: float(step) for step in range(5)}


def test_figures_are_the_same_files_in_every_backend(tmp_path, fake_wandb):
    path = tmp_path / "survival.png"
    survival_figure(path, {"pre": (np.array([0.0, 1.0]), *np.array([[1.0, 0.5], [1.0, 0.2], [1.0, 0.8]]))})
    with ScalarWriter(tmp_path, {}, {"project": "p"}) as writer:
        writer.log_figures(7, [path])
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (image,) = events.Images("figures/survival")
    assert (image.step, image.encoded_image_string) == (7, path.read_bytes())
    assert (image.width, image.height) == (780, 540), "5.2 x 3.6 inches at 150 dpi"
    assert fake_wandb.logged == [{"step": 7, "figures/survival": str(path)}]


def test_flush_makes_scalars_visible_while_the_run_goes_on(tmp_path):
    with ScalarWriter(tmp_path) as writer:
        writer.log(3, {"loss": 1.0})
        writer.flush()
        assert read_scalars(tmp_path, "loss") == {3: 1.0}


def test_a_folder_that_vanishes_is_an_error_of_the_call_that_writes(tmp_path, capfd):
    threads = threading.active_count()
    writer = ScalarWriter(tmp_path / "run")
    assert threading.active_count() == threads, "a thread would end in a traceback"
    shutil.rmtree(tmp_path / "run")
    writer.log(0, {"loss": 1.0})
    with pytest.raises(FileNotFoundError, match=r"events\.out\.tfevents.* was removed while the run goes on"):
        writer.flush()
    writer.close()
    assert capfd.readouterr().err == ""


def test_a_full_disk_is_an_error_of_the_call_that_writes(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with ScalarWriter(tmp_path) as writer:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        try:
            with pytest.raises(OSError, match="File too large"):
                for step in range(1000):
                    writer.log(step, {"loss": 1.0})
                writer.flush()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_many_files_of_one_second_are_joined(tmp_path):
    for step in range(5):
        with ScalarWriter(tmp_path, purge_step=step) as writer:
            writer.log(step, {"loss": float(step)})
    assert read_scalars(tmp_path, "loss") == {step: float(step) for step in range(5)}


def test_non_finite_values_are_written_as_they_are(tmp_path):
    with ScalarWriter(tmp_path) as writer:
        writer.log(0, {"loss": float("nan")})
        writer.log(1, {"loss": float("-inf")})
    values = read_scalars(tmp_path, "loss")
    assert math.isnan(values[0])
    assert values[1] == -math.inf


def test_resume_replaces_the_steps_after_the_checkpoint(tmp_path):
    with ScalarWriter(tmp_path) as writer:
        for step in range(10):
            writer.log(step, {"loss": float(step)})
    with ScalarWriter(tmp_path, purge_step=5) as writer:
        writer.log(5, {"loss": -5.0})
        writer.log(6, {"loss": -6.0})
    assert read_scalars(tmp_path, "loss") == {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: -5.0, 6: -6.0}


def test_config_is_shown_next_to_the_curves(tmp_path):
    with ScalarWriter(tmp_path, config={"model": {"name": "schnet"}, "data": tmp_path}):
        pass
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (event,) = events.Tensors("config/text_summary")
    text = event.tensor_proto.string_val[0].decode()
    assert '"name": "schnet"' in text
    assert str(tmp_path) in text


def test_settings_are_hyperparameters_with_the_outcomes_as_metrics(tmp_path):
    settings = {"learning.learning_rate": 0.001, "amp": False, "terms": [{"name": "contrast"}], "model.name": "schnet"}
    with ScalarWriter(tmp_path, hyperparameters=settings):
        pass
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    found = events.SummaryMetadata(SESSION_START_INFO_TAG).plugin_data.content
    start = HParamsPluginData.FromString(found).session_start_info.hparams
    assert start["learning.learning_rate"].number_value == 0.001 and start["model.name"].string_value == "schnet"
    assert start["amp"].bool_value is False and start["terms"].string_value == "[{'name': 'contrast'}]"
    found = events.SummaryMetadata(EXPERIMENT_TAG).plugin_data.content
    metrics = [info.name.tag for info in HParamsPluginData.FromString(found).experiment.metric_infos]
    assert metrics == list(OUTCOMES)


def test_wandb_gets_the_same_scalars_on_the_step_axis_of_the_run(tmp_path, fake_wandb):
    with ScalarWriter(tmp_path, config={"seed": 1}, wandb={"project": "p", "name": "n", "mode": "offline"}) as writer:
        writer.log(7, {"learn/loss": 0.25})
    (start,) = fake_wandb.starts
    assert (start["project"], start["name"], start["mode"], start["config"]) == ("p", "n", "offline", {"seed": 1})
    assert (start["id"], start["resume"], start["dir"]) == (None, "allow", str(tmp_path))
    assert fake_wandb.logged == [{"step": 7, "learn/loss": 0.25}]
    assert fake_wandb.metrics == [(("*",), {"step_metric": "step"})]
    assert fake_wandb.finished == 1
    assert read_scalars(tmp_path, "learn/loss") == {7: 0.25}


def test_wandb_run_is_continued_by_its_id(tmp_path, fake_wandb):
    for _ in range(2):
        ScalarWriter(tmp_path / "run", wandb={"project": "p"}).close()
    assert [start["id"] for start in fake_wandb.starts] == [None, "fresh"]
    assert (tmp_path / "run" / WANDB_ID_FILE).read_text() == "fresh\n"


def test_missing_wandb_names_the_extra_and_leaves_nothing_open(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'mdsim\[wandb\]'"):
        ScalarWriter(tmp_path, wandb={"project": "p"})
    assert list(tmp_path.iterdir()) == []


def test_wandb_is_not_imported_unless_asked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with ScalarWriter(tmp_path) as writer:
        writer.log(0, {"loss": 1.0})


@pytest.mark.slow
def test_real_wandb_offline_keeps_its_run_id(tmp_path):
    pytest.importorskip("wandb")
    for _ in range(2):
        with ScalarWriter(tmp_path, wandb={"project": "p", "mode": "offline"}) as writer:
            writer.log(0, {"loss": 1.0})
    run_id = (tmp_path / WANDB_ID_FILE).read_text().strip()
    assert len(list(tmp_path.rglob(f"run-{run_id}.wandb"))) == 2
