"""Base class of all sections, and the types of numbers and names."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

LONGEST_NAME = 100


class Section(BaseModel):
    """A part of the configuration: immutable, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Device = Annotated[str, Field(pattern=r"^(cpu|cuda(:[0-9]{1,3})?)$")]
Degree = Annotated[int, Field(ge=0, le=11)]  # e3nn has spherical harmonics up to degree 11
#: Text that may look like a number, which YAML reads as a number: `size: 40`, `exp_name: 1`.
Name = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]


def _is_part_of_a_path(text: str) -> str:
    if any(character in "/\\" or not character.isprintable() for character in text) or len(text) > LONGEST_NAME:
        raise ValueError(f"is part of a folder's name: up to {LONGEST_NAME} characters without / and \\")
    return text


def _is_below(text: str) -> str:
    if text.startswith("/") or ".." in text.split("/"):
        raise ValueError("is a folder below another one: no leading / and no ..")
    return text


#: A name that becomes one part of a path: no other folder can be reached with it.
FolderName = Annotated[Name, AfterValidator(_is_part_of_a_path)]
FolderBelow = Annotated[str, AfterValidator(_is_below)]
