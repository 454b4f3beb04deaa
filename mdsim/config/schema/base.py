"""What all sections share: the base class, and the kinds of numbers and names."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Section(BaseModel):
    """A part of the configuration: immutable, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Degree = Annotated[int, Field(ge=0, le=11)]  # e3nn has spherical harmonics up to 11
#: Text that may look like a number, which YAML then reads as one: `size: 40`, `exp_name: 1`.
Name = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]
