"""Structure factor sections: partial ones of element pairs, or totals weighted for X-rays or neutrons."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mdsim.config.schema.base import Count, NonNegative, Positive, Section


class StructureFactorConfig(Section):
    """Static structure factor S(q) after Faber and Ziman. Open systems use the Debye formula."""

    name: Literal["structure_factor"] = Field(description="The observable.")
    weighting: Literal["partial", "number", "xray", "neutron"] = Field(
        "partial",
        description="partial: one for each pair of elements, or that of `pair`; number, xray, neutron: the total with "
        "equal weights, form factors or coherent scattering lengths. The last two need the extra `scattering`.",
    )
    pair: tuple[str, str] | None = Field(None, description="Element pair of a partial structure factor, e.g. [O, O].")
    min_q_per_A: NonNegative = Field(0.5, description="Lower end of the range; with `direct`, at least 2π/L.")
    max_q_per_A: Positive = Field(10.5, description="Upper end of the range.")
    bin_width_per_A: Positive = Field(0.25, description="Bin width, which must divide the range.")
    method: Literal["direct", "fourier"] = Field(
        "direct",
        description="Of a periodic system. direct: sum over the wave vectors of the cell, without truncation; fourier: "
        "transform of g(r) up to `max_distance_A`, which also has contributions of molecules for the local estimator.",
    )
    most_vectors_per_bin: Count | None = Field(
        50, description="direct: number of wave vectors in each bin, spread evenly over all; null: all of them."
    )
    max_distance_A: Positive = Field(6.0, description="fourier: upper end of g(r), at most half the cell.")
    distance_bin_width_A: Positive = Field(0.02, description="fourier: bin width of g(r), which must divide its range.")
    lorch_window: bool = Field(True, description="fourier: the window of Lorch, against ripples of the truncation.")
    isotopes: dict[str, Annotated[int, Field(ge=1)]] = Field(
        {}, description="neutron: mass number of the isotope of an element, e.g. `{H: 2}`; others: natural mixtures."
    )

    @model_validator(mode="after")
    def _weights_fit_together(self) -> StructureFactorConfig:
        if self.pair is not None and self.weighting != "partial":
            raise ValueError(f"pair is that of a partial structure factor, but weighting is {self.weighting}")
        if self.isotopes and self.weighting != "neutron":
            raise ValueError(f"isotopes are for weighting: neutron, but it is {self.weighting}")
        return self
