"""The `model` sections: architectures for a fit, and references to pretrained models for a run.

The sections are built from the records in `mdsim.models.registry`. Each has a name, the settings and a cutoff.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, create_model

from mdsim.config.schema.base import Positive, Section
from mdsim.config.schema.custom import CustomModelConfig, CustomModelReference
from mdsim.config.schema.repulsion import RepulsionConfig, added, fitted
from mdsim.models.record import ModelRecord, Setting
from mdsim.models.registry import MODELS


class ArchitectureConfig(Section):
    """A model of this package for a fit: `name`, the settings in its record, and `cutoff_A`."""

    name: str = Field(description="The architecture.")
    repulsion: RepulsionConfig | None = fitted()

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """Keyword arguments of `ModelRecord.build`."""
        others = ("name", "repulsion")
        return {"cutoff" if key == "cutoff_A" else key: value for key, value in self if key not in others}


class PretrainedReference(Section):
    """A pretrained model of this package that a run starts from: `name` and the setting that distinguishes fits."""

    name: str = Field(description="The architecture, which selects the folder below `model_dir`.")
    repulsion: RepulsionConfig | None = added()


def _architecture(record: ModelRecord) -> type[ArchitectureConfig]:
    fields = {key: _field(setting, setting.description) for key, setting in record.settings.items()}
    fields["cutoff_A"] = (Positive, Field(record.cutoff_A, description="Distance beyond which atoms do not interact."))
    return _section(record, "Config", ArchitectureConfig, record.description, fields)


def _reference(record: ModelRecord) -> type[PretrainedReference]:
    chosen = record.variant
    fields = {} if chosen is None else {chosen.setting: _field(record.settings[chosen.setting], chosen.description)}
    text = f"The pretrained {record.title} that a run starts from."
    return _section(record, "Reference", PretrainedReference, text, fields)


def _field(setting: Setting, description: str) -> tuple[Any, Any]:
    """The type and the field of a setting."""
    kind = Literal[setting.choices] if setting.choices else type(setting.default)
    return kind, Field(setting.default, description=description, ge=setting.at_least, le=setting.at_most)


def _section(record: ModelRecord, ending: str, base: type[Section], text: str, fields: dict[str, Any]) -> Any:
    kind: Any = Literal[record.name]
    name = (kind, Field(description=base.model_fields["name"].description))
    title = record.class_name + ending
    return create_model(title, __base__=base, __doc__=text, __module__=__name__, name=name, **fields)


#: The sections of a fit and of a run, by model name.
MODEL_CONFIGS: dict[str, type[ArchitectureConfig]] = {name: _architecture(record) for name, record in MODELS.items()}
MODEL_REFERENCES: dict[str, type[PretrainedReference]] = {name: _reference(record) for name, record in MODELS.items()}

if TYPE_CHECKING:
    ModelConfig = ArchitectureConfig | CustomModelConfig
    ModelReference = PretrainedReference | CustomModelReference
else:
    ModelConfig = Annotated[reduce(or_, MODEL_CONFIGS.values()) | CustomModelConfig, Field(discriminator="name")]
    ModelReference = Annotated[
        reduce(or_, MODEL_REFERENCES.values()) | CustomModelReference, Field(discriminator="name")
    ]


def model_label(model: ModelConfig | ModelReference) -> str:
    """Name of a model in folder names."""
    return model.label if isinstance(model, CustomModelConfig | CustomModelReference) else model.name
