"""Checks that every integrator makes on its settings."""


def require_positive(integrator: str, **settings: float | int) -> None:
    """Raise `ValueError`, naming the setting, unless each is a finite number greater than zero."""
    for name, value in settings.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{integrator}: {name} must be a finite number greater than zero, but it is {value}")
