"""How this package compiles its inner loops."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import numba
from numba.core.caching import FunctionCache

F = TypeVar("F", bound=Callable[..., Any])


class _ForgivingCache(FunctionCache):  # type: ignore[misc]
    """Numba's cache on disk, except that a disk that is full or became read-only is no error."""

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(OSError):
            super().save_overload(sig, data)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        with suppress(OSError):
            return super().load_overload(sig, target_context)
        return None


def compiled(function: F) -> F:
    """Compile for this machine; keep the result on disk, or only in memory where no folder can be written.

    The loops release Python's lock. ``error_model="numpy"`` keeps a division from being a branch, without which a
    loop is not vectorised. Numba's cache looks at one source file only, so a compiled function may call compiled
    functions of its own file, and no others.
    """
    dispatcher = numba.njit(error_model="numpy", fastmath=True, nogil=True)(function)
    with suppress(RuntimeError):  # raised where no cache folder can be written
        dispatcher._cache = _ForgivingCache(function)
    return dispatcher  # type: ignore[no-any-return]
