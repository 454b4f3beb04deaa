"""Custom components: code outside this package that a configuration names."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue

from mdsim.config.schema.base import Section
from mdsim.config.schema.repulsion import RepulsionConfig, added, fitted

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
    """A custom component: the factory that makes it, and its options."""

    name: Literal["custom"] = Field(description="A custom component.")
    factory: Factory = Field(
        description="`package.module:function` (or class) that makes it. It must be importable, for example from a "
        "folder in `PYTHONPATH`. It receives the options, and those objects of the run that it has parameters for."
    )
    options: dict[str, JsonValue] = Field({}, description="Keyword arguments of the factory.")


class CustomIntegratorConfig(CustomConfig):
    """A custom `Integrator`. Its factory may take `timestep_fs` and `temperature_K`."""


class CustomObservableConfig(CustomConfig):
    """A custom structural observable (`BinnedObservable`). Its factory may take `system`."""


class CustomDynamicalConfig(CustomConfig):
    """A custom dynamical `Observable`. Its factory may take `system`."""


class CustomCriterionConfig(CustomConfig):
    """A custom `StabilityCriterion`. Its factory may take `system` and `dataset` (the reference data)."""


class CustomModelConfig(CustomConfig):
    """A custom `ForceField`. Its factory may take `species`, the atomic numbers in the data."""

    label: Label = Field("custom", description="Name of the model in folder names.")
    checkpoint: str | None = Field(
        None, description="A checkpoint of this model, whose weights the fit starts from; null: those of the factory."
    )
    repulsion: RepulsionConfig | None = fitted()


class CustomModelReference(Section):
    """The custom pretrained model that a run starts from."""

    name: Literal["custom"] = Field(description="A custom component.")
    factory: Factory = Field(
        description="The factory that made the model. A checkpoint that needs another one is refused."
    )
    label: Label = Field("custom", description="Name of the model in folder names.")
    checkpoint: str | None = Field(
        None, description="Any checkpoint of this model to start from; null: the fit below `model_dir`."
    )
    repulsion: RepulsionConfig | None = added()
