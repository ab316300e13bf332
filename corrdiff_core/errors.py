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

import re

# A password or token before the host (not abfs's container), and what a signed URL is signed with. The words of a query
# are those of S3, Google, Azure and of common HTTP interfaces.
_USER = re.compile(
    r"(?P<web>\bhttps?://)[^/\s?#@]+@|(?P<other>\b[a-z][a-z0-9+.-]*://)[^/\s?#@:]*:[^/\s?#@]*@", re.IGNORECASE
)
_SIGNED = re.compile(
    r"([?&;](?:x-(?:amz|goog)-(?:signature|credential|security-token)|signature|sig|awsaccesskeyid|googleaccessid"
    r"|(?:access_?|auth_?|api_?)?(?:token|key)|password|secret)=)(?!\*\*\*)[^&;\s'\"<>)]+",
    re.IGNORECASE,
)


def without_credentials(text: str) -> str:
    """`text` with what its URLs carry of passwords, tokens and signatures struck out.

    >>> without_credentials("https://me:secret@host/a.nc?v=2&X-Amz-Signature=0af1")
    'https://***@host/a.nc?v=2&X-Amz-Signature=***'
    """
    return _SIGNED.sub(r"\1***", _USER.sub(_struck, text))


def _struck(found: re.Match[str]) -> str:
    return f"{found['web'] or found['other']}***@"


class CorrdiffError(Exception):
    """Base of every failure that this package names. No message carries a URL's credentials."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*(without_credentials(part) if isinstance(part, str) else part for part in arguments))


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
