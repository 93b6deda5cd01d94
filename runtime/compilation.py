"""Compiling for a Session: from the cache on disk where it has the program, else by the compiler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from pierian.compiler.frozen import frozen
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Value
from pierian.compiler.kernel.program import Program
from pierian.compiler.options import CompileOptions
from pierian.compiler.state import Signature, close_for_compilation
from pierian.runtime.cache import Stored, default_cache, key_of, program_key, stored_form

if TYPE_CHECKING:
    from pierian.compiler.codegen.link import LinkedCode
    from pierian.compiler.codegen.module import Image

NO_VALUES: Mapping[str, Value] = MappingProxyType({})


@frozen
class Runnable:
    """What a call needs of a compiled graph.

    Attributes:
        signature: what goes in and comes out, by name.
        program: inputs, outputs, sizes and checks.
        image: native code and constants.
    """

    signature: Signature
    program: Program
    image: Image | Stored


def compile_for_calls(
    graph: Graph,
    options: CompileOptions | None = None,
    *,
    feeds: Sequence[Value],
    fetches: Sequence[Value],
    effects: Sequence[Value] = (),
    reads: Mapping[str, Value] = NO_VALUES,
    assigns: Mapping[str, Value] = NO_VALUES,
) -> Runnable:
    """What `compile_graph` gives, as far as calls need it; from disk where an earlier process has compiled the same.

    `reads` are more values to feed and `assigns` more to fetch: those of variables that the graph does not know of, by name.
    """
    options = options or CompileOptions()
    closed, signature = close_for_compilation(graph, [*feeds, *reads.values()], [*fetches, *assigns.values()], effects)
    if reads or assigns:
        signature = signature.with_variables(tuple(reads), tuple(assigns))
    cache = default_cache()
    key = program_key(closed, options, signature.updates()) if cache is not None else ""
    found = cache.load(key) if cache is not None else None
    if found is not None:
        return Runnable(signature, found.interface, found)
    from pierian.compiler.target.llvm import preload  # a cached program needs neither LLVM nor the compiler

    preload()
    from pierian.compiler.compile import compile_closed

    compiled = compile_closed(closed, signature, options)
    stored = stored_form(compiled)
    if cache is not None and stored is not None:
        cache.store(key, stored)
    return Runnable(signature, compiled.program, compiled.image)


def pool_code() -> tuple[list[bytes], LinkedCode | None]:
    """The thread pool's code: objects, or a linked block."""
    cache = default_cache()
    key = key_of(b"pool")
    found = cache.load(key) if cache is not None else None
    if found is not None:
        return [], found.linked
    from pierian.compiler.codegen.link import link_if_known
    from pierian.compiler.codegen.module import pool_object
    from pierian.compiler.target.features import host

    objects = [pool_object(host())]
    linked = link_if_known(objects)
    if cache is not None and linked is not None:
        cache.store(key, Stored("pierian_pool", False, linked, [], Program("pool")))
    return objects, linked
