from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Model(_message.Message):
    __slots__ = ("ir_version", "operator_version", "producer", "graph", "files")
    IR_VERSION_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_VERSION_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_FIELD_NUMBER: _ClassVar[int]
    GRAPH_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    ir_version: int
    operator_version: int
    producer: str
    graph: Graph
    files: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ir_version: _Optional[int] = ..., operator_version: _Optional[int] = ..., producer: _Optional[str] = ..., graph: _Optional[_Union[Graph, _Mapping]] = ..., files: _Optional[_Iterable[str]] = ...) -> None: ...

class Graph(_message.Message):
    __slots__ = ("name", "nodes", "inputs", "outputs", "output_names", "variables", "seed")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_NAMES_FIELD_NUMBER: _ClassVar[int]
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    name: str
    nodes: _containers.RepeatedCompositeFieldContainer[Node]
    inputs: _containers.RepeatedScalarFieldContainer[int]
    outputs: _containers.RepeatedScalarFieldContainer[int]
    output_names: _containers.RepeatedScalarFieldContainer[str]
    variables: _containers.RepeatedCompositeFieldContainer[Variable]
    seed: int
    def __init__(self, name: _Optional[str] = ..., nodes: _Optional[_Iterable[_Union[Node, _Mapping]]] = ..., inputs: _Optional[_Iterable[int]] = ..., outputs: _Optional[_Iterable[int]] = ..., output_names: _Optional[_Iterable[str]] = ..., variables: _Optional[_Iterable[_Union[Variable, _Mapping]]] = ..., seed: _Optional[int] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("name", "op", "inputs", "attributes", "outputs", "bodies", "locations")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OP_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    BODIES_FIELD_NUMBER: _ClassVar[int]
    LOCATIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    op: str
    inputs: _containers.RepeatedScalarFieldContainer[int]
    attributes: _containers.RepeatedCompositeFieldContainer[Attribute]
    outputs: _containers.RepeatedCompositeFieldContainer[TensorType]
    bodies: _containers.RepeatedCompositeFieldContainer[Graph]
    locations: _containers.RepeatedCompositeFieldContainer[Location]
    def __init__(self, name: _Optional[str] = ..., op: _Optional[str] = ..., inputs: _Optional[_Iterable[int]] = ..., attributes: _Optional[_Iterable[_Union[Attribute, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[TensorType, _Mapping]]] = ..., bodies: _Optional[_Iterable[_Union[Graph, _Mapping]]] = ..., locations: _Optional[_Iterable[_Union[Location, _Mapping]]] = ...) -> None: ...

class Location(_message.Message):
    __slots__ = ("file", "line")
    FILE_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    file: int
    line: int
    def __init__(self, file: _Optional[int] = ..., line: _Optional[int] = ...) -> None: ...

class TensorType(_message.Message):
    __slots__ = ("dtype", "shape")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    dtype: str
    shape: _containers.RepeatedCompositeFieldContainer[Dim]
    def __init__(self, dtype: _Optional[str] = ..., shape: _Optional[_Iterable[_Union[Dim, _Mapping]]] = ...) -> None: ...

class Dim(_message.Message):
    __slots__ = ("known", "expression")
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    EXPRESSION_FIELD_NUMBER: _ClassVar[int]
    known: int
    expression: str
    def __init__(self, known: _Optional[int] = ..., expression: _Optional[str] = ...) -> None: ...

class Attribute(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: AttributeValue
    def __init__(self, name: _Optional[str] = ..., value: _Optional[_Union[AttributeValue, _Mapping]] = ...) -> None: ...

class AttributeValue(_message.Message):
    __slots__ = ("boolean", "integer", "real", "text", "dtype", "dim", "tuple", "type", "tensor")
    BOOLEAN_FIELD_NUMBER: _ClassVar[int]
    INTEGER_FIELD_NUMBER: _ClassVar[int]
    REAL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    TUPLE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    boolean: bool
    integer: int
    real: float
    text: str
    dtype: str
    dim: Dim
    tuple: Tuple
    type: TensorType
    tensor: Tensor
    def __init__(self, boolean: _Optional[bool] = ..., integer: _Optional[int] = ..., real: _Optional[float] = ..., text: _Optional[str] = ..., dtype: _Optional[str] = ..., dim: _Optional[_Union[Dim, _Mapping]] = ..., tuple: _Optional[_Union[Tuple, _Mapping]] = ..., type: _Optional[_Union[TensorType, _Mapping]] = ..., tensor: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class Tuple(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[AttributeValue]
    def __init__(self, items: _Optional[_Iterable[_Union[AttributeValue, _Mapping]]] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("type", "data", "external")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    EXTERNAL_FIELD_NUMBER: _ClassVar[int]
    type: TensorType
    data: bytes
    external: External
    def __init__(self, type: _Optional[_Union[TensorType, _Mapping]] = ..., data: _Optional[bytes] = ..., external: _Optional[_Union[External, _Mapping]] = ...) -> None: ...

class External(_message.Message):
    __slots__ = ("file", "offset", "length", "checksum")
    FILE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    file: str
    offset: int
    length: int
    checksum: bytes
    def __init__(self, file: _Optional[str] = ..., offset: _Optional[int] = ..., length: _Optional[int] = ..., checksum: _Optional[bytes] = ...) -> None: ...

class Variable(_message.Message):
    __slots__ = ("name", "initial", "trainable", "update", "locations")
    NAME_FIELD_NUMBER: _ClassVar[int]
    INITIAL_FIELD_NUMBER: _ClassVar[int]
    TRAINABLE_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    LOCATIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    initial: Tensor
    trainable: bool
    update: int
    locations: _containers.RepeatedCompositeFieldContainer[Location]
    def __init__(self, name: _Optional[str] = ..., initial: _Optional[_Union[Tensor, _Mapping]] = ..., trainable: _Optional[bool] = ..., update: _Optional[int] = ..., locations: _Optional[_Iterable[_Union[Location, _Mapping]]] = ...) -> None: ...
