"""Mistakes of the user or of a file. Each message names the file or key, what was found, and what to do."""


class UserError(Exception):
    """Base of all errors that the command line prints as one message, without a traceback."""


class ConfigError(UserError, ValueError):
    """A configuration cannot be used."""


class DatasetError(UserError, ValueError):
    """Reference data cannot be used."""


class CheckpointError(UserError, RuntimeError):
    """A checkpoint cannot be read or written."""


class UnknownSpeciesError(UserError, ValueError):
    """A force field is asked about elements that it was not trained for."""


class TrainingError(UserError, RuntimeError):
    """A training cannot go on."""


class EnergyZeroError(UserError, ValueError):
    """A total energy is asked for whose zero the training data do not determine."""


def one_line(text: object, most: int = 300) -> str:
    """Text of any origin for a message: on one line, printable, and of bounded length."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(str(text).split()))
    kept = (most - 3) // 2
    return line if len(line) <= most else f"{line[:kept]}...{line[-kept:]}"
