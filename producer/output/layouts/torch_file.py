"""Files of ``torch.save``, written without PyTorch: ``torch.load`` reads them, weights_only too.

Such a file is an uncompressed zip with a pickle, which refers to tensors' numbers by a key, and a
member for each of these. Source: ``torch/serialization.py`` and ``torch/csrc/jit/serialization``.
"""

import math
import pickle
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from common.embeddings.arrays import Array


@dataclass(frozen=True)
class Numbers:
    """Numbers ``[n]`` that are written as a list of Python's floats."""

    values: Array


@dataclass(frozen=True)
class TensorList:
    """Rows ``[n, D]`` that are written as a list of tensors, which share their storage."""

    rows: Array


#: What can be written. A key of a mapping is a text, or the number of a layer.
Value = str | Array | Numbers | TensorList | Mapping[Any, "Value"] | Sequence["Value"]

#: One of Python's floats in a pickle.
FLOAT = np.dtype([("code", "S1"), ("value", ">f8")])

#: The classes of PyTorch that hold numbers of a type.
STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage"}

#: Members of an archive lie in a folder of this name, as in those of torch.save.
FOLDER = "archive"


def save(path: Path, values: Mapping[str, Value]) -> None:
    """Write a dictionary with tensors, as ``torch.save`` does.

    Raises:
        FileExistsError: there is a file.
    """
    pickled = TensorPickle()
    pickled.add(values)
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:

        def add(name: str, data: str | bytes) -> None:
            # Without the time, so that equal records give equal files.
            archive.writestr(zipfile.ZipInfo(f"{FOLDER}/{name}"), data)

        add("data.pkl", pickled.text())
        add("byteorder", "little")
        for key, numbers in enumerate(pickled.storages):
            add(f"data/{key}", numbers.tobytes())
        add("version", "3\n")
    with path.open("xb") as file:
        file.write(buffer.getbuffer())


class TensorPickle:
    """A pickle of nested dictionaries and lists, with texts and tensors."""

    def __init__(self) -> None:
        self.storages: list[Array] = []
        self._parts = [pickle.PROTO, b"\x02"]

    def text(self) -> bytes:
        return b"".join([*self._parts, pickle.STOP])

    def add(self, value: Value) -> None:
        """Append a value."""
        if isinstance(value, str):
            self._plain(value)
        elif isinstance(value, Mapping):
            self._mapping(value)
        elif isinstance(value, Numbers):
            floats = np.empty(len(value.values), FLOAT)
            floats["code"], floats["value"] = pickle.BINFLOAT, value.values
            self._parts += [pickle.EMPTY_LIST, pickle.MARK, floats.tobytes(), pickle.APPENDS]
        elif isinstance(value, TensorList):
            self._tensors(value.rows)
        elif isinstance(value, np.ndarray):
            self._tensor(*self._stored(value), value.shape)
        else:
            self._parts += [pickle.EMPTY_LIST, pickle.MARK]
            for item in value:
                self.add(item)
            self._parts.append(pickle.APPENDS)

    def _mapping(self, values: Mapping[Any, Value]) -> None:
        self._parts += [pickle.EMPTY_DICT, pickle.MARK]
        for key, value in values.items():
            self._plain(key)
            self.add(value)
        self._parts.append(pickle.SETITEMS)

    def _tensors(self, rows: Array) -> None:
        self._parts += [pickle.EMPTY_LIST, pickle.MARK]
        key, stored = self._stored(rows)
        for row in range(len(rows)):
            self._tensor(key, stored, rows.shape[1:], row * rows.shape[1])
        self._parts.append(pickle.APPENDS)

    def _plain(self, value: str | int) -> None:
        if isinstance(value, int):
            self._parts += [pickle.BININT, struct.pack("<i", value)]
        else:
            text = value.encode("utf-8", "surrogatepass")
            self._parts += [pickle.BINUNICODE, struct.pack("<I", len(text)), text]

    def _numbers(self, *values: int) -> None:
        self._parts.append(pickle.MARK)
        for value in values:
            self._plain(value)
        self._parts.append(pickle.TUPLE)

    def _class(self, module: str, name: str) -> None:
        self._parts += [pickle.GLOBAL, f"{module}\n{name}\n".encode()]

    def _stored(self, values: Array) -> tuple[int, Array]:
        """Return the key of a new storage, and its numbers as they are written."""
        self.storages.append(np.ascontiguousarray(values, values.dtype.newbyteorder("<")))
        return len(self.storages) - 1, self.storages[-1]

    def _tensor(self, key: int, stored: Array, shape: tuple[int, ...], offset: int = 0) -> None:
        """Append what makes a tensor: a storage, its offset, shape, strides, and no gradient."""
        self._class("torch._utils", "_rebuild_tensor_v2")
        self._parts += [pickle.MARK, pickle.MARK]
        self._plain("storage")
        self._class("torch", STORAGES[stored.dtype.name])
        self._plain(str(key))
        self._plain("cpu")
        self._plain(stored.size)
        self._parts += [pickle.TUPLE, pickle.BINPERSID]
        self._plain(offset)
        self._numbers(*shape)
        self._numbers(*(math.prod(shape[place + 1 :]) for place in range(len(shape))))
        self._parts.append(pickle.NEWFALSE)
        self._class("collections", "OrderedDict")  # of hooks
        self._parts += [pickle.EMPTY_TUPLE, pickle.REDUCE, pickle.TUPLE, pickle.REDUCE]
