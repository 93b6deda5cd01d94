"""Native code in memory, and calling it with NumPy arrays at little cost.

A call is checked natively: types, sizes, layout. Where an argument does not fit, `run` returns None and the caller converts
or explains. Programs whose results have fixed sizes need one native call in all.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
import operator
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from pierian.compiler.dim import evaluate
from pierian.compiler.kernel.program import Program
from pierian.compiler.shape import TensorType
from pierian.runtime.bind import solve_sizes
from pierian.runtime.cache import Stored
from pierian.runtime.compilation import pool_code
from pierian.runtime.loader import Code, load
from pierian.runtime.memory import ALIGNMENT, COUNTS_REFERENCES
from pierian.runtime.threads import pool_address, tell_when_gone, thread_count

if TYPE_CHECKING:
    from pierian.compiler.codegen.module import Image

Array = np.ndarray[Any, Any]
Commit = Union[Callable[[], Any], None]
_Block = tuple[Array, int]  # memory, and where in it a multiple of the alignment is
Run = Callable[..., Union[list[Array], None]]
# Results from this many bytes on lie in memory that is used again.
LARGE = 128 * 1024
# Blocks of one size kept for this, and how many sizes.
KEPT, KEPT_SIZES = 8, 256


@functools.lru_cache(maxsize=1)
def _pool_code() -> Code:
    return load(*pool_code())


def pool_function(name: str) -> int:
    """The address of one of the pool's functions (see `pierian.compiler.codegen.threads`)."""
    return _pool_code().address(f"pierian_{name}")


