import copy
import logging
from functools import partial

import pytest
import torch
from tiny import SHIFT_EV, SilentWriter, frames, same_bits, schnet, water

from mdsim import checkpoints, losses
from mdsim.errors import CheckpointError, TrainingError
from mdsim.evaluation.errors import errors_on, predict
from mdsim.models.loading import load_force_field
from mdsim.training.fit_data import OneSystem
from mdsim.training.pretrain import FitSettings, Pretraining
from mdsim.training.schedule import OptimizerSettings

N_TRAIN = 16


def _fit(run_dir, amp: bool = False, **settings) -> Pretraining:
    model = schnet()
    names = OptimizerSettings.__dataclass_fields__
    optimizer = OptimizerSettings(**{key: settings.pop(key) for key in names if key in settings})
    fit = FitSettings(optimizer, **{"batch_size": 4, "max_epochs": 2, **settings})
    loss = partial(losses.energy_force_loss, energy_weight=0.5, force_weight=0.5, force_loss=losses.mean_absolute_error)
    return Pretraining(
        model,
        OneSystem(water(torch.float32), frames(N_TRAIN, seed=1), frames(6, seed=2), loss),
        fit,
        run_dir,
        seed=3,
        amp=amp,
    )


def test_the_loss_goes_down(tmp_path):
    trainer, writer = _fit(tmp_path, max_epochs=40, learning_rate=0.02, evaluate_every_epochs=5), SilentWriter()
    before = errors_on(trainer.model, trainer.data.system, trainer.data.val, 100)
    trainer.fit(writer, print_every=1000)
    after = errors_on(trainer.model, trainer.data.system, trainer.data.val, 100)
    assert after["force_mae_meV_per_A"] < 0.8 * before["force_mae_meV_per_A"]
    validation = writer.all("val/loss")
    assert [step for step, _ in validation] == [20 * i for i in range(9)], "before, then every fifth epoch of 4 steps"
    assert validation[-1][1] < 0.5 * validation[0][1]


def _loses_its_way(trainer, loss: float, until: int = 10**9) -> None:
    """Give the steps up to one another loss, with the gradient that they have."""
    own = trainer.data.loss

    def wrong(*arguments):
        value = own(*arguments)
        changed = value.requires_grad and trainer.progress.step < until
        return value - value.detach() + loss if changed else value

    trainer.data.loss = wrong


@pytest.mark.parametrize("ema_decay", [None, 0.9])
@pytest.mark.parametrize("loss", [torch.nan, torch.inf])
def test_a_step_without_a_finite_loss_changes_nothing(tmp_path, caplog, loss, ema_decay):
    trainer = _fit(tmp_path, max_epochs=1, ema_decay=ema_decay)
    before = copy.deepcopy(trainer.state_dict())
    _loses_its_way(trainer, loss)
    with caplog.at_level(logging.WARNING, "mdsim"):
        trainer.fit(SilentWriter())
    after = trainer.state_dict()
    assert all(same_bits(after[key], before[key]) for key in ("model", "average"))
    assert after["schedule"]["steps"] == 0 and trainer.progress.skipped == 4
    assert "not finite: loss: step skipped (4 in a row)" in caplog.text


def test_a_gradient_that_is_not_finite_changes_nothing(tmp_path, caplog):
    trainer = _fit(tmp_path, max_epochs=1)
    before = copy.deepcopy(trainer.state_dict()["model"])
    trainer.parameters[0].register_hook(lambda gradient: gradient * torch.nan)
    with caplog.at_level(logging.WARNING, "mdsim"):
        trainer.fit(SilentWriter())
    assert same_bits(trainer.state_dict()["model"], before)
    assert "not finite: gradient: step skipped (4 in a row)" in caplog.text


def test_too_many_skipped_steps_end_a_fit(tmp_path):
    trainer = _fit(tmp_path, max_epochs=10)
    _loses_its_way(trainer, torch.nan)
    with pytest.raises(TrainingError, match="20 steps in a row had no finite loss: lower"):
        trainer.fit(SilentWriter())


def test_a_finite_step_forgives_what_was_skipped(tmp_path):
    trainer = _fit(tmp_path, max_epochs=2)
    _loses_its_way(trainer, torch.nan, until=3)
    trainer.fit(SilentWriter())
    assert trainer.progress.skipped == 0 and trainer.schedule.steps == 5 and trainer.progress.step == 8


