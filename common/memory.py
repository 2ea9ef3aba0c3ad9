"""The memory of this machine, where it is used up."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from common.errors import UserError

#: Texts of libraries that have no class for it: PyTorch's allocator, the loader of shared
#: libraries, the start of a thread.
TEXTS = (
    *("DefaultCPUAllocator: ", "failed to map segment", "can't start new thread"),
    "Resource temporarily unavailable",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that this machine has no memory left for the process.

    That of a GPU is another.
    """
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # A panic of a library in Rust has a class that cannot be imported.
    if isinstance(error, RuntimeError | ImportError) or type(error).__name__ == "PanicException":
        return any(text in str(error) for text in TEXTS)
    return isinstance(error, MemoryError)


@contextmanager
def memory_errors_explained() -> Iterator[None]:
    """Raise UserError if the machine has no memory left for the block."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise explained(error) from error


def explained(error: Exception) -> UserError:
    """Return the message of an error for which ``is_out_of_memory``."""
    why = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
    return UserError(
        f"This process has no memory left ({why}). End other programs, give it more (ulimit "
        "-v, the memory of its container), or use a smaller model."
    )
