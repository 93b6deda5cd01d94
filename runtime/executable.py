"""Native code in memory, and calling it with NumPy arrays at little cost.

A call is checked natively: types, sizes, layout. Where an argument does not fit, `run` returns None and the caller converts
or explains. Programs whose arrays have fixed sizes need one native call in all, others two.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import operator
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
from pierian.runtime.memory import PAGE
from pierian.runtime.native import NativeFunction, frame_functions, layout_holds
from pierian.runtime.results import ResultMemory
from pierian.runtime.threads import pool_address, tell_when_gone, thread_count

if TYPE_CHECKING:
    from pierian.compiler.codegen.module import Image

Array = np.ndarray[Any, Any]
Commit = Union[Callable[[], Any], None]
Run = Callable[..., Union[list[Array], None]]


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
        self._width = ctypes.PYFUNCTYPE(ctypes.c_int64, word)(self._code.address(f"{name}_width"))
        self._functions = [NativeFunction(self._code.address(f"{name}_{one}")) for one in ("call", "fits", "launch")]
        self._of_python = frame_functions(image.light)
        self._input_types = [_type(program, buffer) for buffer in program.inputs]
        self._output_types = [_type(program, buffer) for buffer in program.outputs]
        self._constants = [np.ascontiguousarray(array) for array in image.constants]
        self._constant_table = _addresses(self._constants)
        table = [id(np.ndarray), *(id(type_.dtype.numpy) for type_ in self._input_types)]
        self._table = (ctypes.c_size_t * len(table))(*table)
        self._slots: list[_Slot] = []
        self._memory = ResultMemory()
        made = self._output_types[: len(self._output_types) - given]
        self._made: list[tuple[Any, Any]] = [(type_.shape, type_.dtype.numpy) for type_ in made]
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
        if not layout_holds():
            return self._run_checked
        if all(type_.is_static for type_ in (*self._input_types, *self._output_types)):
            return self._static_run()
        return self._symbolic_run()

    # --- ways to run -------------------------------------------------------------------------------------------

    def _static_run(self) -> Run:
        """`run` for programs of fixed sizes. Its variables are found sooner than attributes would be."""
        take, put, new = self._slots.pop, self._slots.append, self._new_slot
        makers = [self._memory.maker(shape, dtype) for shape, dtype in self._made]

        def run(inputs: tuple[Any, ...], targets: Sequence[Array] = (), commit: Commit = None) -> list[Array] | None:
            try:
                slot = take()
            except IndexError:
                slot = new()
            try:
                results = []  # by a loop: a comprehension is a call of its own in Python 3.11
                for make in makers:
                    results.append(make())
                if targets:
                    results += targets
                if commit is not None:
                    done: Any = _at_once(functools.partial(slot.call, inputs, results), commit)
                else:
                    done = slot.call(inputs, results)
                return results if done else None
            finally:
                put(slot)

        return run

    def _symbolic_run(self) -> Run:
        """`run` for programs with open sizes."""
        take, put, new = self._slots.pop, self._slots.append, self._new_slot

        def run(inputs: tuple[Any, ...], targets: Sequence[Array] = (), commit: Commit = None) -> list[Array] | None:
            try:
                slot = take()
            except IndexError:
                slot = new()
            try:
                fit = slot.fits(inputs)
                if not fit:
                    return None
                if fit > 1 or not slot.is_sized:
                    self._size(slot)
                results = [make() for make in slot.makers]
                results += targets
                if commit is None:
                    slot.launch(results)
                else:
                    _at_once(functools.partial(slot.launch, results), commit)
                return results
            finally:
                put(slot)

        return run

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
        slot = self._slots.pop() if self._slots else self._new_slot()
        try:
            slot.inputs[: len(inputs)] = [array.ctypes.data for array in inputs]
            slot.dims[: len(self.program.dims)] = [values[name] for name in self.program.dims]
            self._size(slot)
            results = [make() for make in slot.makers]
            results += targets
            slot.outputs[: len(results)] = [array.ctypes.data for array in results]
            pool, constants, _, dims, given, made, workspace, *_ = slot.frame
            native = functools.partial(self._run_function, pool, given, made, constants, dims, workspace)
            _at_once(native, commit or bool, operator.not_)
            return results
        finally:
            self._slots.append(slot)

    # --- slots ---------------------------------------------------------------------------------------------------

    def _new_slot(self) -> _Slot:
        """A workspace for one more call at once."""
        addresses = [ctypes.addressof(self._constant_table), ctypes.addressof(self._table)]
        slot = _Slot(self.program, self._functions, addresses, self._of_python)
        if not self.program.dims:
            self._size(slot)
        return slot

    def _size(self, slot: _Slot) -> None:
        """Make a slot ready for the sizes in it. An interrupt on the way leaves it to be sized anew."""
        slot.is_sized = False
        values = dict(zip(self.program.dims, slot.dims, strict=False))
        shapes = [tuple(evaluate(dim, values) for dim in shape) for shape, _ in self._made]
        slot.makers = [self._memory.maker(shape, dtype) for shape, (_, dtype) in zip(shapes, self._made, strict=True)]
        slot.reserve(self._workspace_size(ctypes.addressof(slot.dims), self.threads))
        if not self._pool and self.threads > 1 and self._width(ctypes.addressof(slot.dims)) > 1:
            self._pool = pool_address(self.threads)
        slot.frame[0] = self._pool
        slot.is_sized = True

    def forget_threads(self) -> None:
        """The pool's threads do not exist any more."""
        self._pool = 0
        self._slots.clear()


