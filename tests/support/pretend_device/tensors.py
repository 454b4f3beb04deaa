"""Tensors and random number generators of the pretend device."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from pretend_device.ledger import LEDGER

RealGenerator = torch.Generator


class PretendTensor(torch.Tensor):
    """A tensor that says it is on a GPU. Its numbers are those of ``inner``, in memory of the CPU.

    To autograd's engine it is a tensor without storage on torch's "meta" device, which needs no streams and no threads.
    Dispatch keys are those of CUDA. Every operation arrives in `dispatch.dispatch`.
    """

    inner: torch.Tensor
    where: torch.device

    @staticmethod
    def __new__(cls, inner: torch.Tensor, where: torch.device) -> PretendTensor:
        with torch._C._DisableTorchDispatch():
            shell = torch.empty_strided(inner.size(), inner.stride(), dtype=inner.dtype, device="meta")
        self = torch.Tensor._make_subclass(cls, shell, False, device_for_backend_keys=where)
        self.inner, self.where = inner, where
        return self

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        from pretend_device.dispatch import dispatch

        return dispatch(function, args, kwargs or {})

    device = property(lambda self: self.where)
    is_cuda = property(lambda self: True)
    is_cpu = is_meta = property(lambda self: False)

    def __repr__(self) -> str:
        return f"PretendTensor({self.inner}, {self.where})"

    def __getitem__(self, index):
        return super().__getitem__(_lists_as_tensors(index))

    def __setitem__(self, index, value):
        super().__setitem__(_lists_as_tensors(index), value)

    def get_device(self) -> int:
        return self.where.index

    def tolist(self):
        LEDGER.wait("tolist")
        return self.inner.tolist()

    def numpy(self, *, force: bool = False):
        if not force:
            raise TypeError(f"can't convert {self.where} device type tensor to numpy. Use Tensor.cpu() first.")
        return self.cpu().numpy()

    def __array__(self, *args, **kwargs):
        return self.numpy()

    def new_tensor(self, data, *, dtype=None, device=None, requires_grad=False):
        return torch.tensor(data, dtype=dtype or self.dtype, device=device or self.device, requires_grad=requires_grad)

    def untyped_storage(self):
        return self.inner.untyped_storage()

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def __tensor_flatten__(self):
        """`torch.nn.Module.to` replaces parameters by tensors of classes that have this, instead of filling them."""
        return ["inner"], self.where

    @staticmethod
    def __tensor_unflatten__(parts, where, size, stride):
        return PretendTensor(parts["inner"], where)

    def __deepcopy__(self, memo: dict[int, Any]):
        if id(self) not in memo:
            copied = PretendTensor(self.inner.detach().clone(), self.where).requires_grad_(self.requires_grad)
            if getattr(self, "_is_param", False):
                copied._is_param = True
            memo[id(self)] = copied
        return memo[id(self)]

    def __reduce_ex__(self, protocol):
        """Files hold the numbers. Here they are read to the CPU, as with ``map_location="cpu"``."""
        return self.inner.detach().__reduce_ex__(protocol)


def _lists_as_tensors(index):
    """Lists of integers in an index as tensors on the CPU: C++ would make meta tensors of them, without numbers."""
    if isinstance(index, tuple):
        return tuple(map(_lists_as_tensors, index))
    return torch.tensor(index) if isinstance(index, list) and index and isinstance(index[0], int) else index


class _AnyGenerator(type(RealGenerator)):
    """Annotations that are read while a device is pretended stay valid for the generators of later tests."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, RealGenerator)


class PretendGenerator(RealGenerator, metaclass=_AnyGenerator):
    """A generator on the CPU or on a pretend device. As in torch, states of the two kinds do not fit each other."""

    #: By address, because C++ hands over another Python object. They are kept alive, so that no address is used twice.
    on_device: ClassVar[dict[int, PretendGenerator]] = {}
    EXTRA_BYTES = 16

    def __new__(cls, device="cpu"):
        self = super().__new__(cls, "cpu")
        where = torch.device(device)
        self.where = torch.device("cuda", where.index or 0) if where.type == "cuda" else where
        if where.type == "cuda":
            cls.on_device[self._cdata] = self
        return self

    def __init__(self, device="cpu") -> None:
        pass

    device = property(lambda self: self.where)

    def get_state(self) -> torch.Tensor:
        state = super().get_state()
        return state if self.where.type == "cpu" else torch.cat([state, state.new_zeros(self.EXTRA_BYTES)])

    def set_state(self, state: torch.Tensor):
        if isinstance(state, PretendTensor):
            raise TypeError("RNG state must be a torch.ByteTensor")
        plain = super().get_state().numel()
        if state.numel() != plain + (self.where.type == "cuda") * self.EXTRA_BYTES:
            raise RuntimeError("RNG state is wrong size")
        return super().set_state(state[:plain].clone())

    @classmethod
    def device_of(cls, generator: RealGenerator) -> torch.device:
        known = cls.on_device.get(generator._cdata)
        return torch.device("cpu") if known is None else known.where
