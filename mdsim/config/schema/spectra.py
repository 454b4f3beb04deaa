"""Sections of spectra: vibrational density of states and infrared spectrum."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mdsim.config.schema.base import Positive, Section


class SpectrumConfig(Section):
    """Settings of a spectrum, the Fourier transform of a correlation function."""

    max_lag_fs: Positive = Field(
        1000.0,
        description="Longest lag of the correlation function. It must fit into the dense window and the contiguous "
        "frames. Peaks are as wide as its inverse, 33 1/cm for 1000 fs.",
    )
    max_wavenumber_per_cm: Positive = Field(
        4000.0, description="Upper end of the range. 4000 1/cm needs frames every 4 fs or less."
    )
    bin_width_per_cm: Positive = Field(20.0, description="Bin width, which must divide the range.")
    window: Literal["hann", "none"] = Field("hann", description="Window of the correlation function.")


class VibrationalDOSConfig(SpectrumConfig):
    """Vibrational density of states, from velocities. Its integral is 3 modes per atom."""

    name: Literal["vibrational_dos"] = Field(description="The observable.")
    element: str | None = Field(None, description="Element of the atoms that are followed; all atoms when absent.")


class InfraredSpectrumConfig(SpectrumConfig):
    """Shape of the infrared spectrum of fixed charges, from velocities. Its integral is 1."""

    name: Literal["infrared_spectrum"] = Field(description="The observable.")
    charges_e: dict[str, float] | None = Field(
        None, description="Charges by element, in elementary charges, e.g. `{O: -0.82, H: 0.41}`."
    )
    charges_file: str | None = Field(
        None, description="Text file with one charge for each atom, in their order, in place of `charges_e`."
    )

    @model_validator(mode="after")
    def _charges_come_from_one_place(self) -> InfraredSpectrumConfig:
        if (self.charges_e is None) == (self.charges_file is None) or self.charges_e == {}:
            raise ValueError("give charges_e (by element) or charges_file (one number for each atom), and not both")
        return self