class Executable:
    """A program ready to run.

    Args:
        image: native code.
        program: what it was compiled from: inputs, outputs, sizes.
        threads: how many threads kernels may use; default as `thread_count` says.
        given: for how many of the outputs, the last ones, each call hands in arrays.

    `run(inputs, targets, commit)` gives the results, or None where the inputs do not fit: nothing is written then. `targets` are the
    arrays of the given outputs. `commit` is called right after the native code, without a chance for a signal in between.
    """

    def __init__(self, image: Image | Stored, program: Program, threads: int | None = None, given: int = 0) -> None:
        self.image = image
        self.program = program
        self.threads = thread_count(threads)
        self._code = load(image.objects, image.linked)
        name = image.name
        kind = ctypes.PYFUNCTYPE if image.light else ctypes.CFUNCTYPE
        word = ctypes.c_size_t
        self._run_function = kind(ctypes.c_int, word, word, word, word, word, word)(self._code.address(f"{name}_run"))
        self._workspace_size = ctypes.PYFUNCTYPE(ctypes.c_int64, word, word)(self._code.address(f"{name}_workspace"))
        self._bind = ctypes.PYFUNCTYPE(ctypes.c_int, word, word, word, word)(self._code.address(f"{name}_bind"))
        self._call = kind(ctypes.c_int, word, word, word)(self._code.address(f"{name}_call"))
        self._width = ctypes.PYFUNCTYPE(ctypes.c_int64, word)(self._code.address(f"{name}_width"))
        self._input_types = [_type(program, buffer) for buffer in program.inputs]
        self._output_types = [_type(program, buffer) for buffer in program.outputs]
        self._results: list[tuple[Any, Any]] = [(type_.shape, type_.dtype.numpy) for type_ in self._output_types]
        self._constants = [np.ascontiguousarray(array) for array in image.constants]
        self._constant_table = _addresses(self._constants)
        table = [id(np.ndarray), *(id(type_.dtype.numpy) for type_ in self._input_types)]
        self._table = (ctypes.c_size_t * len(table))(*table)
        self._slots: list[_Slot] = []
        self._memory = ResultMemory()
        self._made = self._results[: len(self._results) - given]
        self._makers = [_maker(self._memory, shape, dtype) for shape, dtype in self._made]
        self._pool = 0  # none until sizes come of which several threads have something
        tell_when_gone(self)
        self.run: Run = self._choose()

    def sizes(self) -> dict[str, int]:
        """The sizes of the last run by name."""
        dims = self._slots[-1].dims if self._slots else ()
        return dict(zip(self.program.dims, (int(dim) for dim in dims), strict=False))

    def counters(self, count: int) -> Any:
        """The measurements of `count` launches of a program compiled with `profile`, as an array of int64."""
        address = ctypes.PYFUNCTYPE(ctypes.c_void_p)(self._code.address(f"{self.image.name}_profile"))()
        return np.ctypeslib.as_array((ctypes.c_int64 * count).from_address(address or 0))

    def close(self) -> None:
        """Free the memory that is kept between runs; the next run takes it anew."""
        self._slots.clear()
        self._memory.clear()

    def _choose(self) -> Run:
        if not _layout_holds():
            return self._run_checked
        if all(type_.is_static for type_ in (*self._input_types, *self._output_types)):
            return self._run_static
        return self._run_symbolic

    # --- ways to run -------------------------------------------------------------------------------------------

    def _run_static(
        self, inputs: tuple[Any, ...], targets: Sequence[Array] = (), commit: Commit = None
    ) -> list[Array] | None:
        slot = self._take_slot()
        try:
            results = [make() for make in self._makers]
            results += targets
            if commit is not None:
                native = functools.partial(self._call, id(inputs), id(results), slot.frame_address)
                done = _at_once(native, bool, commit)
            else:
                done = self._call(id(inputs), id(results), slot.frame_address)
            return results if done else None
        finally:
            self._slots.append(slot)

    def _run_symbolic(
        self, inputs: tuple[Any, ...], targets: Sequence[Array] = (), commit: Commit = None
    ) -> list[Array] | None:
        slot = self._take_slot()
        try:
            if not self._bind(id(inputs), ctypes.addressof(self._table), slot.dims_address, slot.inputs_address):
                return None
            return self._finish(slot, tuple(slot.dims), targets, commit)
        finally:
            self._slots.append(slot)

    def _run_checked(
        self, inputs: tuple[Any, ...], targets: Sequence[Array] = (), commit: Commit = None
    ) -> list[Array] | None:
        """Without knowledge of the objects' layout: everything is checked in Python."""
        for array, type_ in zip(inputs, self._input_types, strict=True):
            if type(array) is not np.ndarray or array.dtype != type_.dtype.numpy or array.ndim != type_.rank:
                return None
            if not (array.flags.c_contiguous and array.flags.aligned):
                return None
        names = [f"input {i}" for i in range(len(inputs))]
        values = solve_sizes(self._input_types, inputs, names, self.program.checks)
        slot = self._take_slot()
        try:
            slot.inputs[: len(inputs)] = [array.ctypes.data for array in inputs]
            slot.dims[: len(self.program.dims)] = [values[name] for name in self.program.dims]
            return self._finish(slot, tuple(slot.dims), targets, commit)
        finally:
            self._slots.append(slot)

    def _finish(self, slot: _Slot, dims: tuple[int, ...], targets: Sequence[Array], commit: Commit) -> list[Array]:
        """Allocate results for these sizes and run."""
        if dims != slot.sized_for:
            slot.sized_for = None  # an interrupt on the way leaves a slot that is sized anew
            slot.shapes = self._shapes(dims)
            slot.reserve(self._workspace_size(slot.dims_address, self.threads))
            self._use_pool(slot)
            slot.sized_for = dims
        results = [self._memory.array(shape, dtype) for shape, (_, dtype) in zip(slot.shapes, self._made, strict=False)]
        results += targets
        slot.outputs[: len(results)] = [array.ctypes.data for array in results]
        arguments = (
            self._pool, slot.inputs_address, slot.outputs_address, self._constant_address, slot.dims_address,
            slot.workspace_address,
        )  # fmt: skip
        if commit is not None:
            _at_once(functools.partial(self._run_function, *arguments), operator.not_, commit)
        else:
            self._run_function(*arguments)
        return results

    def _shapes(self, dims: tuple[int, ...]) -> list[tuple[int, ...]]:
        values = dict(zip(self.program.dims, dims, strict=False))
        return [tuple(evaluate(dim, values) for dim in type_.shape) for type_ in self._output_types]

    # --- slots ---------------------------------------------------------------------------------------------------

    @property
    def _constant_address(self) -> int:
        return ctypes.addressof(self._constant_table)

    def _take_slot(self) -> _Slot:
        """A workspace of this call's own: from those of calls that are done, or a new one."""
        try:
            return self._slots.pop()
        except IndexError:
            pass
        slot = _Slot(len(self.program.inputs), len(self.program.outputs), len(self.program.dims))
        if not self.program.dims:
            slot.shapes = [tuple(int(str(d)) for d in type_.shape) for type_ in self._output_types]
            slot.reserve(self._workspace_size(slot.dims_address, self.threads))
            self._use_pool(slot)
            slot.sized_for = tuple(slot.dims)
        slot.set_frame(self._pool, self._constant_address, ctypes.addressof(self._table))
        return slot

    def _use_pool(self, slot: _Slot) -> None:
        """Have a pool where the work for the slot's sizes can be shared."""
        if not self._pool and self.threads > 1 and self._width(slot.dims_address) > 1:
            self._pool = pool_address(self.threads)

    def forget_threads(self) -> None:
        """The pool's threads do not exist any more."""
        self._pool = 0
        self._slots.clear()


def _at_once(first: Callable[[], Any], succeeded: Callable[[Any], bool], then: Callable[[], Any]) -> bool:
    """Call `first`, and `then` where it has succeeded; whether it has. Both are called by C code, between which no signal's handler
    runs: an interrupt from the keyboard finds both done, or none."""
    call: Callable[[Callable[[], Any]], Any] = operator.methodcaller("__call__")
    return bool(list(itertools.takewhile(succeeded, map(call, (first, then)))))


