"""Translates a bucket's errors into our own, with how to fix them.

The library's messages contain whole requests, and with them parts of credentials; only the error
code and the HTTP status are shown.
"""

from __future__ import annotations

import re

from backtest_pipeline.market.errors import ArtifactError

_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"status code: (\d{3} [A-Z][A-Za-z ]+)")
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "FilesystemNotFound", "InvalidBucketName")
_NOT_ALLOWED = re.compile(r"status code: 40[13]\b|necessary privileges|valid authentication")
_NO_CREDENTIALS = re.compile(r"169\.254\.|metadata\.google|/metadata/|MissingAccount")
_SILENT = re.compile(r"error sending request|timed out|[Tt]imeout|connection|dns error")
_VARIABLES = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION",
    "gs": "GOOGLE_SERVICE_ACCOUNT, a path, or GOOGLE_SERVICE_ACCOUNT_KEY, its content",
}
_AZURE = "AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN"


def of_missing_bucket(message: str) -> bool:
    """Whether the bucket itself is missing, not just an object."""
    return any(code in _NO_BUCKET for code in _CODE.findall(message))


def refusal(url: str, message: str) -> ArtifactError:
    """Our error for an error message of the library."""
    variables = _VARIABLES.get(url.partition(":")[0], _AZURE)
    code = ", ".join(dict.fromkeys([*_CODE.findall(message), *_STATUS.findall(message)]))
    if of_missing_bucket(message):
        return ArtifactError(
            f"there is no bucket for {url}; create it, or correct BACKTEST_ARTIFACTS_URL"
        )
    if _NO_CREDENTIALS.search(message):
        return ArtifactError(f"no credentials found for {url}; set {variables}")
    if _NOT_ALLOWED.search(message):
        return ArtifactError(
            f"{url} refuses the request ({code or 'not allowed'}); check {variables}, and that "
            "they allow reading, writing, listing and deleting there"
        )
    if _SILENT.search(message) and not code:
        return ArtifactError(
            f"{url} does not respond; check the network, the region and the endpoint "
            "(AWS_ENDPOINT_URL, AZURE_STORAGE_ENDPOINT), and try again"
        )
    return ArtifactError(
        f"the request to {url} failed ({code or 'no reason given'}); try again later"
    )
