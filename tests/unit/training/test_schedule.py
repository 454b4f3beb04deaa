"""Optimizers by name, learning rates, and the rule that ends a learning phase."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from mdsim.training.schedule import OptimizerSettings, Schedule, UnstableFraction, make_optimizer


def _parameter() -> nn.Parameter:
    return nn.Parameter(torch.ones(1, dtype=torch.float64))


@pytest.mark.parametrize(
    ("settings", "kind", "group"),
    [
        ({"optimizer": "adam", "amsgrad": True, "eps": 1e-7}, torch.optim.Adam, {"amsgrad": True, "eps": 1e-7}),
        ({"optimizer": "adamw", "weight_decay": 0.1}, torch.optim.AdamW, {"weight_decay": 0.1, "amsgrad": False}),
        ({"optimizer": "sgd", "momentum": 0.9}, torch.optim.SGD, {"momentum": 0.9}),
    ],
)
def test_optimizers_by_name(settings, kind, group):
    optimizer = make_optimizer([_parameter()], OptimizerSettings(**settings))
    assert type(optimizer) is kind
    assert group.items() <= optimizer.param_groups[0].items()


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(ValueError, match="found 'lion', expected adam, adamw or sgd"):
        make_optimizer([_parameter()], OptimizerSettings("lion"))


def _step(schedule: Schedule, parameter: nn.Parameter) -> float:
    parameter.grad = torch.ones_like(parameter)
    before = float(parameter.detach())
    schedule.step()
    return before - float(parameter.detach())


def test_warm_up_is_linear_and_outlives_a_plateau():
    parameter = _parameter()
    settings = OptimizerSettings("sgd", 1.0, warmup_steps=4, warmup_factor=0.2, plateau_factor=0.5, plateau_patience=1)
    schedule = Schedule([parameter], settings)
    assert [_step(schedule, parameter) for _ in range(3)] == pytest.approx([0.2, 0.4, 0.6])
    for _ in range(3):
        schedule.observe(1.0)
    assert schedule.reductions == 1
    assert [_step(schedule, parameter) for _ in range(3)] == pytest.approx([0.4, 0.5, 0.5])


def test_a_restart_forgets_plateaus_but_not_gradients():
    parameter = _parameter()
    schedule = Schedule([parameter], OptimizerSettings("adam", 1e-2, plateau_factor=0.1, plateau_patience=1))
    _step(schedule, parameter)
    for _ in range(3):
        schedule.observe(1.0)
    schedule.restart(0.5)
    assert schedule.current_rate == pytest.approx(5e-3) and schedule.reductions == 0
    assert schedule.optimizer.state[parameter]["step"] == 1


def test_a_loss_that_is_not_a_number_is_no_improvement():
    schedule = Schedule([_parameter()], OptimizerSettings(plateau_patience=1))
    for loss in (1.0, float("nan"), float("nan")):
        schedule.observe(loss)
    assert schedule.reductions == 1


def test_a_saved_schedule_continues_exactly():
    settings = OptimizerSettings(
        "adam", 1e-2, warmup_steps=5, warmup_factor=0.1, plateau_factor=0.5, plateau_patience=1
    )
    losses = [1.0, 1.0, 0.9, 0.9, 0.9, 0.9, 0.8, 0.8, 0.8, 0.8]
    parameter = _parameter()
    whole = Schedule([parameter], settings)
    for place, loss in enumerate(losses):
        if place == 4:
            saved, value = deepcopy(whole.state_dict()), parameter.detach().clone()
        _step(whole, parameter)
        whole.observe(loss)
    other = nn.Parameter(value)
    resumed = Schedule([other], settings)
    resumed.load_state_dict(saved)
    for loss in losses[4:]:
        _step(resumed, other)
        resumed.observe(loss)
    assert torch.equal(other, parameter)
    assert resumed.learning_rate == whole.learning_rate < 1e-2


@pytest.mark.parametrize(
    ("rule", "recent", "holds"),
    [
        (UnstableFraction(), [(0, 4)], True),
        (UnstableFraction(), [(1, 4)], False),
        (UnstableFraction(0.25), [(1, 4)], True),
        (UnstableFraction(0.25, window=2), [(4, 4), (0, 4)], False),
        (UnstableFraction(0.25, window=1), [(4, 4), (0, 4)], True),
        (UnstableFraction(0.1, 2, 0.8), [(1, 8), (0, 8)], False),  # the upper bound of 1/16 is 17 %
        (UnstableFraction(0.1, 2, 0.8), [(0, 8), (0, 8)], True),  # that of 0/16 is 9 %
    ],
)
def test_the_rule_that_ends_a_learning_phase(rule, recent, holds):
    assert rule.holds(recent) is holds
