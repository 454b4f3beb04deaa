"""The rules of the pretend device are those of CUDA."""

import pytest
import torch
from pretend_device import pretend_cuda


def test_devices_do_not_mix(pretended):
    x = torch.ones(2, device="cuda")
    for other in (torch.ones(2), torch.ones(2, device="cuda:1")):
        with pytest.raises(RuntimeError, match="same device"):
            x + other
    with pytest.raises(RuntimeError, match="same device"):
        torch.cat([x, torch.ones(2)])
    with pytest.raises(RuntimeError, match="same device"):
        torch.ones(2)[torch.zeros(1, dtype=torch.long, device="cuda")] + x


def test_scalars_and_indices_of_the_host_are_accepted(pretended):
    x = torch.arange(3.0, device="cuda")
    assert (x + torch.tensor(1.0)).tolist() == [1.0, 2.0, 3.0]
    assert x[torch.tensor([2, 0])].tolist() == [2.0, 0.0]
    assert str((x * 2).device) == "cuda:0" and x.is_cuda and not x.is_cpu
    assert torch.ones(1, device="cuda:1").get_device() == 1


def test_the_second_device():
    with pretend_cuda(used=1):
        x = torch.ones(3, device="cuda:1", requires_grad=True)
        (gradient,) = torch.autograd.grad((x * torch.zeros(3).to(x)).square().sum(), x)
        assert {str(one.device) for one in (gradient, x.new_zeros(2), torch.zeros_like(x))} == {"cuda:1"}


def test_gradients_are_those_of_the_cpu(pretended):
    layer = torch.nn.Linear(3, 1)
    expected = torch.autograd.grad(layer(torch.ones(2, 3)).sum(), layer.weight)[0]
    layer = layer.to("cuda")
    (found,) = torch.autograd.grad(layer(torch.ones(2, 3, device="cuda")).sum(), layer.weight)
    assert str(found.device) == "cuda:0" and torch.equal(found.cpu(), expected)


def test_shapes_that_change_in_place(pretended):
    x = torch.ones(1, 3, device="cuda")
    assert x.squeeze_(0).shape == x.shape == (3,) and torch.equal(x.cpu(), torch.ones(3))
    assert (x @ torch.ones(3, 2, device="cuda")).shape == (2,)


@pytest.mark.parametrize(
    ("wait", "kind"),
    [
        (lambda x: bool(x.any()), "item"),
        (lambda x: float(x.sum()), "item"),
        (lambda x: torch.nonzero(x), "nonzero"),
        (lambda x: x[x > 1], "boolean mask"),
        (lambda x: x.cpu(), "copy to the host"),
        (lambda x: x.to(torch.ones(1)), "copy to the host"),
        (lambda x: x.tolist(), "tolist"),
        (lambda x: torch.tensor([1.0], device=x.device), "copy to the device"),
        (lambda x: x.new_tensor([1.0]), "copy to the device"),
        (lambda x: x.long().repeat_interleave(x.long()), "repeat_interleave"),
        (lambda x: x[[0, 1]], "index on the host"),
    ],
)
def test_waits_are_counted_with_their_place(pretended, wait, kind):
    x = torch.arange(4.0, device="cuda")
    pretended.reset()
    wait(x)
    assert dict(pretended.waits) == {kind: 1}, pretended.report()
    assert pretended.places == {f"{kind} at a test": 1}


def test_views_and_new_memory_launch_nothing(pretended):
    x = torch.ones(4, 2, device="cuda")
    pretended.reset()
    x.T, x[1], x.reshape(8), torch.empty_like(x), x.detach()
    assert pretended.n_launches == pretended.n_waits == 0
    (x.double() + 1).sum()
    assert pretended.launches == {"aten::_to_copy": 1, "aten::add": 1, "aten::sum": 1}
    assert pretended.float64.total() == 2


def test_generators_belong_to_a_device(pretended):
    generator = torch.Generator("cuda").manual_seed(0)
    assert torch.randn(2, generator=generator, device="cuda").device == generator.device
    with pytest.raises(RuntimeError, match="device type for generator"):
        torch.randn(2, generator=generator)
    with pytest.raises(RuntimeError, match="wrong size"):
        torch.Generator().set_state(generator.get_state())


def test_nothing_is_left_behind():
    with pretend_cuda():
        assert torch.cuda.is_available()
    assert not torch.cuda.is_available() and isinstance(torch.Generator(), torch._C.Generator)
