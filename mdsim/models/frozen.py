"""Frozen copies of modules whose compiled code is expensive to copy, such as those of e3nn."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def frozen_copy(module: Module, copied: dict[int, object] | None = None) -> Module:
    """A copy in evaluation mode with its own parameters and buffers, none of which requires gradients.

    All else is shared with the module: compiled code, and attributes that are neither tensors nor modules. A deep copy
    of a large equivariant network compiles its code anew, which takes as long as a thousand steps of dynamics.

    Args:
        module: parameters and buffers are found as those of `torch.nn.Module`.
        copied: what is copied already, by the `id` of the original, so that shared tensors and modules stay shared.
    """
    copied = {} if copied is None else copied
    if id(module) in copied:
        return copied[id(module)]  # type: ignore[return-value]
    if isinstance(module, torch.jit.ScriptModule):  # whose constants are buffers too
        with torch.no_grad():  # or its copied parameters would be results of the original ones
            copied[id(module)] = copy.deepcopy(module).eval()
        return copied[id(module)]  # type: ignore[return-value]
    clone = object.__new__(type(module))  # the class of a traced module makes a new class in its `__new__`
    copied[id(module)] = clone
    clone.__dict__ = dict(module.__dict__)
    clone.__dict__["training"] = False
    clone.__dict__["_parameters"] = {name: _frozen(value, copied) for name, value in module._parameters.items()}
    clone.__dict__["_buffers"] = {name: _frozen(value, copied) for name, value in module._buffers.items()}
    clone.__dict__["_modules"] = {
        name: None if child is None else frozen_copy(child, copied) for name, child in module._modules.items()
    }
    return clone


def _frozen(tensor: torch.Tensor | None, copied: dict[int, object]) -> torch.Tensor | None:
    if tensor is None:
        return None
    if id(tensor) not in copied:
        kept = tensor.detach().clone()
        copied[id(tensor)] = nn.Parameter(kept, requires_grad=False) if isinstance(tensor, nn.Parameter) else kept
    return copied[id(tensor)]  # type: ignore[return-value]
