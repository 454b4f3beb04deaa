from dataclasses import replace
from itertools import count

import pytest
import torch
from tiny import SHIFT_EV, SilentWriter, frames, same_bits
from tiny_training import CHAINS, Displacement, Script
from tiny_training import trainer as _trainer

from mdsim import checkpoints
from mdsim.models.loading import load_force_field
from mdsim.training import stable
from mdsim.training.saved_weights import saved_weights
from mdsim.training.stable import StableTraining
from mdsim.training.terms import ObservableTerm


def _with_loss(trainer: StableTraining, loss) -> None:
    """Let the observable term have another loss."""
    observables, labels = trainer.learner.steps.terms
    (target,) = observables.term.targets
    changed = ObservableTerm([replace(target, loss=loss)])
    trainer.learner.steps.terms = [replace(observables, term=changed), labels]


def _phases(writer: SilentWriter) -> str:
    return "".join("e" if "explore/fraction_unstable" in values else "l" for _, values in writer.logged)


def test_phases_alternate_by_the_thresholds(tmp_path):
    # exploring: 1 of 4, then 1 of the 3 left -> 50 %; learning: 2, 1, 0 of the 2 parked; exploring again: 0, 2 of 4
    script = Script(1, 1, 2, 1, 0, 0, 2, 1)
    trainer, writer = _trainer(tmp_path, script, epochs=8, start_learning_at=0.5, reset_probability=0.0), SilentWriter()
    trainer.run(writer)
    assert _phases(writer) == "eellleel"
    assert [value for _, value in writer.all("explore/fraction_unstable")] == [0.25, 0.5, 0.0, 0.5]
    assert [value for _, value in writer.all("learn/fraction_unstable")] == [1.0, 0.5, 0.0, 0.5]
    assert [value for _, value in writer.all("cycle")] == [1, 1, 1, 1, 1, 2, 2, 2]
    assert [step for step, _ in writer.logged] == list(range(1, 9))
    assert trainer.progress.cycle == 2
    assert trainer.progress.cycle_epoch == 1
    written = sorted(path.name for path in (tmp_path / "run").glob("*.pt"))
    assert written == ["cycle1_epoch1.pt", "cycle1_epoch2.pt", "cycle2_epoch1.pt", "end_of_cycle1.pt", "last.pt"]


def test_all_replicas_move_again_after_a_cycle(tmp_path):
    trainer = _trainer(tmp_path, Script(2, 0), epochs=2, start_learning_at=0.5)
    trainer.run(SilentWriter())
    assert not trainer.replicas.parked.any()
    assert not trainer.replicas.stable_ps.any()
    assert not trainer.progress.learning


def test_a_tolerated_fraction_ends_the_cycle_without_a_step(tmp_path):
    trainer = _trainer(tmp_path, Script(4, 2), epochs=2, stop_learning_at=0.5)
    before = trainer.force_field.lin1.weight.detach().clone()
    trainer.run(SilentWriter())
    assert trainer.progress.cycle == 2
    assert torch.equal(trainer.force_field.lin1.weight, before)


def test_learning_ends_when_the_pooled_reruns_leave_no_doubt(tmp_path):
    # 4 parked, 8 reruns: 8, 1, 0, 0, 0 unstable; the upper 80 % bounds of 1/16, 0/16 and 0/24 are 17, 9 and 6 %
    script = Script(4, 8, 1, 0, 0, 0, 4)
    options = {"stop_window": 2, "stop_confidence": 0.8, "stop_learning_at": 0.1}
    trainer = _trainer(tmp_path, script, {"reruns": 8}, epochs=6, **options)
    writer = SilentWriter()
    trainer.run(writer)
    assert _phases(writer) == "elllle"
    assert [value for _, value in writer.all("learn/fraction_unstable")] == [1.0, 0.125, 0.0, 0.0]
    assert trainer.progress.recent == []


