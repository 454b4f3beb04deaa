"""Operations of the pretend device: CUDA's rules about devices, computation on the CPU, entries in the ledger."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from pretend_device.ledger import LEDGER
from pretend_device.tensors import PretendGenerator, PretendTensor, RealGenerator

CPU = torch.device("cpu")

#: Operations after which the host waits for a number or for the shape of the result.
WAITING = {
    "aten::_local_scalar_dense": "item",
    "aten::is_nonzero": "item",
    "aten::nonzero": "nonzero",
    "aten::masked_select": "masked_select",
    "aten::bincount": "bincount",
    "aten::equal": "equal",
    "aten::_linalg_check_errors": "linalg",
    "aten::linalg_eigh": "linalg",
    "aten::_linalg_eigh": "linalg",
    **dict.fromkeys(
        ("aten::_unique2", "aten::unique_dim", "aten::unique_consecutive", "aten::unique_dim_consecutive"), "unique"
    ),
}
COPYING = {"aten::_to_copy", "aten::copy_"}
INDEXING = {"aten::index", "aten::_unsafe_index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
ALSO_POINTWISE = {"aten::where", "aten::fill", "aten::fill_", "aten::masked_fill", "aten::masked_fill_"}
WITHOUT_KERNEL = {
    *("aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty", "aten::new_empty_strided"),
    *("aten::detach", "aten::alias", "aten::lift_fresh", "aten::_unsafe_view", "aten::_reshape_alias"),
    *("aten::_local_scalar_dense", "aten::set_", "aten::resize_"),
}


def dispatch(function: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Result of an operation with at least one pretend tensor, or one that may have to make some."""
    name = function._schema.name
    leaves = tree_leaves((args, kwargs))
    here = [leaf for leaf in leaves if isinstance(leaf, PretendTensor)]
    target = kwargs.get("device")
    goal = _goal(target, here)
    _check_generator(leaves, goal)
    if not here and goal == CPU:
        return function(*args, **{key: value for key, value in kwargs.items() if key != "pin_memory"})
    if name in COPYING:
        return _copied(function, name, args, kwargs, goal)
    _check_devices(function, name, args, leaves, goal)
    _count_waits(function, name, args, kwargs)
    if not _is_view(function) and name not in WITHOUT_KERNEL:
        LEDGER.launch(name, any(tensor.dtype == torch.float64 for tensor in here))
    plain_args, plain_kwargs = tree_map(_plain, args), tree_map(_plain, kwargs)
    plain_kwargs.pop("pin_memory", None)
    result = function(*plain_args, **plain_kwargs)
    if torch.Tag.inplace_view in function.tags:  # such as `squeeze_`: the shape that C++ sees must change as well
        with torch._C._DisableTorchDispatch():
            function(*args, **kwargs)
    written = _written_in_place(function, name, args, kwargs)
    if written is not None:
        return written
    if goal == CPU:
        return result
    return tree_map_only(torch.Tensor, lambda tensor: PretendTensor(tensor, goal), result)


def _goal(target: torch.device | None, here: list[PretendTensor]) -> torch.device:
    """The device of the result. To C++ a pretend device is the meta device."""
    if target is None:
        return here[0].where if here else CPU
    target = torch.device(target)
    if target.type == "meta":
        return here[0].where if here else LEDGER.used
    return torch.device("cuda", target.index or 0) if target.type == "cuda" else target


def _plain(value: Any) -> Any:
    if isinstance(value, PretendTensor):
        return value.inner
    return CPU if isinstance(value, torch.device) else value


def _is_view(function: Any) -> bool:
    returned = function._schema.returns
    return any(result.alias_info is not None and not result.alias_info.is_write for result in returned)


def _written_in_place(function: Any, name: str, args: tuple, kwargs: dict[str, Any]) -> PretendTensor | None:
    """The argument that an operation has changed and returns."""
    returned = function._schema.returns
    if len(returned) != 1 or returned[0].alias_info is None or not returned[0].alias_info.is_write:
        return None
    for place, argument in enumerate(function._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[place] if place < len(args) else kwargs.get(argument.name)
            fits = isinstance(value, PretendTensor) and value.shape == value.inner.shape
            return value if fits and name not in ("aten::resize_", "aten::set_") else None
    return None


def _copied(function: Any, name: str, args: tuple, kwargs: dict[str, Any], goal: torch.device) -> torch.Tensor:
    """A copy between devices or types. The host waits for one between devices that is not asynchronous."""
    if name == "aten::copy_":
        target, source = args[:2]
        asynchronous = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
        _plain(target).copy_(_plain(source))
        _count_copy(name, source, target.device, asynchronous)
        return target
    source = args[0]
    kept = {key: value for key, value in kwargs.items() if key not in ("device", "pin_memory", "non_blocking")}
    copied = function(_plain(source), **kept)
    copied = copied.clone() if copied is _plain(source) else copied
    _count_copy(name, source, goal, kwargs.get("non_blocking", False))
    return copied if goal == CPU else PretendTensor(copied, goal)


def _count_copy(name: str, source: torch.Tensor, goal: torch.device, asynchronous: bool) -> None:
    origin = source.device
    LEDGER.launch(name)
    if origin != goal and not asynchronous and "cpu" in (origin.type, goal.type):
        LEDGER.wait("copy to the host" if goal == CPU else "copy to the device")


def _count_waits(function: Any, name: str, args: tuple, kwargs: dict[str, Any]) -> None:
    if name in WAITING:
        LEDGER.wait(WAITING[name])
    elif name == "aten::repeat_interleave" and function._overloadname == "Tensor":
        if kwargs.get("output_size") is None:
            LEDGER.wait("repeat_interleave")
    elif name in INDEXING:
        indices = [index for index in args[1] if isinstance(index, torch.Tensor)]
        fills = name not in ("aten::index", "aten::_unsafe_index") and args[2].numel() == 1
        accumulates = len(args) > 3 and args[3]
        if any(index.dtype in (torch.bool, torch.uint8) for index in indices) and (accumulates or not fills):
            LEDGER.wait("boolean mask")
        if not all(isinstance(index, PretendTensor) for index in indices):
            LEDGER.wait("index on the host")


def _check_devices(function: Any, name: str, args: tuple, leaves: list[Any], goal: torch.device) -> None:
    """Refuse tensors on several devices, except scalars in elementwise operations and indices on the CPU."""
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    devices = {tensor.device for tensor in tensors}
    if len(devices) < 2:
        return
    others = [tensor for tensor in tensors if tensor.device == CPU]
    if len(devices - {CPU}) == 1:
        is_pointwise = torch.Tag.pointwise in function.tags or name in ALSO_POINTWISE
        if is_pointwise and all(tensor.dim() == 0 for tensor in others):
            return
        if name in INDEXING and isinstance(args[0], PretendTensor):
            allowed = {id(index) for index in args[1] if isinstance(index, torch.Tensor)}
            if len(args) > 2 and args[2].dim() == 0:
                allowed.add(id(args[2]))
            if all(id(tensor) in allowed for tensor in others):
                return
    found = " and ".join(sorted(map(str, devices)))
    raise RuntimeError(
        f"Expected all tensors to be on the same device, but found at least two devices, {found}! ({name})"
    )


def _check_generator(leaves: list[Any], goal: torch.device) -> None:
    for generator in leaves:
        if isinstance(generator, RealGenerator) and (found := PretendGenerator.device_of(generator)) != goal:
            raise RuntimeError(f"Expected a '{goal}' device type for generator but found '{found}'")