def _at_once(first: Callable[[], Any], then: Callable[[], Any], succeeded: Callable[[Any], bool] = bool) -> bool:
    """Call `first`, and `then` where it has succeeded; whether it has. Both are called by C code, between which no signal's handler
    runs: an interrupt from the keyboard finds both done, or none."""
    call: Callable[[Callable[[], Any]], Any] = operator.methodcaller("__call__")
    return bool(list(itertools.takewhile(succeeded, map(call, (first, then)))))


class _Slot:
    """What one call at a time needs.

    Attributes:
        inputs, outputs, dims: tables of addresses and sizes.
        is_sized: whether workspace, pool and `makers`, which make the results, are as the sizes ask for.
        frame: the addresses that native code is given.
        call, fits, launch: native code (see `pierian.compiler.codegen.binding`).
    """

    def __init__(
        self, program: Program, functions: Sequence[NativeFunction], addresses: list[int], of_python: list[int]
    ) -> None:
        self.inputs = (ctypes.c_size_t * max(len(program.inputs), 1))()
        self.outputs = (ctypes.c_size_t * max(len(program.outputs), 1))()
        self.dims = (ctypes.c_int64 * max(len(program.dims), 1))()
        self.is_sized = False
        self.makers: list[Callable[[], Array]] = []
        self.workspace: Array = np.empty(0, np.uint8)
        tables = [ctypes.addressof(one) for one in (self.dims, self.inputs, self.outputs)]
        words = [0, *addresses, *tables, 0, *of_python]
        self.frame = (ctypes.c_size_t * len(words))(*words)
        self.call, self.fits, self.launch = (one.bound_to(ctypes.addressof(self.frame)) for one in functions)

    def reserve(self, size: int) -> None:
        """A workspace of at least `size` bytes, aligned."""
        if self.workspace.nbytes < size + PAGE:
            self.workspace = np.empty(size + PAGE, np.uint8)
        self.frame[6] = -(-self.workspace.ctypes.data // PAGE) * PAGE


def _type(program: Program, name: str) -> TensorType:
    buffer = program.buffers[name]
    return TensorType(buffer.dtype, buffer.shape)


def _addresses(arrays: list[Array]) -> Any:
    return (ctypes.c_size_t * max(len(arrays), 1))(*(array.ctypes.data for array in arrays))
