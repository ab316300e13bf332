"""Credentials have no place in a URL: others read it in provenance, error lines, logs and the parameters of runs."""

from corrdiff_core.errors import ConfigurationError, without_credentials


def refuse_credentials(url: str) -> None:
    """ConfigurationError for a URL with a password, a token or a signature in it; the message bears none of them.

    >>> refuse_credentials("s3://bucket/archive")
    """
    told = without_credentials(url)
    if told != url:
        raise ConfigurationError(
            f"{told} has a credential in it, which would be archived and logged: give it by AWS_ACCESS_KEY_ID and"
            " AWS_SECRET_ACCESS_KEY, or as a header by FSSPEC_HTTPS, and leave it out of the URL"
        )
