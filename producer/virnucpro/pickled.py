"""Reading the arrays of a file that ``torch.save`` wrote, without torch, and without running it.

A pickle names functions to be called. Here each of the few that such a file needs is replaced by
one of this module that only records what it was given; any other name is refused.
"""

import io
import math
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError

#: The types of numbers that a classifier may have, by the name of torch's storage.
STORAGES: Mapping[str, np.dtype[Any]] = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
}

#: The most bytes of a file, and of its pickle: a classifier has 7 MB.
MAX_BYTES, MAX_PICKLE_BYTES = 256 << 20, 1 << 20

#: What the beginning of a file of torch before 1.6 is, as a pickle.
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

#: The bytes of a zip file's beginning.
ZIP = b"PK\x03\x04"


class Inert:
    """An object of the file. Its attributes are recorded; nothing of it is run."""

    def __init__(self, *_arguments: Any) -> None:
        self.state: Any = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Module(Inert):
    """A module of the file, such as a layer."""


class Storage(Inert):
    """A type of storage of the file, which its tensors name."""


class RefusedError(Exception):
    """Something in the file that is not of a classifier."""


def inert(kind: type[Inert], name: str) -> type[Inert]:
    """Return a class that stands for one of the file."""
    return type(name, (kind,), {})


#: The modules that a file may have, by where their class is from.
LAYERS = {
    "torch.nn.modules.linear": ("Linear",),
    "torch.nn.modules.batchnorm": ("BatchNorm1d",),
    "torch.nn.modules.dropout": ("Dropout",),
    "torch.nn.modules.activation": ("ReLU", "Softmax"),
    "torch.nn.modules.container": ("Sequential",),
}

#: The class of VirNucPro, which is pickled under the name of the script that trained it.
CLASSIFIER = "MLPClassifier"


class Unpickler(pickle._Unpickler):  # the one in Python
    """An unpickler that makes what this module allows, and nothing else.

    What it gives a pickle is made anew each time: a pickle can change it. The unpickler in C would
    take as much memory as a pickle says.
    """

    def __init__(self, data: io.BytesIO, load: Callable[[Any], NDArray[Any]]) -> None:
        """Read a pickle.

        Args:
            load: returns the numbers of a storage, by its entry in the pickle.
        """
        super().__init__(data, encoding="utf-8")
        self._load = load

    def find_class(self, module: str, name: str) -> Any:
        if name == CLASSIFIER:
            return inert(Module, name)
        if name in LAYERS.get(module, ()):
            return inert(Module, name)
        if module == "torch" and name in STORAGES:
            return inert(Storage, name)
        if (module, name) == ("collections", "OrderedDict"):
            return type(name, (dict,), {})
        if (module, name) not in FUNCTIONS:
            raise RefusedError(f"{module}.{name}")
        called = FUNCTIONS[module, name]
        return lambda *arguments: called(*arguments)

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) > 1 and pid[0] == "module":
            return pid[1]  # a class, which comes with its source in files of torch before 1.6
        return self._load(pid)


def empty_set(*items: Any) -> None:
    """Stand for a set of names that a module does not save."""
    if any(items):
        raise RefusedError("a set")


def rebuild_parameter(data: Any, *_more: Any) -> Any:
    return data


def rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_more: Any) -> Any:
    """Return the numbers of a tensor, from those of its storage.

    Raises:
        RefusedError: they are not all in the storage, one after the other.
    """
    numbers = (offset, *size, *stride)
    if not (isinstance(storage, np.ndarray) and all(isinstance(n, int) for n in numbers)):
        raise RefusedError("a tensor of another kind")
    count = math.prod(size)
    contiguous = [math.prod(size[place + 1 :]) for place in range(len(size))]
    fits = offset >= 0 and min(size, default=0) >= 0 and offset + count <= len(storage)
    if not fits or (list(stride) != contiguous and count > 1):
        raise RefusedError("a tensor that is not stored in one piece")
    return storage[offset : offset + count].reshape(size)


#: The functions that a file may call, by their names.
FUNCTIONS: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
    ("builtins", "set"): empty_set,
    ("__builtin__", "set"): empty_set,
}


