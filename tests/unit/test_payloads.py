"""Forms of saved states: acceptance of matching states, and the first difference named in the error."""

import copy
import math

import pytest
import torch

from mdsim.errors import CheckpointError
from mdsim.payloads import (
    Mismatch,
    check,
    digest,
    expect,
    like,
    list_of,
    mapping_of,
    number,
    optimizer_state,
    optional,
    restoring,
    same,
    scheduler_state,
    tensor,
)

TEMPLATE = {"w": torch.zeros(2, 3), "n": 1, "name": "a", "on": True, "none": None, "pair": [1.0, 2]}


def test_a_value_has_the_form_that_is_made_of_it():
    check(TEMPLATE, like(TEMPLATE), "")
    check({**TEMPLATE, "w": torch.ones(2, 3), "n": 7, "pair": (0.5, 3)}, like(TEMPLATE), "")


@pytest.mark.parametrize(
    ("form", "value", "message"),
    [
        (
            like(TEMPLATE),
            {**TEMPLATE, "w": torch.zeros(3, 2)},
            r"^w: expected float32 of shape \(2, 3\), found float32",
        ),
        (like(TEMPLATE), {**TEMPLATE, "w": torch.zeros(2, 3).double()}, "w: expected float32"),
        (like(TEMPLATE), {**TEMPLATE, "w": torch.full((2, 3), math.nan)}, "w: expected finite numbers"),
        (like(TEMPLATE), {**TEMPLATE, "n": True}, "n: expected a value of type int, found True"),
        (like(TEMPLATE), {**TEMPLATE, "on": 1}, "on: expected a value of type bool"),
        (like(TEMPLATE), {**TEMPLATE, "none": 0}, "none: expected nothing"),
        (like(TEMPLATE), {**TEMPLATE, "pair": [1.0]}, "pair: expected 2 values, found a list of 1"),
        (like(TEMPLATE), {"w": 1}, "the file misses n, name, on, none, pair"),
        (like(TEMPLATE), {**TEMPLATE, "x": 1}, "the file has the unknown keys x"),
        (like(TEMPLATE), [1], "expected the keys w, n, name.*found a list of 1"),
        (float, math.nan, "expected a number, found nan"),
        (number(low=0, whole=True), -1, "expected a whole number from 0 to inf, found -1"),
        (number(low=0, whole=True), 1.0, "found 1.0"),
        (list_of(int), [1, "x"], r"^\.1: expected a value of type int, found 'x'"),
        (mapping_of(int, "a"), {"b": 1}, "expected the keys a"),
        (optional(int), "x", "type int"),
        (same("adam"), "sgd", "expected 'adam', found 'sgd'"),
        (tensor(None, 3), torch.zeros(3), r"floating-point numbers of shape \(any, 3\)"),
        (tensor(2), torch.zeros(2).to_sparse(), "shape"),
    ],
)
def test_the_first_difference_is_named(form, value, message):
    with pytest.raises(Mismatch, match=message):
        check(value, form, "")


def test_nan_is_allowed_where_it_is_said():
    check(math.nan, number(nan=True), "")
    check(torch.full((2,), math.nan), tensor(2, finite=False), "")
    check(None, optional(int), "")
    check({"a": 1, "b": 2}, mapping_of(int, "a"), "")


def test_a_difference_names_the_file_and_what_to_do():
    with pytest.raises(CheckpointError, match=r"^a/last\.pt: n: expected .*; the file is damaged .* --overwrite$"):
        expect("a/last.pt", {"n": "x"}, {"n": int})


def test_what_fails_while_a_state_is_restored_is_a_fault_of_its_file():
    with pytest.raises(CheckpointError, match=r"last\.pt: does not fit this run \('a'\)"), restoring("last.pt"):
        raise KeyError("a")
    with pytest.raises(KeyboardInterrupt), restoring("last.pt"):
        raise KeyboardInterrupt


def _optimizer(kind=torch.optim.Adam, **settings):
    parameters = [torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(3))]
    return kind(parameters, lr=0.1, **settings)


def _step(optimizer) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()


@pytest.mark.parametrize(
    "make",
    [_optimizer, lambda: _optimizer(amsgrad=True), lambda: _optimizer(torch.optim.SGD, momentum=0.9)],
    ids=["adam", "amsgrad", "sgd"],
)
def test_an_optimizer_fits_its_own_state_before_and_after_a_step(make):
    optimizer = make()
    form = optimizer_state(optimizer)
    check(optimizer.state_dict(), form, "")
    assert not optimizer.state_dict()["state"], "looking at the form takes no step"
    _step(optimizer)
    check(optimizer.state_dict(), form, "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state["state"][0].pop("exp_avg"), r"state\.0 misses exp_avg"),
        (lambda state: state["state"][0]["exp_avg_sq"].neg_(), "no negative numbers"),
        (lambda state: state["state"].update({5: {}}), "one of 2 parameters, found 5"),
        (lambda state: state["state"][1].update(exp_avg=torch.zeros(4)), r"exp_avg: expected float32 of shape \(3\)"),
        (lambda state: state["state"][1]["exp_avg"].fill_(math.nan), "finite"),
        (lambda state: state["param_groups"][0].update(betas=(0.5, 0.5)), r"betas: expected \(0\.9, 0\.999\)"),
        (lambda state: state["param_groups"][0].update(lr=math.nan), "lr: expected a number"),
        (lambda state: state["param_groups"].clear(), "expected 1 values"),
    ],
)
def test_another_state_of_an_optimizer_is_refused(change, message):
    optimizer = _optimizer()
    _step(optimizer)
    state = copy.deepcopy(optimizer.state_dict())
    change(state)
    with pytest.raises(Mismatch, match=message):
        check(state, optimizer_state(optimizer), "")


def test_a_schedule_keeps_its_settings():
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(_optimizer(), patience=3)
    form = scheduler_state(scheduler)
    scheduler.step(1.0)
    scheduler.step(2.0)
    check(scheduler.state_dict(), form, "")
    with pytest.raises(Mismatch, match="patience: expected 3, found 4"):
        check({**scheduler.state_dict(), "patience": 4}, form, "")


def test_a_digest_is_that_of_the_content():
    value = {"w": torch.arange(6.0).reshape(2, 3), "n": [1, None, "é", math.nan], "empty": torch.zeros(0)}
    again = copy.deepcopy(value) | {"w": value["w"].T.contiguous().T}  # stored otherwise
    assert digest(again) == digest(value)
    others = [
        value | {"w": value["w"].T},
        value | {"w": value["w"].double()},
        value | {"w": value["w"] + torch.tensor([0.0, 0.0, 1e-6])},
        value | {"n": [1, None, "é"]},
        value | {"n": [True, None, "é", math.nan]},
        value | {"n": [1, [None, "é"], math.nan]},
        value | {"empty": torch.zeros(0, 3)},
    ]
    assert len({digest(other) for other in others} | {digest(value)}) == len(others) + 1
