"""Base class of all sections, and the types of numbers and names."""

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
Degree = Annotated[int, Field(ge=0, le=11)]  # e3nn has spherical harmonics up to degree 11
#: Text that may look like a number, which YAML reads as a number: `size: 40`, `exp_name: 1`.
Name = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]