def read_torch_file(path: Path) -> Any:
    """Return what ``torch.save`` wrote: ``Inert`` modules, mappings, and arrays.

    Raises:
        UserError: it is no such file, or has something else than a classifier has.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RefusedError(f"{path.stat().st_size:,} bytes, where a classifier has 7 million")
        with path.open("rb") as file:
            is_zip = file.read(len(ZIP)) == ZIP
        return read_zip(path) if is_zip else read_legacy(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).", path=path) from error
    except RefusedError as error:
        raise UserError(
            f"{path} is refused: it has {error}, which no classifier of VirNucPro has. Nothing in "
            "it was run. Is it the right file? If it is, save its state dict instead: "
            "torch.save(model.state_dict(), FILE).",
            path=path,
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle fails in many ways
        raise UserError(
            f"{path} is no file of torch.save, or is damaged ({type(error).__name__}). Nothing in "
            "it was run.",
            path=path,
        ) from error


def read_zip(path: Path) -> Any:
    """Return what a file of torch 1.6 or later has."""
    with zipfile.ZipFile(path) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        if sum(sizes.values()) > MAX_BYTES:
            raise RefusedError(f"{sum(sizes.values()):,} bytes when it is unpacked")
        pickles = [name for name in sizes if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1 or sizes[pickles[0]] > MAX_PICKLE_BYTES:
            raise RefusedError("no data.pkl, or a large one")
        folder = pickles[0].removesuffix("data.pkl")
        byteorder = f"{folder}byteorder"
        if byteorder in sizes and archive.read(byteorder) != b"little":
            raise RefusedError("numbers in another order of bytes")

        def load(entry: Any) -> NDArray[Any]:
            kind, key, count = storage_of(entry)
            data = archive.read(f"{folder}data/{key}")
            if len(data) != count * kind.itemsize:
                raise RefusedError("a storage of another size than it says")
            return np.frombuffer(data, kind)

        return Unpickler(io.BytesIO(archive.read(pickles[0])), load).load()


def read_legacy(path: Path) -> Any:
    """Return what a file of torch before 1.6 has: pickles, and the storages after them."""
    data = io.BytesIO(path.read_bytes())
    storages: dict[str, NDArray[Any]] = {}

    def load(entry: Any) -> NDArray[Any]:
        kind, key, count = storage_of(entry)
        if count * kind.itemsize > MAX_BYTES:
            raise RefusedError("a storage that is larger than the file")
        return storages.setdefault(key, np.zeros(count, kind))

    def next_pickle() -> Any:
        return Unpickler(data, load).load()

    if next_pickle() != LEGACY_MAGIC:
        raise ValueError("another magic number")
    next_pickle(), next_pickle()  # the version of the protocol, and sizes of types
    found = next_pickle()
    for key in next_pickle():
        array = storages[str(key)]
        count = int.from_bytes(data.read(8), "little")
        content = data.read(array.nbytes)
        if count != len(array) or len(content) != array.nbytes:
            raise ValueError("the file is cut short")
        array[:] = np.frombuffer(content, array.dtype)
    return found


def storage_of(entry: Any) -> tuple[np.dtype[Any], str, int]:
    """Return the type, the key and the count of numbers of a storage, by its entry in a pickle."""
    if not (isinstance(entry, tuple) and len(entry) >= 5 and entry[0] == "storage"):
        raise RefusedError("a storage of another kind")
    kind, key, count = entry[1], entry[2], entry[4]
    name = getattr(kind, "__name__", "")
    if name not in STORAGES or not isinstance(count, int) or count < 0:
        raise RefusedError(f"a storage of type {name or kind}")
    return STORAGES[name], str(key), count


def state_of(module: Module) -> dict[str, Any]:
    """Return the state dict of a module that was pickled whole."""
    found: dict[str, Any] = {}
    state = attributes_of(module)
    for name in ("_parameters", "_buffers"):
        found |= mapping(state.get(name))
    for key, child in mapping(state.get("_modules")).items():
        if isinstance(child, Module):
            found.update({f"{key}.{name}": value for name, value in state_of(child).items()})
    return found


def attributes_of(module: Module) -> Mapping[str, Any]:
    """Return the attributes of a module.

    Raises:
        RefusedError: functions are to be called with it.
    """
    state = mapping(module.state)
    for name, value in state.items():
        if "hooks" in str(name) and value:
            raise RefusedError(f"{name}")
    return state


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
