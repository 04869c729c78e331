"""What a bucket's refusal means, and how to mend it, without any of the library's own words.

Those hold whole requests, and with them parts of credentials; of them only the code of the error
and the HTTP status are told.
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
    """Whether it is the bucket that is not there, and not an object."""
    return any(code in _NO_BUCKET for code in _CODE.findall(message))


def refusal(url: str, message: str) -> ArtifactError:
    """The error to raise for what the library says."""
    variables = _VARIABLES.get(url.partition(":")[0], _AZURE)
    told = ", ".join(dict.fromkeys([*_CODE.findall(message), *_STATUS.findall(message)]))
    if of_missing_bucket(message):
        return ArtifactError(
            f"there is no bucket for {url}; create it, or mend BACKTEST_ARTIFACTS_URL"
        )
    if _NO_CREDENTIALS.search(message):
        return ArtifactError(f"no credentials for {url} were found; set {variables}")
    if _NOT_ALLOWED.search(message):
        return ArtifactError(
            f"{url} refuses the request ({told or 'not allowed'}); check {variables}, and that "
            "they may read, write, list and delete there"
        )
    if _SILENT.search(message) and not told:
        return ArtifactError(
            f"{url} does not answer; check the network, the region and the endpoint "
            "(AWS_ENDPOINT_URL, AZURE_STORAGE_ENDPOINT), and try again"
        )
    return ArtifactError(f"{url} has failed ({told or 'for no reason it tells'}); try again later")
