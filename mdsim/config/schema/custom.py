"""Pieces of your own: code outside this package that a configuration names."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue

from mdsim.config.schema.base import Section

FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
LABEL = re.compile(r"[\w.+=-]+")


def _is_factory(text: str) -> str:
    if not FACTORY.fullmatch(text):
        raise ValueError("write package.module:function, as in my_package.models:make_model")
    return text


def _is_label(text: str) -> str:
    if not LABEL.fullmatch(text):
        raise ValueError("a part of a folder's name has letters, digits and . + = - _ alone")
    return text


Factory = Annotated[str, AfterValidator(_is_factory)]
Label = Annotated[str, AfterValidator(_is_label)]


class CustomConfig(Section):
    """A piece of your own: the function that makes it, and what that function is told."""

    name: Literal["custom"] = Field(description="A piece of your own.")
    factory: Factory = Field(
        description="`package.module:function` (or class) that makes it; importable, for example from a folder in "
        "`PYTHONPATH`. It gets the options, and from the run what it has parameters for."
    )
    options: dict[str, JsonValue] = Field({}, description="Keyword arguments of the factory.")


class CustomIntegratorConfig(CustomConfig):
    """An `Integrator` of your own; its factory may take `timestep_fs` and `temperature_K`."""


class CustomObservableConfig(CustomConfig):
    """A structural observable (`BinnedObservable`) of your own; its factory may take `system`."""


class CustomDynamicalConfig(CustomConfig):
    """A dynamical `Observable` of your own; its factory may take `system`."""


class CustomCriterionConfig(CustomConfig):
    """A `StabilityCriterion` of your own; its factory may take `system` and `dataset`, the reference data."""


class CustomModelConfig(CustomConfig):
    """A `ForceField` of your own; its factory may take `species`, the atomic numbers in the data."""

    label: Label = Field("custom", description="What the model is called in the names of folders.")


class CustomModelReference(Section):
    """The pretrained model of your own that a run starts from."""

    name: Literal["custom"] = Field(description="A piece of your own.")
    factory: Factory = Field(description="What made the model: a checkpoint that needs another factory is refused.")
    label: Label = Field("custom", description="What the model is called in the names of folders.")
