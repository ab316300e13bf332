"""The failures that this package names, one tree:

CorrdiffError
├── SourceError        a source delivered something wrong (stale index, truncated message, missing channel ...)
├── QualityError       fields that are not plausible weather for the slot
├── GridError          grids that do not fit (a target point outside the source, latitude upside down ...)
├── ArchiveError       a store that is not what the writer or reader expects
├── DatasetError       a dataset or sample that is not what training and evaluation must get
├── CheckpointError    a checkpoint or manifest that cannot be trusted
├── TrainingError      training that cannot go on (non-finite loss, a resume that does not match ...)
└── ConfigurationError a setting or argument that makes no sense

Every message names the thing, both sides of the disagreement, and the cure. "Not there yet" is no error:
see `sources.source.NotYet`.
"""


class CorrdiffError(Exception):
    """Base of every failure that this package names."""


class SourceError(CorrdiffError):
    pass


class QualityError(CorrdiffError):
    pass


class GridError(CorrdiffError):
    pass


class ArchiveError(CorrdiffError):
    pass


class DatasetError(CorrdiffError):
    pass


class CheckpointError(CorrdiffError):
    pass


class TrainingError(CorrdiffError):
    pass


class ConfigurationError(CorrdiffError):
    pass
