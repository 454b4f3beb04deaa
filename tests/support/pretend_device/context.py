"""A context in which there are two pretend GPUs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pretend_device.dispatch import dispatch
from pretend_device.ledger import LEDGER, Ledger
from pretend_device.tensors import PretendGenerator

DEVICES = 2
PROPERTIES = SimpleNamespace(total_memory=80 * 10**9, name="pretend", multi_processor_count=132, major=9, minor=0)


class _Factories(TorchDispatchMode):
    """Hands over operations without pretend tensors, which may be asked to make some."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return dispatch(function, args, kwargs or {})


class _Event:
    """An event that was recorded. To wait for it is a wait of the host, but not for work queued later."""

    def __init__(self, *args, **kwargs) -> None:
        pass

    def record(self, *args) -> None:
        pass

    def synchronize(self) -> None:
        LEDGER.wait("event")


def _with_index(device):
    """ "cuda" as "cuda:0": without an index C++ would ask CUDA for the current device."""
    if isinstance(device, str | torch.device) and str(device) == "cuda":
        return torch.device("cuda", 0)
    return device


def _to(real):
    def to(self, *args, **kwargs):
        return real(self, *map(_with_index, args), **{key: _with_index(value) for key, value in kwargs.items()})

    return to


def _tensor(real):
    """`torch.tensor` fills its result without dispatching it. Like CUDA's, this one is filled on the CPU and copied."""

    def tensor(data, *, dtype=None, device=None, requires_grad=False, pin_memory=False):
        made = real(data, dtype=dtype)
        if device is not None and torch.device(device).type == "cuda":
            made = made.to(device)
        return made.requires_grad_(requires_grad)

    return tensor


@contextlib.contextmanager
def pretend_cuda(used: int = 0) -> Iterator[Ledger]:
    """Two GPUs while the context lasts, and the ledger of their work, empty at the beginning.

    Args:
        used: the index of the one that is used. As always, "cuda" without an index is the first one.
    """
    replaced = {
        torch: {"Generator": PretendGenerator, "tensor": _tensor(torch.tensor)},
        torch.Tensor: {"to": _to(torch.Tensor.to)},
        torch.cuda: {
            "is_available": lambda: True,
            "device_count": lambda: DEVICES,
            "current_device": lambda: 0,
            "set_device": lambda device: None,
            "_lazy_init": lambda: None,
            "Event": _Event,
            "synchronize": lambda *device: LEDGER.wait("synchronize"),
            "get_device_properties": lambda *device: PROPERTIES,
            "get_device_name": lambda *device: PROPERTIES.name,
            "is_bf16_supported": lambda *args, **kwargs: True,
        },
    }
    LEDGER.reset()
    LEDGER.used = torch.device("cuda", used)
    with contextlib.ExitStack() as stack:
        for owner, members in replaced.items():
            for name, value in members.items():
                stack.enter_context(mock.patch.object(owner, name, value))
        stack.enter_context(_Factories())
        yield LEDGER
