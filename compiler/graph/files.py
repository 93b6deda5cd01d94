"""Graph files: `.pb` (binary protobuf), `.pbtxt` (protobuf text), `.pir` (readable text). Writes are atomic."""

from __future__ import annotations

import os
from pathlib import Path

from pierian.compiler.errors import ArgumentError, FormatError, GraphError
from pierian.compiler.graph.graph import Graph

SUFFIXES = (".pb", ".pbtxt", ".pir")
# No file beyond this is read: protobuf itself has a limit of 2 GiB.
MAX_BYTES = 2 * 1024**3 - 1


def save(graph: Graph, path: str | Path, external: int | None = None) -> None:
    """Write a graph in the form its suffix says. The file is complete or not there.

    Args:
        graph: what to write. Without declared outputs every value that nobody reads becomes one.
        path: where, ending in `.pb`, `.pbtxt` or `.pir`.
        external: arrays of at least this many bytes go to a file `NAME.data` beside it (`.pb` and `.pbtxt` only).

    Raises:
        ArgumentError: another suffix.
    """
    target = Path(path)
    if target.suffix not in SUFFIXES:
        raise ArgumentError("a graph file ends in .pb, .pbtxt or .pir", got=str(path))
    written = graph if graph.outputs else _with_outputs(graph)
    if target.suffix == ".pir":
        from pierian.compiler.graph.printer import print_graph

        write_atomically(target, print_graph(written).encode())
        return
    from pierian.compiler.graph.serialize import to_proto

    blob = bytearray()
    name = target.name + ".data"

    def externalize(raw: bytes) -> tuple[str, int, int] | None:
        if external is None or len(raw) < external:
            return None
        blob.extend(b"\0" * (-len(blob) % 64))
        blob.extend(raw)
        return name, len(blob) - len(raw), len(raw)

    model = to_proto(written, externalize)
    if blob:
        write_atomically(target.parent / name, bytes(blob))
    if target.suffix == ".pb":
        write_atomically(target, model.SerializeToString(deterministic=True))
    else:
        from google.protobuf import text_format

        write_atomically(target, text_format.MessageToString(model).encode())


def _with_outputs(graph: Graph) -> Graph:
    copy = graph.clone()
    copy.set_outputs([value for node in copy.nodes for value in node.outputs if not value.uses])
    return copy


def load(path: str | Path) -> Graph:
    """Read a graph file and verify it whole. Executes nothing and reads no file outside the model's folder.

    Raises:
        FormatError: the file is missing, truncated, malformed, too large or of a newer version.
    """
    from pierian.compiler.graph.verify import verify

    source = Path(path)
    if source.suffix not in SUFFIXES:
        raise ArgumentError("a graph file ends in .pb, .pbtxt or .pir", got=str(path))
    try:
        if source.stat().st_size > MAX_BYTES:
            raise FormatError("the file is too large", where=str(path), expected=f"at most {MAX_BYTES} bytes")
        raw = source.read_bytes()
    except OSError as error:
        raise FormatError("the file cannot be read", where=str(path), got=error.strerror) from None
    try:
        graph = _parse(source, raw)
        verify(graph)
    except GraphError as error:
        raise FormatError(
            error.what, where=f"{path}" + (f", {error.where}" if error.where else ""), location=error.location,
            got=error.got, expected=error.expected, advice=error.advice,
        ) from None  # fmt: skip
    except (RecursionError, MemoryError, OverflowError) as error:
        raise FormatError("the file asks for too much", where=str(path), got=type(error).__name__) from None
    return graph


def _parse(source: Path, raw: bytes) -> Graph:
    if source.suffix == ".pir":
        from pierian.compiler.graph.parser import parse_graph

        return parse_graph(_text(source, raw), str(source))
    from google.protobuf import message, text_format

    from pierian.compiler.graph.serialize import from_proto
    from pierian.proto import graph_pb2

    model = graph_pb2.Model()  # type: ignore[attr-defined]
    try:
        if source.suffix == ".pb":
            model.ParseFromString(raw)
        else:
            text_format.Parse(_text(source, raw), model)
    except (message.DecodeError, text_format.ParseError, ValueError) as error:
        raise FormatError("the file is malformed or cut off", where=str(source), got=str(error)) from None
    return from_proto(model, str(source), lambda name, offset, length: _external(source, name, offset, length))


def _text(source: Path, raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise FormatError("the file is not UTF-8 text", where=f"{source}, byte {error.start}") from None


def _external(source: Path, name: str, offset: int, length: int) -> bytes:
    """A part of a data file beside the model: a plain name, no link out of the folder, inside the file."""
    plain = name and name == Path(name).name and name not in (".", "..") and "\0" not in name and "\\" not in name
    folder = source.parent.resolve()
    if not plain or (folder / name).resolve().parent != folder:
        raise FormatError("external data must lie in the model's folder", where=str(source), got=name)
    try:
        with (folder / name).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if offset < 0 or length < 0 or offset + length > size:
                raise FormatError(
                    "external data lies outside its file", where=f"{source}, {name}", got=offset + length, expected=size
                )
            file.seek(offset)
            return file.read(length)
    except OSError as error:
        raise FormatError("external data cannot be read", where=f"{source}, {name}", got=error.strerror) from None


def write_atomically(target: Path, content: bytes, sync: bool = True) -> None:
    """Write a file so that it is whole or not there: beside it first, synced, then renamed. Without `sync` a machine that loses its
    power may leave a file that is not whole."""
    temporary = target.parent / f".{target.name}.{os.urandom(8).hex()}"
    # The system gives it the permissions of new files: to ask for the mask of the process would be to set it, for all threads.
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
