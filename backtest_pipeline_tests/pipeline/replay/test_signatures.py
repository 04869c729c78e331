"""Signatures are those of minisign: made with its keys, and verified as its format says."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.pipeline.replay.signatures import SigningKey
from backtest_pipeline_tests.pipeline.replay.minisign import PAIR, PUBLIC, require_valid, write_key

DATA = b"a bundle"
# What another implementation of minisign has verified.
KNOWN = (
    "RUQ26PGMKq7iRLgSnATGlmgRi2JGATyhpOE9axY8UjlIW03J4tOf8GVPmHmm1BclmN/dKrbsWARIDG+JJOuKfWK5hUIfaxv0"
    "bAw="
)


def test_a_signature_is_of_these_bytes_and_this_comment(tmp_path: Path) -> None:
    key = SigningKey.of_file(write_key(tmp_path / "desk.key"))
    signature = key.signature(DATA, "run 1")
    assert require_valid(DATA, signature) == "run 1"
    assert signature == key.signature(DATA, "run 1")
    for data, forged in ((b"a bundlf", signature), (DATA, signature.replace(b"run 1", b"run 2"))):
        with pytest.raises(InvalidSignature):
            require_valid(data, forged)


def test_it_is_the_signature_that_minisign_verifies(tmp_path: Path) -> None:
    key = SigningKey.of_file(write_key(tmp_path / "desk.key"))
    assert key.signature(b"hello", "run 1").decode().splitlines()[1] == KNOWN


def test_what_is_no_key_is_named(tmp_path: Path) -> None:
    damaged = base64.b64encode(base64.b64decode(PAIR)[:-1] + b"x").decode()
    protected = base64.b64encode(b"EdScB2" + bytes(152)).decode()
    for text, why in {
        damaged: "is not a secret key of minisign, or is damaged",
        PUBLIC: "is not a secret key of minisign, or is damaged",
        protected: "has a password; make one for this purpose with `minisign -G -W`",
        "no base64": "cannot be read as a secret key of minisign",
    }.items():
        with pytest.raises(InvalidInput, match=why):
            SigningKey.of_file(write_key(tmp_path / "desk.key", text))
    with pytest.raises(InvalidInput, match="cannot be read"):
        SigningKey.of_file(tmp_path / "nowhere.key")