def test_exploring_can_be_bounded(tmp_path):
    # Without the bound, learning would wait for all four; it cannot start before one has broken.
    script = Script(1, 0, 1, 0, 0, 0, 2, 1)
    trainer = _trainer(tmp_path, script, epochs=8, start_learning_at=1.0, max_explore_epochs=2, reset_probability=0.0)
    writer = SilentWriter()
    trainer.run(writer)
    assert _phases(writer) == "eelleeel"


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_replicas_may_begin_again_with_each_cycle(tmp_path, probability):
    trainer = _trainer(tmp_path, Script(4, 0), epochs=2, start_learning_at=1.0, restart_probability=probability)
    before = trainer.replicas.state.positions
    trainer.run(SilentWriter())
    after, structures = trainer.replicas.state.positions, trainer.restarts.points[0].structures
    begun_again = (after[:, None] == structures).all(-1).all(-1).any(-1)
    assert begun_again.all() if probability else torch.equal(after, before)
    assert not trainer.replicas.parked.any()


def test_learning_while_exploring_steps_when_a_replica_broke(tmp_path):
    trainer = _trainer(tmp_path, Script(0, 1, 0), epochs=3, start_learning_at=1.0, learn_while_exploring=True)
    writer = SilentWriter()
    trainer.run(writer)
    assert _phases(writer) == "eee"
    assert [step for step, _ in writer.all("learn/steps")] == [2]
    # Three stretches of 4, 4 and 3 replicas, the samples of the second one, and 8 labeled frames.
    assert trainer.progress.force_evaluations == 11 * 12 + 4 * 3 + 8


def test_the_learning_rate_can_decay_from_cycle_to_cycle(tmp_path):
    learning = {"learning_rate": 1e-3, "learning_rate_decay": 0.5}
    trainer, writer = _trainer(tmp_path, Script(*[4, 4, 0] * 3), learning, epochs=9), SilentWriter()
    trainer.run(writer)
    assert [rate for _, rate in writer.all("learn/learning_rate")] == pytest.approx([1e-3, 5e-4, 2.5e-4])


def test_a_budget_of_force_evaluations_ends_the_run(tmp_path):
    trainer, writer = _trainer(tmp_path, Script(2, *[2] * 20), epochs=20, max_force_evaluations=150), SilentWriter()
    trainer.run(writer)
    # Exploring: 4 replicas of 12 steps. Learning: 2 of them, the 2 · 3 samples of the estimator and 8 labeled frames.
    spent = [48.0, 48 + 38, 48 + 2 * 38, 48 + 3 * 38]
    assert [value for _, value in writer.all("cost/force_evaluations")] == spent


def test_controls_step_as_often_and_as_far_but_elsewhere(tmp_path):
    steps = {}
    for direction in ("joint", "qm", "random"):
        learning = {"randomize_steps": direction == "random"}
        trainer = _trainer(tmp_path / direction, Script(4, 4), learning, observables=direction == "joint", epochs=2)
        before = trainer.force_field.lin1.weight.detach().clone()
        writer = SilentWriter()
        trainer.run(writer)
        assert writer.all("learn/steps") == [(2, 1.0)]
        steps[direction] = trainer.force_field.lin1.weight.detach() - before
    for control in ("qm", "random"):
        assert float(steps[control].norm()) == pytest.approx(float(steps["joint"].norm()), rel=0.1)
        assert not torch.equal(steps[control], steps["joint"])
    cosine = torch.nn.functional.cosine_similarity(steps["random"].flatten(), steps["joint"].flatten(), dim=0)
    assert abs(float(cosine)) < 0.5


def test_learning_waits_for_a_replica_that_broke(tmp_path):
    trainer, writer = _trainer(tmp_path, Script(0, 0, 1, 0), epochs=4, start_learning_at=0.0), SilentWriter()
    trainer.run(writer)
    assert _phases(writer) == "eeel"


def test_every_file_is_a_force_field(tmp_path):
    trainer = _trainer(tmp_path, Script(4, 4, 4, 0), epochs=4)
    trainer.run(SilentWriter())
    weights = {}
    for path in (tmp_path / "run").glob("*.pt"):
        model = load_force_field(path)
        assert model.energy_shift_eV.item() == SHIFT_EV
        weights[path.name] = model.lin1.weight
    assert weights.keys() == {"cycle1_epoch1.pt", "cycle1_epoch2.pt", "end_of_cycle1.pt", "last.pt"}
    assert torch.equal(weights["last.pt"], trainer.force_field.lin1.weight)
    assert torch.equal(weights["end_of_cycle1.pt"], weights["cycle1_epoch2.pt"])
    assert not torch.equal(weights["cycle1_epoch1.pt"], weights["cycle1_epoch2.pt"])
    saved = checkpoints.load(tmp_path / "run" / "cycle1_epoch2.pt", "force_field")["provenance"]
    assert (saved["data"], saved["epoch"], saved["cycle"], saved["cycle_epoch"]) == ("toy", 3, 1, 2)


