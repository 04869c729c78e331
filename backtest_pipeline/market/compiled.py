"""The decorator of compiled functions, whose machine code many processes keep in one folder.

Numba writes a function's code and the index to it without a lock. Two processes that compile it at
once for different types of arguments both take the first free file name, and the next one runs the
code for the one on the arguments of the other: a crash, or numbers that are wrong.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit
from numba.core.caching import FunctionCache
from numba.core.dispatcher import Dispatcher
from numba.core.runtime.nrt import rtsys

_F = TypeVar("_F", bound=Callable[..., Any])


def compiled(function: _F) -> _F:
    """Compile a function once for each kind of arguments, and run it without the GIL.

    Its code is kept beside its source, or in the user's cache where that cannot be written to.

    Raises:
        RuntimeError: for a function that stands in no file, such as one typed at a prompt.
    """
    dispatcher = njit(cache=True, nogil=True)(function)
    if isinstance(dispatcher, Dispatcher):  # it is the function itself under NUMBA_DISABLE_JIT
        dispatcher._cache = _SharedCache(function)  # pyright: ignore[reportAttributeAccessIssue]
    return cast("_F", dispatcher)


class _SharedCache(FunctionCache):
    """Code is saved by one process at a time, and taken only for the arguments that it is for."""

    def save_overload(self, sig: Any, data: Any) -> None:
        self._impl.locator.ensure_cache_path()
        with (Path(self.cache_path) / "saving.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            super().save_overload(sig, data)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        # Numba's own method makes everything ready that compiling needs, which takes each process a
        # quarter of a second. Loading needs the runtime alone; the compiler makes itself ready.
        rtsys.initialize(target_context)
        with self._guard_against_spurious_io_errors():
            found = self._load_overload(sig, target_context)
        return found if found is not None and found.signature.args == tuple(sig) else None
