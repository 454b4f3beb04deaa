import pytest
import torch
from tiny import SHIFT_EV, frames, same_bits, schnet, water

from mdsim.training.average import ParameterAverage
from mdsim.training.saved_weights import LabelMean, saved_weights

DECAY = 0.75


def _stepped(model, by: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += by


def test_the_average_begins_with_the_first_step():
    model = schnet().double()
    before, average = model.lin1.weight.detach().clone(), ParameterAverage(model, DECAY)
    _stepped(model, 1.0)
    average.update()
    _stepped(model, 1.0)
    average.update()
    live = model.lin1.weight.detach().clone()
    with average.applied() as averaged:
        torch.testing.assert_close(averaged.lin1.weight.detach(), before + DECAY * 1.0 + (1 - DECAY) * 2.0)
    assert torch.equal(model.lin1.weight, live)


def test_without_a_step_or_a_decay_the_force_field_is_itself():
    model = schnet()
    for average in (ParameterAverage(model, DECAY), ParameterAverage(model, None)):
        with average.applied() as averaged:
            assert averaged is model
    average.update()
    assert average.state_dict() == {"parameters": {}, "steps": 0}


def test_an_average_continues_from_its_state():
    model = schnet()
    first, second = ParameterAverage(model, DECAY), ParameterAverage(model, DECAY)
    for average in (first, second):
        average.update()
    second.load_state_dict(first.state_dict())
    _stepped(model, 0.3)
    first.update()
    second.update()
    assert same_bits(first.state_dict(), second.state_dict())


def test_only_trainable_parameters_are_averaged():
    model = schnet()
    model.freeze_all_but(["lin1.*"])
    assert ParameterAverage(model, DECAY).parameters.keys() == {"lin1.weight", "lin1.bias"}


def test_saved_energies_have_no_mean_error_and_the_force_field_keeps_its_zero():
    model, labeled = schnet().double(), frames(130)
    model.fit_energy_zero([water()], torch.tensor([SHIFT_EV + 3.0]))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    payload = saved_weights(ParameterAverage(model, None), LabelMean(water(), labeled), {"seed": 1})
    assert same_bits(dict(model.state_dict()), before)
    model.load_state_dict(payload["state_dict"])
    used = labeled[::2]
    error = model.total_energy(water(), used.positions.double()) - used.energy
    assert float(error.mean().detach()) == pytest.approx(0.0, abs=1e-9)
    assert payload["provenance"] == {"seed": 1}


def test_torn_weights_are_saved_as_they_are():
    model = schnet()
    with torch.no_grad():
        model.lin1.weight[0, 0] = torch.nan
    payload = saved_weights(ParameterAverage(model, None), LabelMean(water(), frames(4)), {})
    assert payload["state_dict"]["lin1.weight"].isnan().any()