@pytest.mark.parametrize("max_times_reduce_lr", [0, 1])
def test_plateaus_end_a_cycle(tmp_path, max_times_reduce_lr):
    learning = {
        "learning_rate": 1e-4,
        "plateau_factor": 0.5,
        "plateau_patience": 1,
        "max_times_reduce_lr": max_times_reduce_lr,
    }
    trainer, writer = _trainer(tmp_path, Script(*[4] * 20), learning, epochs=20, max_cycles=1), SilentWriter()
    grows = count(1)
    _with_loss(trainer, lambda mean, _: 0.0 * mean.sum() + next(grows))
    trainer.run(writer)
    # Two losses in a row that are no better reduce the rate; one reduction too many ends the cycle.
    rates = [rate for _, rate in writer.all("learn/learning_rate")]
    assert rates == pytest.approx([1e-4] * 3 + [5e-5] * 2 * max_times_reduce_lr)
    assert (tmp_path / "run" / "end_of_cycle1.pt").exists()


def test_the_number_of_steps_in_a_cycle_can_be_bounded(tmp_path):
    trainer = _trainer(tmp_path, Script(*[4] * 5), {"max_epochs_per_cycle": 2}, epochs=5)
    trainer.run(SilentWriter())
    assert trainer.progress.cycle == 2
    assert not (tmp_path / "run" / "cycle1_epoch3.pt").exists()


def test_cycles_can_be_bounded(tmp_path):
    trainer = _trainer(tmp_path, Script(*[4, 0] * 5), epochs=10, max_cycles=2)
    trainer.run(SilentWriter())
    assert trainer.progress.epoch == 4


def test_each_learning_phase_starts_with_the_full_rate_and_what_the_optimizer_knows(tmp_path):
    learning = {"plateau_factor": 0.1, "plateau_patience": 1, "max_times_reduce_lr": 1}
    trainer, writer = _trainer(tmp_path, Script(*[4] * 5, 0, 4, 4), learning, epochs=8), SilentWriter()
    grows = count(1)
    _with_loss(trainer, lambda mean, _: 0.0 * mean.sum() + next(grows))
    trainer.run(writer)
    assert _phases(writer) == "elllllel"
    assert [rate for _, rate in writer.all("learn/learning_rate")] == pytest.approx([1e-3] * 3 + [1e-4] + [1e-3])
    (steps,) = {int(state["step"]) for state in trainer.schedule.optimizer.state.values()}
    assert steps == 5


def test_without_usable_frames_the_labels_still_teach(tmp_path):
    trainer, writer = _trainer(tmp_path, Script(4, 4), epochs=2), SilentWriter()
    state = trainer.replicas.state
    nowhere = torch.full_like(state.positions, torch.nan)
    trainer.replicas = type(trainer.replicas).at(type(state)(**{**state.tensors(), "positions": nowhere}))
    before = trainer.force_field.lin1.weight.detach().clone()
    trainer.run(writer)
    after = trainer.force_field.lin1.weight
    assert torch.isfinite(after).all()
    assert not torch.equal(after, before)
    assert writer.all("learn/samples") == [(2, 0.0)]


def test_the_bond_criterion_breaks_and_learning_repairs_something(tmp_path):
    trainer, writer = _trainer(tmp_path, Displacement(), epochs=6), SilentWriter()
    trainer.run(writer)
    assert "l" in _phases(writer)
    assert all(torch.isfinite(p).all() for p in trainer.force_field.parameters())


def test_resuming_is_bit_identical_at_every_epoch(tmp_path):
    """Model, optimizer, schedule, replicas with their past, and random numbers."""
    epochs = 6
    changes = {"reset_probability": 0.5, "start_learning_at": 0.5}
    learning = {"max_epochs_per_cycle": 2, "steps_per_rerun": 2}
    whole, whole_writer = (
        _trainer(tmp_path / "whole", Displacement(), learning, epochs=epochs, **changes),
        SilentWriter(),
    )
    whole.run(whole_writer)
    assert {"e", "l"} == set(_phases(whole_writer))
    for stop in range(1, epochs):
        root = tmp_path / f"stopped_{stop}"
        _trainer(root, Displacement(), learning, epochs=stop, **changes).run(SilentWriter())
        resumed, writer = _trainer(root, Displacement(), learning, epochs=epochs, **changes), SilentWriter()
        resumed.resume_from(root / "run" / "last.pt")
        resumed.run(writer)
        assert same_bits(resumed.state_dict(), whole.state_dict()), f"stopped after epoch {stop}"
        assert same_bits(writer.logged, whole_writer.logged[stop:])


