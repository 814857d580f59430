"""Files on object storage (``s3://bucket/...`` and whatever else fsspec reaches), for reading.

Storage that cannot be reached is not the fault of a file: it raises another error than a file that is not there, so
that an outage never ends up in a table as a million bad frames.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.request import url2pathname

from edgefusion.errors import DataError, EdgeFusionError, UsageError

_ATTEMPTS = 3
_CONNECT_S = 5
_READ_S = 60

_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError", "UnauthorizedSSOTokenError")


class UnreachableError(EdgeFusionError):
    """Storage cannot be reached, or does not let us in; nothing is said about what lies there."""


@dataclass(frozen=True)
class RemotePath:
    """The address of an object, or of what would be a folder; what readers use of ``pathlib.Path``, but read-only."""

    url: str
    """Such as ``s3://bucket/study``, without a slash at its end."""
    content: bytes | None = None
    """Its bytes, where they were fetched."""

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        """What follows the last slash."""
        return self.url.rpartition("/")[2]

    def absolute(self) -> RemotePath:
        """Itself: an address is the same everywhere."""
        return self

    @property
    def parent(self) -> RemotePath:
        """What is before the last slash."""
        return RemotePath(self.url.rpartition("/")[0])

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """The ending of the name, with its dot."""
        return PurePosixPath(self.name).suffix

    def is_file(self) -> bool:
        """Whether there is such an object; an ``UnreachableError`` where that cannot be known."""
        try:
            with _storage(self.url) as (system, path):
                # Not isfile, which takes every failure for a no.
                return bool(system.info(path)["type"] == "file")
        except DataError:
            return False

    def size(self) -> int:
        """How many bytes the object has; errors as for ``read_bytes``."""
        with _storage(self.url) as (system, path):
            return int(system.size(path))

    def read_bytes(self) -> bytes:
        """The object's bytes.

        Raises:
            DataError: If there is no such object.
            UnreachableError: If the storage does not answer, after a few attempts, or does not let us in.
        """
        if self.content is not None:
            return self.content
        with _storage(self.url) as (system, path):
            return bytes(system.cat_file(path))

    def read_text(self, encoding: str = "utf-8") -> str:
        """The object's text; errors as for ``read_bytes``."""
        return self.read_bytes().decode(encoding)

    def open(self, mode: str = "rb") -> io.BytesIO:
        """The object as a file that is read, all of it at once; errors as for ``read_bytes``."""
        return io.BytesIO(self.read_bytes())

    def fetched(self) -> RemotePath:
        """The same with its bytes, so that several readers see one state of it, for one request."""
        return RemotePath(self.url, self.read_bytes())


Place = Path | RemotePath
"""Where a file is."""


def place(path: Place | str) -> Place:
    """Where a path or an address points: text with ``://`` is on object storage, but for ``file://``."""
    if not isinstance(path, str):
        return path
    scheme, mark, rest = path.partition("://")
    if not mark:
        return Path(path)
    return Path(url2pathname(rest)) if scheme == "file" else RemotePath(path.rstrip("/"))


def fetched(path: Place) -> Place:
    """A remote path with its bytes; another one as it is."""
    return path.fetched() if isinstance(path, RemotePath) else path


@contextmanager
def _storage(url: str) -> Iterator[tuple[Any, str]]:
    """The file system of an address and the path in it; its errors become ours, in one line."""
    import fsspec

    scheme = url.partition("://")[0]
    try:
        yield fsspec.core.url_to_fs(url, **_options(scheme))
    except FileNotFoundError as error:
        if "bucket" in str(error).lower():
            raise UnreachableError(f"There is no bucket of {url}.", "Check its name and the server.") from None
        raise DataError(f"There is no object {url}.", "Check its spelling.") from None
    except ImportError as error:
        remedy = "pip install 'edgefusion[s3]'" if scheme in ("s3", "s3a") else "Install what fsspec asks for."
        raise UsageError(f"{scheme}:// needs a package that is not installed ({error}).", remedy) from None
    except PermissionError as error:
        raise UnreachableError(f"{url} may not be read: {_line(error)}.", "Check the credentials' rights.") from None
    except EdgeFusionError:
        raise
    except Exception as error:
        if type(error).__name__ in _NO_CREDENTIALS:
            raise UnreachableError(
                f"There are no credentials to read {url}.",
                "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.",
            ) from None
        if isinstance(error, ValueError) and "rotocol not known" in str(error):
            raise UsageError(
                f"There is no kind of storage '{scheme}'.", "Give s3://BUCKET/PATH, or a folder."
            ) from None
        raise UnreachableError(
            f"{url} cannot be reached: {_line(error)}.", "Try again when its server answers."
        ) from error


def _options(scheme: str) -> dict[str, Any]:
    """A server that is away is given up after some seconds and attempts; fsspec's own settings come first."""
    from fsspec.config import conf

    if scheme not in ("s3", "s3a") or "config_kwargs" in conf.get(scheme, {}):
        return {}
    retries = {"max_attempts": _ATTEMPTS, "mode": "standard"}
    return {"config_kwargs": {"connect_timeout": _CONNECT_S, "read_timeout": _READ_S, "retries": retries}}


def _line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".")
