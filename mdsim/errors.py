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