def test_a_fit_that_is_resumed_after_its_end_changes_nothing(tmp_path):
    """It may have been killed between its last checkpoint and its report."""
    _fit(tmp_path).fit(SilentWriter())
    best = tmp_path / "checkpoints" / "best_checkpoint.pt"
    before = checkpoints.read(best)
    again = _fit(tmp_path)
    again.resume_from(tmp_path / "checkpoints" / "last.pt")
    again.fit(SilentWriter())
    assert "recentered_eV" in before["provenance"] and same_bits(checkpoints.read(best), before)


def test_the_zero_of_energy_is_the_mean_label(tmp_path):
    trainer = _fit(tmp_path)
    zero = trainer.model.zero_energy_eV(trainer.data.system).item()
    assert zero == pytest.approx(float(trainer.data.train.energy.mean()), abs=1e-9)
    assert abs(trainer.data.energy.mean()) < 1e-4


def test_warm_up(tmp_path):
    trainer, writer = _fit(tmp_path, warmup_steps=6, warmup_factor=0.2, learning_rate=1e-3), SilentWriter()
    used = []
    trainer.schedule.optimizer.register_step_post_hook(
        lambda optimizer, *_: used.append(optimizer.param_groups[0]["lr"])
    )
    trainer.fit(writer, print_every=1)
    expected = [1e-3 * (0.2 + 0.8 * min(1.0, step / 6)) for step in range(8)]
    assert used == pytest.approx(expected)
    assert [rate for _, rate in writer.all("train/learning_rate")] == pytest.approx(expected), "what was used is logged"


def test_plateau_and_early_stopping(tmp_path):
    settings = {"plateau_factor": 0.5, "plateau_patience": 1, "learning_rate": 1e-13, "early_stopping_lr": 3e-14}
    trainer = _fit(tmp_path, max_epochs=50, batch_size=16, **settings)
    trainer.schedule.plateau.eps = 0.0
    trainer.fit(SilentWriter())
    # Nothing improves: the rate halves at each second evaluation after the first, and 2.5e-14 is below the bound.
    assert trainer.schedule.learning_rate == pytest.approx(2.5e-14)
    assert trainer.progress.epoch == 4


def test_time_runs_out(tmp_path):
    trainer = _fit(tmp_path, max_epochs=50, early_stopping_time_s=1e-6)
    trainer.fit(SilentWriter())
    assert trainer.progress.epoch == 1


def test_averaged_weights(tmp_path):
    trainer = _fit(tmp_path, ema_decay=0.7, learning_rate=0.01)
    weights = []
    trainer.schedule.optimizer.register_step_post_hook(
        lambda *_: weights.append(trainer.model.lin1.weight.detach().clone())
    )
    trainer.fit(SilentWriter())
    average = weights[0]
    for new in weights[1:]:
        average = 0.7 * average + 0.3 * new
    assert len(weights) == 8
    saved = load_force_field(tmp_path / "checkpoints" / "last.pt")
    torch.testing.assert_close(saved.lin1.weight.detach(), average)
    assert not torch.allclose(saved.lin1.weight, trainer.model.lin1.weight)
    with trainer.average.applied() as model:
        assert torch.equal(saved.lin1.weight, model.lin1.weight), "the average is evaluated and saved"
    assert torch.equal(trainer.model.lin1.weight, weights[-1])


def test_the_best_is_kept_and_the_last_is_the_last(tmp_path):
    trainer, writer = _fit(tmp_path, max_epochs=12, learning_rate=0.2), SilentWriter()
    trainer.fit(writer)
    history = trainer.progress.history
    best = min(history, key=lambda record: record["loss"])
    assert best["epoch"] not in (0, 12), "the rate is so high that the fit gets worse again"
    payload = checkpoints.load(tmp_path / "checkpoints" / "best_checkpoint.pt", "force_field")
    assert payload["provenance"]["epoch"] == best["epoch"] == trainer.progress.history[trainer.progress.best]["epoch"]
    model = load_force_field(tmp_path / "checkpoints" / "best_checkpoint.pt")
    errors = errors_on(model, trainer.data.system, trainer.data.val, 100)
    assert errors["force_mae_meV_per_A"] == pytest.approx(best["force_mae_meV_per_A"], rel=1e-5)
    last = load_force_field(tmp_path / "checkpoints" / "last.pt")
    assert torch.equal(last.lin1.weight, trainer.model.lin1.weight)


