"""Pseudonyms of patients and objects: keyed hashes, which nobody can compute or undo without the key."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

from edgefusion.errors import DataError, UsageError
from edgefusion.progress import say

_KEY_BYTES = 32
_OTHERS = 0o077


class Pseudonyms:
    """Pseudonyms under one key: the same for the same name every time, and without relation to it for anybody else.

    They are HMAC-SHA256 (RFC 2104), truncated. A plain hash would not do: there are few enough patient numbers to try
    them all.

    Args:
        key: 32 secret bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def name(self, kind: str, value: str) -> str:
        """16 hexadecimal digits for a name; ``kind`` keeps a patient's number and an equal study's number apart."""
        return self._digest(kind, value)[:16]

    def uid(self, value: str) -> str:
        """A DICOM unique identifier in place of another one (the form of DICOM PS3.5, B.2)."""
        return f"2.25.{int(self._digest('uid', value.strip())[:32], 16)}"

    def _digest(self, kind: str, value: str) -> str:
        return hmac.new(self._key, f"{kind}\0{value}".encode(), hashlib.sha256).hexdigest()


def default_key_file() -> Path:
    """``edgefusion/pseudonyms.key`` in the user's configuration folder (``$XDG_CONFIG_HOME``, else ``~/.config``)."""
    folder = os.environ.get("XDG_CONFIG_HOME") or os.environ.get("APPDATA") or Path.home() / ".config"
    return Path(folder) / "edgefusion" / "pseudonyms.key"


def load_pseudonyms(key_file: Path | None = None, outside: Path | None = None) -> Pseudonyms:
    """The pseudonyms of the key in a file, which is made, for its owner only (mode 600), where there is none.

    Args:
        key_file: The file; by default ``default_key_file()``.
        outside: A folder that is going to be given away, in which the key must not lie.

    Raises:
        UsageError: If the file lies in ``outside``, or others than its owner may read it.
        DataError: If it holds no key.
    """
    path = (key_file or default_key_file()).expanduser().absolute()
    if outside is not None and path.resolve().is_relative_to(outside.resolve()):
        raise UsageError(f"The key {path} would lie inside {outside}.", "Keep it apart from what it protects.")
    if not path.exists():
        _make(path)
    if os.name == "posix" and path.stat().st_mode & _OTHERS:
        raise UsageError(f"The key {path} can be read by others than its owner.", f"Run: chmod 600 {path}")
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The key {path} cannot be read: {error}.") from error
    if not re.fullmatch(rf"[0-9a-f]{{{2 * _KEY_BYTES}}}", text):
        raise DataError(f"{path} holds no key.", f"A key is {2 * _KEY_BYTES} hexadecimal digits.")
    return Pseudonyms(bytes.fromhex(text))


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(_KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        # A link, so that of two programs that start at once one makes the key and both use it.
        os.link(temporary, path)
        say(f"A new key for pseudonyms is in {path}. Keep it, and keep it to yourself: it links them to patients.")
    except FileExistsError:
        pass
    finally:
        temporary.unlink(missing_ok=True)
