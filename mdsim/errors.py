"""Errors caused by the user or by a file. Each message names the file or key, what was found, and what to do."""


class UserError(Exception):
    """Base of all errors that the command line prints as one message, without a traceback."""


class ConfigError(UserError, ValueError):
    """A configuration cannot be used."""


class DatasetError(UserError, ValueError):
    """Reference data cannot be used."""


class CheckpointError(UserError, RuntimeError):
    """A checkpoint cannot be read or written."""


class UnknownSpeciesError(UserError, ValueError):
    """A system has elements that the force field was not trained for."""


class TrainingError(UserError, RuntimeError):
    """A training cannot continue."""


class EnergyZeroError(UserError, ValueError):
    """A total energy is requested, but the training data do not determine its zero."""


def one_line(text: object, most: int = 300) -> str:
    """Make any text printable, on one line and of bounded length, for a message."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(str(text).split()))
    kept = (most - 3) // 2
    return line if len(line) <= most else f"{line[:kept]}...{line[-kept:]}"