def _without_time(state: dict) -> dict:
    state = copy.deepcopy(state)
    state["progress"].pop("seconds")
    return state


@pytest.mark.parametrize(
    ("amp", "settings"),
    [
        (False, {"ema_decay": 0.9, "warmup_steps": 10, "plateau_patience": 1, "learning_rate": 0.1}),
        (False, {"optimizer": "adamw", "amsgrad": True, "weight_decay": 0.01, "clip_norm": 0.5}),
        (True, {"learning_rate": 0.01}),
    ],
)
def test_resuming_is_bit_identical(tmp_path, amp, settings):
    whole = _fit(tmp_path / "whole", amp, max_epochs=6, **settings)
    whole.fit(SilentWriter())
    for stop in (1, 3):
        run_dir = tmp_path / f"stopped_{stop}"
        _fit(run_dir, amp, max_epochs=stop, **settings).fit(SilentWriter())
        resumed = _fit(run_dir, amp, max_epochs=6, **settings)
        resumed.resume_from(run_dir / "checkpoints" / "last.pt")
        assert resumed.progress.epoch == stop
        resumed.fit(SilentWriter())
        assert same_bits(_without_time(resumed.state_dict()), _without_time(whole.state_dict()))
        best = [
            checkpoints.read(folder / "checkpoints" / "best_checkpoint.pt") for folder in (tmp_path / "whole", run_dir)
        ]
        assert same_bits(*best)


def test_resuming_without_a_checkpoint_begins_at_the_beginning(tmp_path):
    trainer = _fit(tmp_path)
    trainer.resume_from(tmp_path / "checkpoints" / "last.pt")
    assert trainer.progress.epoch == 0


def test_a_checkpoint_of_another_kind_is_refused(tmp_path):
    trainer = _fit(tmp_path)
    trainer.fit(SilentWriter())
    with pytest.raises(CheckpointError, match="'force_field', and 'pretraining' is needed"):
        trainer.resume_from(tmp_path / "checkpoints" / "best_checkpoint.pt")


def test_mixed_precision_still_learns(tmp_path):
    trainer = _fit(tmp_path, amp=True, max_epochs=15, learning_rate=0.02)
    trainer.fit(SilentWriter())
    losses_seen = [record["loss"] for record in trainer.progress.history]
    assert min(losses_seen) < 0.7 * losses_seen[0]
    assert trainer.model.lin1.weight.dtype == torch.float32


def test_predictions_do_not_depend_on_the_batch_size():
    model, positions = schnet().double(), frames(7).positions.double()
    whole, parts = (predict(model, water(), positions, size) for size in (100, 3))
    torch.testing.assert_close(whole, parts)
    assert not whole[1].requires_grad


def test_errors_against_a_direct_computation():
    model, labeled = schnet(), frames(5)
    errors = errors_on(model, water(torch.float32), labeled, 2)
    energy, forces = model(water(torch.float32), labeled.positions)
    expected = 1000 * (energy.double() - (labeled.energy - SHIFT_EV)).abs().mean().item()
    assert errors["energy_mae_meV"] == pytest.approx(expected, rel=1e-4)
    assert errors["force_mae_meV_per_A"] == pytest.approx(
        1000 * (forces - labeled.forces).abs().mean().item(), rel=1e-4
    )


def test_a_fit_ends_with_energies_that_are_right_on_average(tmp_path):
    trainer = _fit(tmp_path, max_epochs=2)
    trainer.fit(SilentWriter())
    model = load_force_field(tmp_path / "checkpoints" / "best_checkpoint.pt")
    energy, _ = predict(model, trainer.data.system, trainer.data.positions, 100)
    residual = trainer.data.train.energy - energy.double() - model.zero_energy_eV(trainer.data.system)
    assert abs(float(residual.mean())) < 1e-5
    moved = checkpoints.load(tmp_path / "checkpoints" / "best_checkpoint.pt")["provenance"]["recentered_eV"]
    assert abs(moved) > 1e-3, "without it they would not be"
