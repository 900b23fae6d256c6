"""API keys: a file of hashes, compared in constant time.

    # name  sha256 of the key
    alice   sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

Keys are random and long, so a plain SHA-256 keeps them: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from pathlib import Path

from tallyformer.errors import UsageError

PREFIX = "tf-"
_LINE = re.compile(r"(?P<name>[\w.@-]{1,64})\s+sha256:(?P<digest>[0-9a-f]{64})")


class ApiKeys:
    """Who a key belongs to.

    Args:
        digests: name -> SHA-256 of the key, in hexadecimal.
    """

    def __init__(self, digests: dict[str, str]) -> None:
        self._digests = {name: digest.encode() for name, digest in digests.items()}

    @classmethod
    def read(cls, file: Path) -> ApiKeys:
        """The keys of a file.

        Raises:
            UsageError: it cannot be read, holds no key, a name twice, or a line that is not one.
        """
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            raise UsageError(
                f"{file}: cannot be read as a file of keys. Make one: tallyformer key NAME"
            ) from None
        digests: dict[str, str] = {}
        for number, line in enumerate(lines, 1):
            text = line.partition("#")[0].strip()
            if not text:
                continue
            match = _LINE.fullmatch(text)
            if match is None:
                raise UsageError(
                    f"{file}: line {number} is not a name and sha256:HASH. "
                    "Make it: tallyformer key NAME"
                )
            if match["name"] in digests:
                raise UsageError(f"{file}: line {number}: {match['name']} is there twice")
            digests[match["name"]] = match["digest"]
        if not digests:
            raise UsageError(f"{file}: no keys. Make one: tallyformer key NAME")
        return cls(digests)

    def reload(self, file: Path) -> None:
        """Take the keys of a file in place of these; requests under way are not asked again.

        Raises:
            UsageError: as for `read`; these are kept.
        """
        self._digests = self.read(file)._digests

    def owner(self, key: str) -> str | None:
        """The name that a key belongs to; None for a key that is not known.

        It takes the same time for every key: all are compared, and hashes at that.
        """
        digest = digest_of(key).encode()
        found = None
        for name, known in self._digests.items():
            if hmac.compare_digest(digest, known):
                found = name
        return found


def digest_of(key: str) -> str:
    """SHA-256 of a key, in hexadecimal."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def new_key() -> str:
    """A fresh key with 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def key_line(name: str, key: str) -> str:
    """The line of a key file for a key.

    Raises:
        UsageError: the name has other characters than a file of keys can hold.
    """
    line = f"{name} sha256:{digest_of(key)}"
    if not _LINE.fullmatch(line):
        raise UsageError(f"{name!a}: a key's name is 1 to 64 letters, digits and . _ @ -")
    return line