def _maker(memory: ResultMemory, shape: Any, dtype: Any) -> Callable[[], Array]:
    """What makes a result of fixed size: small ones are plain new arrays."""
    if not all(isinstance(dim, int) for dim in shape):
        return lambda: np.empty((), dtype)
    if math.prod(shape) * dtype.itemsize < LARGE:
        return functools.partial(np.empty, shape, dtype)
    return functools.partial(memory.array, shape, dtype)


class ResultMemory:
    """Arrays for results. The memory of large ones is used again once nobody holds a result in it any more: fresh pages from the
    system cost more than the work: 40 MB take 4.3 ms at first touch and 2.8 ms to write anew."""

    def __init__(self) -> None:
        self._blocks: dict[int, deque[_Block]] = {}

    def array(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """A new array, not initialized."""
        size = math.prod(shape) * dtype.itemsize
        if size < LARGE:
            return np.empty(shape, dtype)
        blocks = self._blocks.get(size)
        if blocks is None:
            blocks = self._blocks.setdefault(size, deque(maxlen=KEPT))
            if len(self._blocks) > KEPT_SIZES:
                self._blocks.pop(next(iter(self._blocks)), None)
        block = self._free(blocks)
        if block is None:
            memory = np.empty(size + ALIGNMENT, np.uint8)
            block = memory, -memory.ctypes.data % ALIGNMENT
        memory, start = block
        result = memory[start : start + size].view(dtype).reshape(shape)
        blocks.append(block)
        return result

    def _free(self, blocks: deque[_Block]) -> _Block | None:
        """A block that no result lies in, taken out, so that no other thread finds it."""
        if not COUNTS_REFERENCES:
            return None
        for _ in range(len(blocks)):
            try:
                block = blocks.popleft()
            except IndexError:
                return None
            # The pair and the argument of getrefcount hold it; a result in it is one more.
            if sys.getrefcount(block[0]) == 2:
                return block
            blocks.append(block)
        return None

    def clear(self) -> None:
        """Forget the memory nobody holds a result in, and leave the rest to its holders."""
        self._blocks.clear()


class _Slot:
    """What one call needs: tables of addresses, sizes, and the workspace."""

    def __init__(self, inputs: int, outputs: int, dims: int) -> None:
        self.inputs = (ctypes.c_size_t * max(inputs, 1))()
        self.outputs = (ctypes.c_size_t * max(outputs, 1))()
        self.dims = (ctypes.c_int64 * max(dims, 1))()
        self.inputs_address = ctypes.addressof(self.inputs)
        self.outputs_address = ctypes.addressof(self.outputs)
        self.dims_address = ctypes.addressof(self.dims)
        self.sized_for: tuple[int, ...] | None = None
        self.shapes: list[tuple[int, ...]] = []
        self.workspace: Array = np.empty(0, np.uint8)
        self.workspace_address = 0
        self.frame = (ctypes.c_size_t * 7)()
        self.frame_address = ctypes.addressof(self.frame)

    def reserve(self, size: int) -> None:
        """A workspace of at least `size` bytes, aligned."""
        if self.workspace.nbytes < size + ALIGNMENT:
            self.workspace = np.empty(size + ALIGNMENT, np.uint8)
        self.workspace_address = -(-self.workspace.ctypes.data // ALIGNMENT) * ALIGNMENT
        self.frame[6] = self.workspace_address

    def set_frame(self, pool: int, constants: int, table: int) -> None:
        self.frame[:] = [
            pool, constants, table, self.dims_address, self.inputs_address, self.outputs_address, self.workspace_address,
        ]  # fmt: skip


def _type(program: Program, name: str) -> TensorType:
    buffer = program.buffers[name]
    return TensorType(buffer.dtype, buffer.shape)


def _addresses(arrays: list[Array]) -> Any:
    return (ctypes.c_size_t * max(len(arrays), 1))(*(array.ctypes.data for array in arrays))


@functools.lru_cache(maxsize=1)
def _layout_holds() -> bool:
    """Whether arrays, tuples and lists lie in memory as `layout` says."""
    from pierian.compiler.codegen import layout

    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    holder, listed = (array,), [array]

    def word(address: int) -> int:
        return ctypes.c_size_t.from_address(address).value

    if ctypes.sizeof(ctypes.c_size_t) != 8:
        return False
    base = id(array)
    shape = word(base + layout.ARRAY_SHAPE)
    return (
        word(base + layout.OBJECT_TYPE) == id(np.ndarray)
        and word(id(holder) + layout.TUPLE_SIZE) == 1
        and word(id(holder) + layout.TUPLE_ITEMS) == base
        and word(word(id(listed) + layout.LIST_ITEMS)) == base
        and word(base + layout.ARRAY_DATA) == array.ctypes.data
        and ctypes.c_int.from_address(base + layout.ARRAY_RANK).value == 2
        and (word(shape), word(shape + 8)) == (2, 3)
        and word(base + layout.ARRAY_DTYPE) == id(np.dtype("float32"))
        and ctypes.c_int.from_address(base + layout.ARRAY_FLAGS).value & 0x101 == 0x101
    )
