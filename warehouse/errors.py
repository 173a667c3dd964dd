"""Domain errors: each message says what was expected, what happened and what to do."""

# Characters: a message may quote a text of 100 MB.
MAX_MESSAGE = 2000


class AxesError(Exception):
    """Base of every error that the user can fix; the command line prints it as one line."""


class RootError(AxesError):
    """The folder given as a warehouse root is not one, or is of another schema version."""


class PromptError(AxesError):
    """A prompt set is unknown, or its rows cannot be used as they are."""


class LabelError(AxesError):
    """Labels contradict each other, are not understood, or leave a class empty."""


class ModelError(AxesError):
    """A model is unknown, cannot be reached or loaded, or is ambiguous in the warehouse."""


class LayerError(AxesError):
    """The model does not have this layer."""


class CoverageError(AxesError):
    """Rows that a result would rest on are missing from the warehouse."""


class NonFiniteError(AxesError):
    """A vector holds NaN or infinity."""


class AxisError(AxesError):
    """An axis is unknown, ambiguous, or does not fit what it is applied to."""


class NoAlignmentError(AxisError):
    """No stored alignment leads from a model to the space of an axis."""


class DefinitionError(AxesError):
    """A study's definition holds something that is unknown, missing or of the wrong type."""


class CalibrationError(AxesError):
    """A calibration is unknown, ambiguous, or cannot be fitted on these rows."""


class QueryError(AxesError):
    """A SQL statement was refused by DuckDB."""


class AlignmentError(AxesError):
    """An alignment cannot be fitted with these settings."""


class ImportFileError(AxesError):
    """An external file lacks what an import needs."""


class ServingError(AxesError):
    """The page of `axes explore` cannot be served at this address."""


class ConfigError(AxesError):
    """A file `axes.toml` holds something that is unknown or of the wrong type."""
