"""The `terms` sections: loss terms of StABlE training, and the translation of older keys."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from mdsim.config.schema.base import Count, NonNegative, Positive, Section
from mdsim.config.schema.custom import CustomConfig
from mdsim.config.schema.observables import DynamicalConfig, TargetObservableConfig

_ENERGY = "the potential energy depends on the parameters, and the estimator has no gradient of it"
#: Why observables of an evaluation are refused as targets, by their names.
WHY_NO_TARGET = {
    **dict.fromkeys(("potential_energy", "energy_per_molecule", "enthalpy_of_vaporization"), _ENERGY),
    "pressure": "the pressure depends on the parameters, and the estimator has no gradient of the stress itself",
    "bulk_modulus": "the bulk modulus is a ratio of fluctuations and no mean over structures",
}


def _is_a_mean_over_structures(observable: Any) -> Any:
    """Observables that depend on the parameters need a second term of the gradient, <∂g/∂θ>."""
    name = observable.get("name") if isinstance(observable, dict) else None
    if isinstance(name, str) and name in WHY_NO_TARGET:
        raise ValueError(f"{WHY_NO_TARGET[name]}: list it below `observables` of an evaluation instead")
    return observable


class TargetConfig(Section):
    """An observable, its reference and their loss."""

    observable: Annotated[TargetObservableConfig, BeforeValidator(_is_a_mean_over_structures)] = Field(
        description="The observable, chosen by `name`. If it makes several distributions, each is a target."
    )
    loss: Literal["mse", "sse", "wasserstein", "forward_kl", "reverse_kl"] = Field(
        "sse",
        description="sse: sum of squared differences over bins, as in the paper; mse: their mean; reverse_kl: "
        "Σ p log(p / p_ref), most sensitive to values absent from the reference.",
    )
    weight: Positive = Field(1.0, description="Factor on this loss.")
    reference_file: str | None = Field(
        None, description="File of two columns, e.g. from an experiment; null: the training data."
    )
    reference_temperature_K: Positive | None = Field(
        None, description="Temperature of the file. Dynamics at another temperature is refused; null: unknown."
    )


class BoundedTerm(Section):
    """The weight of a term that is estimated from samples, and the bounds on its gradient."""

    weight: NonNegative = Field(1.0, description="Factor on the gradient of this term.")
    min_ratio: Positive | None = Field(
        None,
        description="Lower bound on the norm of the weighted gradient, relative to the norm of the weighted gradients "
        "of terms without bounds. Smaller gradients are scaled up; null: never.",
    )
    max_ratio: Positive | None = Field(1.0, description="Upper bound; larger gradients are scaled down; null: never.")


class ObservablesTermConfig(BoundedTerm):
    """Loss of mean observables against their references, by the Boltzmann estimator."""

    name: Literal["observables"] = Field(description="The term.")
    targets: tuple[TargetConfig, ...] = Field(
        min_length=1, description="Observables and references; the weighted sum of their losses is minimized."
    )


class ContrastTermConfig(BoundedTerm):
    """Relative entropy between reference structures and simulated ones. It needs structures without labels."""

    name: Literal["contrast"] = Field(description="The term.")
    reference: Literal["reference_data", "labeled_frames"] = Field(
        "reference_data",
        description="Reference structures. reference_data: all training structures of `reference_size`; "
        "labeled_frames: the labeled training frames.",
    )
    reference_file: str | None = Field(
        None,
        description="Structures or a trajectory to read instead, in GSD or any format that ASE reads. With a barostat, "
        "of a simulation at its pressure.",
    )
    structures_per_gradient: Count | None = Field(
        240, description="Structures drawn at random per gradient, on each side; null: all."
    )
    simulated: Literal["all", "after_break"] = Field(
        "all", description="Simulated frames: all, or only those from the break of a replica on."
    )


class DynamicalTargetConfig(Section):
    """A dynamical observable, its reference and their loss."""

    observable: DynamicalConfig = Field(
        description="The observable, chosen by `name`. Its lags must fit into a window of the term."
    )
    loss: Literal["mse", "sse"] = Field(
        "mse", description="mse: mean of the squared differences over lags; sse: their sum."
    )
    weight: Positive = Field(1.0, description="Factor on this loss.")
    reference_file: str | None = Field(
        None, description="File of two columns, the lag in fs and the value; null: the contiguous frames of the data."
    )
    reference_value: float | None = Field(
        None, description="Reference of a diffusivity (1e-9 m²/s) or another single number; null: as above."
    )

    @model_validator(mode="after")
    def _one_reference(self) -> DynamicalTargetConfig:
        if self.reference_file is not None and self.reference_value is not None:
            raise ValueError("reference_file and reference_value exclude each other")
        return self


class DynamicsTermConfig(BoundedTerm):
    """Loss of dynamical observables against their references, over windows centered at reference structures.

    The integrator must be `langevin` or `nve`.
    """

    name: Literal["dynamics"] = Field(description="The term.")
    targets: tuple[DynamicalTargetConfig, ...] = Field(
        min_length=1, description="Observables and references; the weighted sum of their losses is minimized."
    )
    steps: Count = Field(
        400,
        description="Steps of a window. Gradients of windows of many Lyapunov times of the system are noise.",
    )
    dump_every_steps: Count = Field(4, description="Steps between frames, a divisor of half the `steps`.")
    windows: Count = Field(16, description="Windows per gradient.")
    points_every_steps: Count = Field(
        16, description="The forces of one random step out of this many are differentiated with respect to parameters."
    )
    max_window_ratio: Positive | None = Field(
        10.0, description="Largest norm of the sensitivities of a window, relative to the median; null: no limit."
    )

    @model_validator(mode="after")
    def _frames_fill_windows(self) -> DynamicsTermConfig:
        if self.steps % (2 * self.dump_every_steps):
            raise ValueError(f"steps ({self.steps}) must be a multiple of 2 dump_every_steps ({self.dump_every_steps})")
        return self


class EnergiesForcesTermConfig(Section):
    """Loss of energies and forces on the labeled training frames."""

    name: Literal["energies_forces"] = Field(description="The term.")
    weight: NonNegative = Field(10.0, description="Factor on the gradient of this term.")
    batch_size: Count | None = Field(None, description="Frames per gradient; null: the whole training set.")
    loss: Literal["mae", "mse", "huber", "l2mae"] = Field(
        "mae", description="Loss; l2mae is the per-atom L2 norm of force errors."
    )
    max_increase: Positive | None = Field(
        None,
        description="Relative increase of this loss at which terms with bounds have faded to nothing; null: never.",
    )
    energy_coefficient: NonNegative = Field(0.05, description="Weight of the energy error (eV).")
    force_coefficient: NonNegative = Field(0.95, description="Weight of the force error (eV/Å).")
    stress_coefficient: NonNegative = Field(
        0.0, description="Weight of the stress error (eV/Å³), for frames of a data set of several compositions."
    )


class CustomTermConfig(BoundedTerm, CustomConfig):
    """A custom `LossTerm`. Its factory may take `system`, `dataset` (the reference data) and `reference_dataset`.

    With several `state_points` a term that uses samples is made for each of them, and may take `temperature_K`, and
    `pressure_bar` if state points have pressures.
    """


TermConfig = Annotated[
    ObservablesTermConfig | ContrastTermConfig | DynamicsTermConfig | EnergiesForcesTermConfig | CustomTermConfig,
    Field(discriminator="name"),
]

#: Keys of earlier releases below `learning`, with the term and the key that replace them.
OLD_KEYS = {
    "energy_force_loss_weight": ("energies_forces", "weight"),
    "qm_batch_size": ("energies_forces", "batch_size"),
    "energy_coefficient": ("energies_forces", "energy_coefficient"),
    "force_coefficient": ("energies_forces", "force_coefficient"),
    "min_gradient_ratio": ("observables", "min_ratio"),
    "max_gradient_ratio": ("observables", "max_ratio"),
}


def translated(values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A configuration with old keys translated to `terms`, and a list of the translations.

    Args:
        values: configuration of a training before validation, not changed.

    Raises:
        ValueError: an old key belongs to a term that the configuration leaves out.
    """
    learning = values.get("learning")
    learning = dict(learning) if isinstance(learning, dict) else {}
    old = {key: learning.pop(key) for key in [*OLD_KEYS, "direction"] if key in learning}
    observables = values.get("training_observables")
    if not old and observables is None:
        return values, []
    terms = [dict(term) if isinstance(term, dict) else term for term in _listed(values.get("terms"))]
    if not terms:
        terms = [{"name": "observables"}, {"name": "energies_forces"}]
    if observables is not None:
        _term(terms, "observables", "training_observables")["targets"] = observables
    for key in OLD_KEYS.keys() & old.keys():
        name, new = OLD_KEYS[key]
        _term(terms, name, f"learning.{key}")[new] = old[key]
    if old.get("direction", "joint") != "joint":
        terms = [term for term in terms if not (isinstance(term, dict) and term.get("name") == "observables")]
        learning["randomize_steps"] = old["direction"] == "random"
    kept = {key: value for key, value in values.items() if key not in ("training_observables", "learning")}
    said = ["training_observables -> terms.observables.targets"] if observables is not None else []
    said += [f"learning.{key} -> terms.{'.'.join(OLD_KEYS[key])}" for key in OLD_KEYS if key in old]
    said += ["learning.direction -> terms and learning.randomize_steps"] if "direction" in old else []
    return {**kept, "terms": terms, **({"learning": learning} if learning else {})}, said


def _listed(terms: Any) -> list[Any]:
    return list(terms) if isinstance(terms, list | tuple) else []


def _term(terms: list[Any], name: str, key: str) -> dict[str, Any]:
    for term in terms:
        if isinstance(term, dict) and term.get("name") == name:
            return term
    raise ValueError(f"{key}: is an old key of the term {name!r}, which `terms` leaves out")
