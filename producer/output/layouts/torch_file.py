"""Files of ``torch.save``, written without PyTorch: ``torch.load`` reads them, weights_only too.

Such a file is an uncompressed zip with a pickle, which refers to tensors' numbers by a key, and a
member for each of these. Source: ``torch/serialization.py`` and ``torch/csrc/jit/serialization``.
"""

import pickle
import struct
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np

from common.embeddings.arrays import Array

#: What can be written: a text, a tensor, or tensors by their layer.
Value = str | Array | Mapping[int, Array]

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
    pickled.mapping(values)
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
    """A pickle of nested dictionaries with texts and tensors."""

    def __init__(self) -> None:
        self.storages: list[Array] = []
        self._parts = [pickle.PROTO, b"\x02"]

    def text(self) -> bytes:
        return b"".join([*self._parts, pickle.STOP])

    def mapping(self, values: Mapping[str, Value] | Mapping[int, Array]) -> None:
        self._parts += [pickle.EMPTY_DICT, pickle.MARK]
        for key, value in values.items():
            self._plain(key)
            if isinstance(value, str):
                self._plain(value)
            elif isinstance(value, Mapping):
                self.mapping(value)
            else:
                self._tensor(value)
        self._parts.append(pickle.SETITEMS)

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

    def _tensor(self, values: Array) -> None:
        """Append what makes a tensor: a storage, its offset, shape, strides, and no gradient."""
        values = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        self._class("torch._utils", "_rebuild_tensor_v2")
        self._parts += [pickle.MARK, pickle.MARK]
        self._plain("storage")
        self._class("torch", STORAGES[values.dtype.name])
        self._plain(str(len(self.storages)))
        self._plain("cpu")
        self._plain(values.size)
        self._parts += [pickle.TUPLE, pickle.BINPERSID]
        self._plain(0)
        self._numbers(*values.shape)
        self._numbers(*(step // values.itemsize for step in values.strides))
        self._parts.append(pickle.NEWFALSE)
        self._class("collections", "OrderedDict")  # of hooks
        self._parts += [pickle.EMPTY_TUPLE, pickle.REDUCE, pickle.TUPLE, pickle.REDUCE]
        self.storages.append(values)
