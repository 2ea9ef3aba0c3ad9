"""Embeddings by id: what a file, a finished job and an embedder's result have in common."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from importlib import import_module
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np

from common.embeddings.arrays import Array
from common.embeddings.lookup import IdIndex
from common.embeddings.origins import Origins
from common.errors import UserError
from common.rungs import PRECISION_CODES

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame

PRECISION_NAMES = {code: name for name, code in PRECISION_CODES.items()}


class EmbeddingTable(ABC):
    """The embeddings of ``N`` sequences, in the order of the input.

    ``W``, the shape of one vector, is ``(D,)``, or ``(K, D)`` for K > 1 layers. Where a sequence is
    asked for by its id, its position, from 0, may be given instead: ids may occur twice.

    Attributes:
        attributes: what made the embeddings: ``model``, ``weights``, ``layers``, ``dim``,
            ``pooling``, and ``warning`` if the numbers mean nothing.
    """

    def __init__(self, attributes: Mapping[str, Any]) -> None:
        self.attributes = dict(attributes)

    @abstractmethod
    def _column(self, name: str) -> Any:
        """Return what has one entry per sequence: an array, or something that is sliced to one.

        Raises:
            UserError: it was not included when the sequences were embedded.
        """

    @abstractmethod
    def _residues_at(self, position: int, name: str) -> Array:
        """Return what each residue of one sequence has ``[L, ...]``: ``residues`` or a score."""

    @abstractmethod
    def _pairs_at(self, position: int, name: str) -> Array:
        """Return what each pair of one sequence's residues has ``[L, L]``."""

    def __len__(self) -> int:
        return len(self._column("rows"))

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __contains__(self, id_: object) -> bool:
        return id_ in self._index

    def __getitem__(self, key: str | int | slice | Iterable[str | int] | Array) -> Array:
        """Return mean vectors, float32: of one sequence ``[*W]``, or of several ``[n, *W]``.

            embeddings["P03265"], embeddings[0]
            embeddings[["P03265", "P69905"]], embeddings[:10], embeddings[embeddings.lengths > 100]

        Raises:
            IndexError: there is no such position.
            KeyError: no sequence has this id, or several have; the message names near ids.
            TypeError: this is neither an id nor a position, nor several of them.
        """
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            # HDF5 cannot read backwards.
            forwards = slice(start, max(start, stop), step)
            return self._vectors(forwards) if step > 0 else self.mean[key]
        if isinstance(key, str | bytes) or not isinstance(key, Iterable):
            return self._vectors(self._position(key))
        several: Array = self.mean[self._positions_of(key)]
        return several

    def keys(self) -> list[str]:
        """Return the ids, so that ``dict(embeddings)`` works."""
        return self.ids

    def items(self) -> Iterator[tuple[str, Array]]:
        """Return pairs of id and mean vector, of all sequences, also where ids occur twice."""
        return zip(self.ids, self.mean, strict=True)

    def residues(self, id_: str | int) -> Array:
        """Return the vectors of one sequence's residues, float16 or float32 ``[L, *W]``.

        Raises:
            KeyError: no sequence has this id, or several have; the message names near ids.
            UserError: ``include`` did not have ``per_residue``.
        """
        return self._residues_at(self._position(id_), "residues")

    def logits(self, id_: str | int) -> Array:
        """Return the logits of one sequence's residues, float32 ``[L, 33]``.

        The attribute ``logits_tokens`` has the token of each column.

        Raises:
            KeyError: no sequence has this id, or several have; the message names near ids.
            UserError: ``include`` did not have ``logits``.
        """
        return self._residues_at(self._position(id_), "logits")

    def entropy(self, id_: str | int) -> Array:
        """Return the entropy at each of one sequence's residues in nats, float32 ``[L]``.

        Raises:
            KeyError: no sequence has this id, or several have; the message names near ids.
            UserError: ``include`` did not have ``entropy``.
        """
        return self._residues_at(self._position(id_), "entropy")

    def contacts(self, id_: str | int) -> Array:
        """Return the probabilities that one sequence's residues touch, ``[L, L]``, symmetric.

        They are float16, or float32 if residues are.

        Raises:
            KeyError: no sequence has this id, or several have; the message names near ids.
            UserError: ``include`` did not have ``contacts``.
        """
        return self._pairs_at(self._position(id_), "contacts")

    def residue_class_logits(self, id_: str | int) -> Array:
        """Return the logits of each class at one sequence's residues, float32 ``[L, C]``.

        The attribute ``class_labels`` has the labels. Raises as ``logits`` does.
        """
        return self._residues_at(self._position(id_), "residue_class_logits")

    def positions(self, id_: str) -> list[int]:
        """Return the positions of all sequences with an id.

        Raises:
            KeyError: there are none; the message names near ids.
        """
        return self._index.positions(id_)

    @property
    def origins(self) -> Origins | None:
        """Where rows come from, if they were read from several sources."""
        return None

    @property
    def sources(self) -> list[str]:
        """The name of the file that each sequence was read from ``[N]``.

        Of embeddings of one source alone it is that one's.
        """
        if self.origins is None:
            return [str(self.attributes.get("input", ""))] * len(self)
        return self.origins.names_of(self._column("rows")[:])

    @property
    def model(self) -> str:
        """The model, as it was named when the sequences were embedded."""
        return str(self.attributes["model"])

    @cached_property
    def ids(self) -> list[str]:
        """The ids ``[N]``; sequences given without ids have their position, from 0, as text."""
        return list(self._column("ids")[:])

    @cached_property
    def rows(self) -> Array:
        """The position of each sequence in the input, int64 ``[N]``."""
        return self._array("rows")

    @cached_property
    def lengths(self) -> Array:
        """The residues embedded of each sequence, int64 ``[N]``."""
        return self._array("lengths")

    @cached_property
    def precision(self) -> list[str]:
        """The precision in which each row was computed ``[N]``; ``none`` for rows of NaN."""
        return [PRECISION_NAMES[code] for code in self._array("precision").tolist()]

    @cached_property
    def mean(self) -> Array:
        """The mean vectors, float32 ``[N, *W]``."""
        return self._array("mean")

    @cached_property
    def bos(self) -> Array:
        """The vectors at the first token, float32 ``[N, *W]``."""
        return self._array("bos")

    @cached_property
    def max(self) -> Array:
        """The largest value of each dimension over what the mean is of, float32 ``[N, *W]``."""
        return self._array("max")

    @cached_property
    def std(self) -> Array:
        """The standard deviation of what the mean is of, float32 ``[N, *W]``."""
        return self._array("std")

    @cached_property
    def pseudo_perplexity_unmasked(self) -> Array:
        """The pseudo-perplexity of each sequence without masks, float32 ``[N]``."""
        return self._array("pseudo_perplexity_unmasked")

    @cached_property
    def class_logits(self) -> Array:
        """The logits of each class, float32 ``[N, C]``, of a head for classes of sequences."""
        return self._array("class_logits")

    @cached_property
    def pseudo_perplexity(self) -> Array:
        """The pseudo-perplexity of each sequence, each residue masked once, float32 ``[N]``."""
        return self._array("pseudo_perplexity")

    def to_pandas(self) -> "DataFrame":
        """Return the mean vectors as a table: a row for each id, a column for each dimension.

        With several layers, columns are pairs of layer and dimension.

        Raises:
            UserError: pandas is not installed.
        """
        pandas = require("pandas")
        columns = None
        if self.mean.ndim == 3:
            layers, dim = self._layers(), self.mean.shape[2]
            columns = pandas.MultiIndex.from_product(
                [layers, range(dim)], names=["layer", "dimension"]
            )
        values = self.mean.reshape(len(self), int(np.prod(self.mean.shape[1:])))
        ids = pandas.Index(self.ids, name="id")
        return pandas.DataFrame(values, index=ids, columns=columns, copy=True)

    def to_torch(self) -> Any:
        """Return the mean vectors as a ``torch.Tensor``, float32 ``[N, *W]``, on the CPU.

        Raises:
            UserError: PyTorch is not installed.
        """
        return require("torch").tensor(self.mean)

    def to_anndata(self) -> "AnnData":
        """Return the mean vectors as an AnnData, with lengths and precision of each sequence.

        The vectors are ``X``; with several layers, they are ``layers``, each by its number.

        Raises:
            UserError: anndata is not installed.
        """
        anndata, pandas = require("anndata"), require("pandas")
        columns = {"length": self.lengths, "precision": self.precision}
        obs = pandas.DataFrame(columns, index=pandas.Index(self.ids, name="id"))
        if self.mean.ndim == 2:
            return anndata.AnnData(self.mean.copy(), obs=obs, uns=self.attributes)
        layers = {str(layer): self.mean[:, k].copy() for k, layer in enumerate(self._layers())}
        return anndata.AnnData(obs=obs, layers=layers, uns=self.attributes)

    def _layers(self) -> list[int]:
        return [int(layer) for layer in self.attributes["layers"]]

    def _array(self, name: str) -> Array:
        values: Array = self._column(name)[:]
        return values

    def _vectors(self, where: int | slice) -> Array:
        """Return the mean vectors at a position or of a slice, without reading all of them."""
        column = self.mean if "mean" in self.__dict__ else self._column("mean")
        vectors: Array = column[where]
        return vectors

    def _positions_of(self, keys: Iterable[str | int] | Array) -> Array:
        """Return the positions of several sequences, or those where a mask is true."""
        if getattr(keys, "dtype", None) == np.dtype(bool):
            mask = np.asarray(keys)
            if mask.shape != (len(self),):
                raise IndexError(f"The mask has shape {mask.shape}, not ({len(self)},).")
            return np.flatnonzero(mask)
        return np.array([self._position(key) for key in keys], np.int64)

    def _position(self, id_: str | int | bytes) -> int:
        if isinstance(id_, str):
            return self._index.position(id_)
        if isinstance(id_, bool | np.bool_ | bytes) or not hasattr(id_, "__index__"):
            raise TypeError(
                f"{id_!r} is neither an id nor a position: give one, a list of them, a slice, or a "
                "NumPy mask."
            )
        try:
            return range(len(self))[index(id_)]
        except IndexError:
            raise IndexError(f"There is no position {id_} among {len(self)} sequences.") from None

    @cached_property
    def _index(self) -> IdIndex:
        return IdIndex(self.ids)


def require(package: str) -> Any:
    """Import a package that users install themselves.

    Raises:
        UserError: it is not installed.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise UserError(f"{package} is not installed: pip install {package}") from error
