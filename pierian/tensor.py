"""Tensors as users see them: values with operators, indexing and NumPy manners, in graphs and eagerly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pierian.compiler.dim import Dim
from pierian.compiler.errors import GraphError
from pierian.compiler.graph.builder import current
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.shape import TensorType, format_shape
from pierian.indexing import index


class Shape(tuple[Dim, ...]):
    """A shape: a tuple of sizes, symbolic ones printed by name."""

    def __repr__(self) -> str:
        return format_shape(self)

    __str__ = __repr__

    def as_list(self) -> list[Dim | None]:
        """Sizes as a list, None where a size is not known yet."""
        return [dim if isinstance(dim, int) else None for dim in self]

    @property
    def rank(self) -> int:
        return len(self)


def _apply(name: str, *args: Any, **attributes: Any) -> Any:
    return getattr(current(), name)(*args, **attributes)


class Tensor(Value):
    """A dense array of one element type: a node's output in a graph, or eagerly a value computed when it is looked at.

    Operators work element by element with NumPy's broadcasting and promotion; `@` is the matrix product; indexing follows NumPy.
    Eagerly, `numpy()`, `print`, `float()` and the like compute; in a graph a `Session` does.
    """

    __slots__ = ("data", "depth")

    def __init__(self, node: Node, index: int, type: TensorType) -> None:
        super().__init__(node, index, type)
        self.data: np.ndarray[Any, Any] | None = None
        self.depth = 0

    __array_priority__ = 100
    __array_ufunc__ = None

    # --- facts -----------------------------------------------------------------------------------------------

    @property
    def shape(self) -> Shape:
        """The sizes of the axes."""
        return Shape(self.type.shape)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.type.rank

    @property
    def graph(self) -> Any:
        """The graph the tensor belongs to; None eagerly."""
        return self.node.graph

    @property
    def T(self) -> Tensor:
        """The tensor with its axes reversed."""
        return _apply("permute_dims", self)

    # --- values ----------------------------------------------------------------------------------------------

    def numpy(self) -> np.ndarray[Any, Any] | Any:
        """The value as a NumPy array (read-only); a NumPy scalar for a tensor without axes.

        Raises:
            GraphError: the tensor belongs to a graph; run it in a Session.
        """
        array = self._value()
        return array[()] if array.ndim == 0 else array

    def _value(self) -> np.ndarray[Any, Any]:
        if self.data is None:
            if self.node.graph is not None:
                raise GraphError(
                    "a tensor of a graph has no value by itself", where=self.name, location=self.node.location,
                    advice="fetch it with Session.run",
                )  # fmt: skip
            from pierian.eager import evaluate

            evaluate([self])
        assert self.data is not None
        self.data.flags.writeable = False  # others may hold it from now on
        return self.data

    def item(self) -> Any:
        """The value of a tensor of one element as a Python number."""
        return self._value().item()

    def tolist(self) -> Any:
        """The value as nested lists."""
        return self._value().tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        array = self._value()
        return array.astype(dtype) if dtype is not None and dtype != array.dtype else array.copy() if copy else array

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """The value for another library, in place: `numpy.from_dlpack(t)`, `torch.from_dlpack(t)`. It is read-only; a library that
        cannot be told so (DLPack before 1.0: `max_version` missing) gets a copy, as one does that asks for it."""
        array = self._value()
        versioned = max_version is not None and max_version[0] >= 1
        if not versioned and copy is not False:
            array = array.copy()
        return array.__dlpack__(stream=stream, max_version=max_version, dl_device=dl_device, copy=copy)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __float__(self) -> float:
        return float(self._value().item())

    def __int__(self) -> int:
        return int(self._value().item())

    def __index__(self) -> int:
        if not self.dtype.is_integer or self.type.rank:
            raise TypeError("only integer scalars can be an index")
        return int(self._value().item())

    def __bool__(self) -> bool:
        if self.node.graph is not None:
            raise GraphError(
                "whether a tensor of a graph is true is not known while the graph is built", where=self.name,
                location=self.node.location, advice="use where, cond or while_loop",
            )  # fmt: skip
        return bool(self._value())

    def __len__(self) -> int:
        if not self.type.rank or not isinstance(self.type.shape[0], int):
            raise TypeError(f"a tensor of shape {self.shape} has no length")
        return self.type.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        if self.node.graph is not None:
            return f"<tf.Tensor {self.name!r} shape={self.shape} dtype={self.dtype}>"
        return f"<tf.Tensor: shape={self.shape}, dtype={self.dtype}, numpy={_text(self._value())}>"

    def __str__(self) -> str:
        if self.node.graph is not None:
            return f'Tensor("{self.name}", shape={self.shape}, dtype={self.dtype})'
        text = str(self._value())
        newline = "\n" if "\n" in text else ""
        return f"tf.Tensor({newline}{text}, shape={self.shape}, dtype={self.dtype})"

    # --- operators -------------------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Tensor:
        return index(self, key)

    def __add__(self, other: Any) -> Tensor:
        return _apply("add", self, other)

    def __radd__(self, other: Any) -> Tensor:
        return _apply("add", other, self)

    def __sub__(self, other: Any) -> Tensor:
        return _apply("subtract", self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return _apply("subtract", other, self)

    def __mul__(self, other: Any) -> Tensor:
        return _apply("multiply", self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return _apply("multiply", other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return _apply("divide", self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return _apply("divide", other, self)

    def __floordiv__(self, other: Any) -> Tensor:
        return _apply("floor_divide", self, other)

    def __rfloordiv__(self, other: Any) -> Tensor:
        return _apply("floor_divide", other, self)

    def __mod__(self, other: Any) -> Tensor:
        return _apply("remainder", self, other)

    def __rmod__(self, other: Any) -> Tensor:
        return _apply("remainder", other, self)

    def __pow__(self, other: Any) -> Tensor:
        if isinstance(other, int) and other == 2 and not self.dtype.is_bool:
            return _apply("square", self)
        return _apply("pow", self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return _apply("pow", other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return _apply("matmul", self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return _apply("matmul", other, self)

    def __neg__(self) -> Tensor:
        return _apply("negative", self)

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        return _apply("abs", self)

    def __invert__(self) -> Tensor:
        return _apply("logical_not", self)

    def __and__(self, other: Any) -> Tensor:
        return _apply("logical_and", self, other)

    def __or__(self, other: Any) -> Tensor:
        return _apply("logical_or", self, other)

    def __xor__(self, other: Any) -> Tensor:
        return _apply("logical_xor", self, other)

    def __eq__(self, other: object) -> Any:
        return _apply("equal", self, other)

    def __ne__(self, other: object) -> Any:
        return _apply("not_equal", self, other)

    def __lt__(self, other: Any) -> Tensor:
        return _apply("less", self, other)

    def __le__(self, other: Any) -> Tensor:
        return _apply("less_equal", self, other)

    def __gt__(self, other: Any) -> Tensor:
        return _apply("greater", self, other)

    def __ge__(self, other: Any) -> Tensor:
        return _apply("greater_equal", self, other)


def _text(array: np.ndarray[Any, Any]) -> str:
    """An array as its repr; a scalar as the number."""
    if array.ndim == 0:
        return str(array)
    return repr(array)
