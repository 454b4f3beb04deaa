"""The `model` sections: architectures for a fit, and references to pretrained models for a run.

The sections are built from the records in `mdsim.models.registry`. Those of this package have settings and a cutoff.
Those of other packages start from a file.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, create_model, model_validator

from mdsim.config.schema.base import Positive, Section
from mdsim.config.schema.custom import CustomModelConfig, CustomModelReference
from mdsim.config.schema.repulsion import RepulsionConfig, added, fitted
from mdsim.models.record import Foreign, ModelRecord, Setting
from mdsim.models.registry import MODELS

NO_SETTINGS = ("name", "checkpoint", "allow_unpickling", "repulsion")  # of the architecture


class ModelSection(Section):
    """What the sections of fits and of runs have in common."""

    name: str = Field(description="The model.")
    checkpoint: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of the reader of another package's files."""
        foreign = MODELS[self.name].foreign
        return {} if foreign is None else {key: getattr(self, key) for key in foreign.options}

    @property
    def may_unpickle(self) -> bool:
        """Whether another package may unpickle the file."""
        return bool(getattr(self, "allow_unpickling", False))


class ArchitectureConfig(ModelSection):
    """A model for a fit: `name`, the settings in its record, and `cutoff_A`."""

    checkpoint: str | None = Field(
        None,
        description="A checkpoint of this model, whose weights the fit starts from (fine-tuning). Its settings are "
        "those of the file; null: random weights.",
    )
    repulsion: RepulsionConfig | None = fitted()

    @model_validator(mode="after")
    def _settings_come_from_one_place(self) -> ArchitectureConfig:
        settings = {key: type(self).model_fields[key] for key in self._settings}
        chosen = [key for key, field in settings.items() if getattr(self, key) != field.default]
        if self.checkpoint is not None and chosen:
            raise ValueError(f"{chosen[0]} is that of the checkpoint: leave it out")
        return self

    @property
    def _settings(self) -> list[str]:
        return [key for key in type(self).model_fields if key not in (*NO_SETTINGS, *self.options)]

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """Keyword arguments of `ModelRecord.build`."""
        return {"cutoff" if key == "cutoff_A" else key: getattr(self, key) for key in self._settings}


class PretrainedReference(ModelSection):
    """A pretrained model that a run starts from: `name` and the setting that distinguishes fits."""

    name: str = Field(description="The model, which selects the folder below `model_dir`.")
    checkpoint: str | None = Field(
        None, description="Any checkpoint of this model to start from; null: the fit below `model_dir`."
    )
    repulsion: RepulsionConfig | None = added()


def _architecture(record: ModelRecord) -> type[ArchitectureConfig]:
    fields = {key: _field(setting, setting.description) for key, setting in record.settings.items()}
    if record.foreign is not None and record.is_foreign:
        text = f"The file to start from, {record.foreign.files}, or a checkpoint of mdsim that was made from one."
        fields["checkpoint"] = (str, Field(description=text))
    else:
        text = "Distance beyond which atoms do not interact."
        fields["cutoff_A"] = (Positive, Field(record.cutoff_A, description=text))
    return _section(record, "Config", ArchitectureConfig, record.description, fields)


def _reference(record: ModelRecord) -> type[PretrainedReference]:
    chosen = record.variant
    fields = {} if chosen is None else {chosen.setting: _field(record.settings[chosen.setting], chosen.description)}
    text = f"The pretrained {record.title} that a run starts from."
    return _section(record, "Reference", PretrainedReference, text, fields)


def _of_files(foreign: Foreign | None) -> dict[str, Any]:
    """The fields of a model that files of another package may hold."""
    if foreign is None:
        return {}
    fields = {key: _field(option, option.description) for key, option in foreign.options.items()}
    text = (
        f"Allow {foreign.package} to unpickle the file ({foreign.files}), which can run any code that its author put "
        "there. Only for files that you trust. Checkpoints of mdsim need it not."
    )
    return fields | ({"allow_unpickling": (bool, Field(False, description=text))} if foreign.unpickles else {})


def _field(setting: Setting, description: str) -> tuple[Any, Any]:
    """The type and the field of a setting."""
    kind = Literal[setting.choices] if setting.choices else type(setting.default)
    return kind, Field(setting.default, description=description, ge=setting.at_least, le=setting.at_most)


def _section(record: ModelRecord, ending: str, base: type[Section], text: str, fields: dict[str, Any]) -> Any:
    kind: Any = Literal[record.name]
    name = (kind, Field(description=base.model_fields["name"].description))
    title = record.class_name + ending
    fields |= _of_files(record.foreign)
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