def test_what_is_saved_is_computed_once_between_two_steps(tmp_path, monkeypatch):
    steps_at_calls = []
    trainer = _trainer(tmp_path, Script(0, 4, 4, 0, 0), epochs=5)

    def counted(*arguments):
        steps_at_calls.append(trainer.schedule.steps)
        return saved_weights(*arguments)

    monkeypatch.setattr(stable, "saved_weights", counted)
    trainer.run(SilentWriter())
    assert steps_at_calls == [0, 1]
    files = (tmp_path / "run" / name for name in ("cycle1_epoch1.pt", "end_of_cycle1.pt", "last.pt"))
    weights = [load_force_field(path).lin1.weight for path in files]
    assert all(torch.equal(one, trainer.force_field.lin1.weight) for one in weights)


def test_chains_never_park_and_every_epoch_steps(tmp_path):
    trainer, writer = _trainer(tmp_path, Script(2, 0, 1, 4), epochs=4, **CHAINS), SilentWriter()
    trainer.run(writer)
    assert [value for _, value in writer.all("explore/restarted")] == [2.0, 0.0, 1.0, 4.0]
    assert [value for _, value in writer.all("learn/steps")] == [1.0] * 4
    assert [value for _, value in writer.all("cycle")] == [1, 1, 2, 2]
    assert not trainer.replicas.parked.any()
    written = {path.name for path in (tmp_path / "run").glob("*.pt")}
    epochs = {f"cycle{cycle}_epoch{epoch}.pt" for cycle in (1, 2) for epoch in (1, 2)}
    assert written == epochs | {"end_of_cycle1.pt", "end_of_cycle2.pt", "last.pt"}


def test_broken_chains_restart_from_the_data_and_the_others_go_on(tmp_path):
    trainer = _trainer(tmp_path, Script(2), epochs=1, **CHAINS)
    trainer.run(SilentWriter())
    data = frames(20, seed=1).positions.double()
    distance = (trainer.replicas.state.positions[:, None] - data).abs().amax((-2, -1)).amin(1)
    assert (distance == 0).tolist() == [True, True, False, False]
    assert (trainer.replicas.stable_ps == 0).tolist() == [True, True, False, False]
    assert trainer.replicas.state.velocities.norm(dim=-1).gt(0).all()


def test_resuming_chains_is_bit_identical(tmp_path):
    whole, whole_writer = _trainer(tmp_path / "whole", Displacement(), epochs=5, **CHAINS), SilentWriter()
    whole.run(whole_writer)
    assert sum(value for _, value in whole_writer.all("explore/restarted")) > 0
    _trainer(tmp_path / "stopped", Displacement(), epochs=3, **CHAINS).run(SilentWriter())
    resumed, writer = _trainer(tmp_path / "stopped", Displacement(), epochs=5, **CHAINS), SilentWriter()
    resumed.resume_from(tmp_path / "stopped" / "run" / "last.pt")
    resumed.run(writer)
    assert same_bits(resumed.state_dict(), whole.state_dict())
    assert same_bits(writer.logged, whole_writer.logged[3:])


def test_chains_need_structures_to_restart_from(tmp_path):
    trainer = _trainer(tmp_path, Script(2), epochs=1, **CHAINS)
    with pytest.raises(ValueError, match="restarts"):
        StableTraining(
            trainer.force_field,
            trainer.stretch,
            trainer.replicas.state,
            trainer.learner.steps.terms,
            trainer.learner.sampling,
            trainer.settings,
            tmp_path,
            trainer.generator,
        )


def test_resuming_a_run_without_a_checkpoint_begins_at_the_beginning(tmp_path):
    trainer = _trainer(tmp_path, Script())
    trainer.resume_from(tmp_path / "run" / "last.pt")
    assert trainer.progress.epoch == 0
