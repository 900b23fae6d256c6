"""API keys: a file of hashes, compared in constant time.

    # name  sha256 of the key
    alice   sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

Keys are random and long, so a plain SHA-256 keeps them: there is nothing to guess.
"""

from __future__ import annotations

import contextlib
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
            UsageError: it cannot be read, holds no key, a name or a key twice, or a line that is
                not one.
        """
        lines = _lines(file)
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
            if match["digest"] in digests.values():
                raise UsageError(f"{file}: line {number}: another name has this key already")
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


def _lines(file: Path) -> list[str]:
    # A device or a pipe may have no end, or no beginning.
    if file.is_file():
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return file.read_text(encoding="utf-8-sig").splitlines()
    raise UsageError(f"{file}: cannot be read as a file of keys. Make one: tallyformer key NAME")


def digest_of(key: str) -> str:
    """SHA-256 of a key, in hexadecimal."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def new_key() -> str:
    """A fresh key with 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def add_key(file: Path, name: str) -> str:
    """Add a fresh key's hash to a file of keys, which is made if it is not there; return the key.

    Raises:
        UsageError: the file has a key of this name, cannot be written or is no such file; or no key
            has such a name.
    """
    key = new_key()
    line = key_line(name, key)
    known = _lines(file) if file.exists() else []
    if any(one.partition("#")[0].split()[:1] == [name] for one in known):
        raise UsageError(
            f"{file}: has a key of {name} already. Remove its line, or take a new name"
        )
    try:
        file.touch(mode=0o600)
        file.chmod(0o600)
        with file.open("r+", encoding="utf-8") as lines:
            text = lines.read()
            lines.write(f"{line}\n" if text.endswith("\n") or not text else f"\n{line}\n")
    except OSError as error:
        reason = (error.strerror or "refused").lower()
        raise UsageError(
            f"{file}: cannot be written ({reason}). Give --file in a folder of yours"
        ) from None
    return key


def key_line(name: str, key: str) -> str:
    """The line of a key file for a key.

    Raises:
        UsageError: the name has other characters than a file of keys can hold.
    """
    line = f"{name} sha256:{digest_of(key)}"
    if not _LINE.fullmatch(line):
        raise UsageError(f"{name!a}: a key's name is 1 to 64 letters, digits and . _ @ -")
    return line
