"""Immutable classes: what `dataclass(frozen=True, slots=True)` gives, for a fraction of what that takes to define.

Before its first result a process defines some sixty small classes. The standard decorator compiles seven functions for each, which
together took a third of that time; here constructors of as many fields share their code, and all else is shared too.
"""

from __future__ import annotations

import functools
from operator import attrgetter
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    from dataclasses import replace

    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_options):
        """What type checkers read; nothing happens in a run."""
        return lambda decorator: decorator

    def replace(instance, /, **changes):
        """A frozen or data class instance with other values in some fields."""
        return type(instance)(**{**values_by_name(instance), **changes})


T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def frozen(cls: type[T]) -> type[T]:
    """A class whose annotated names are the fields of its instances: set by the constructor, in order, with defaults as written in
    the class; compared, hashed and printed by their values; never changed. Fields of a frozen base class come first."""
    own = tuple(vars(cls).get("__annotations__", {}))
    bases: list[Any] = [base for base in cls.__bases__ if hasattr(base, "__values__")]
    names = (*(name for base in bases for name in base.__match_args__), *own)
    defaults = {name: value for base in bases for name, value in base.__defaults__.items()}
    defaults.update({name: vars(cls)[name] for name in own if name in vars(cls)})
    unfit = [
        name for name, value in defaults.items() if type(value).__hash__ is None or type(value).__name__ == "Field"
    ]
    if unfit:
        raise TypeError(f"defaults of {cls.__qualname__} that all instances would share: {', '.join(unfit)}")
    body = {name: value for name, value in vars(cls).items() if name not in (*own, "__dict__", "__weakref__")}
    shared = {
        "__qualname__": cls.__qualname__, "__match_args__": names, "__values__": _getter(names), "__defaults__": defaults,
        "__eq__": _equal, "__hash__": _hash, "__repr__": _repr, "__reduce__": _reduce,
        "__setattr__": _refuse, "__delattr__": _refuse,
    }  # fmt: skip
    metaclass: Any = type(cls)
    made = metaclass(cls.__name__, cls.__bases__, {**shared, **body, "__slots__": own})
    made.__init__ = _constructor(made, names, defaults)
    return made  # type: ignore[no-any-return]


def values_by_name(instance: Any) -> dict[str, Any]:
    """The fields of an instance of a frozen or data class by their names."""
    return {name: getattr(instance, name) for name in instance.__match_args__}


def _constructor(cls: type, names: tuple[str, ...], defaults: dict[str, Any]) -> Any:
    """A function that sets all fields, each through its slot: `__setattr__` refuses."""
    if any(name in defaults for name in names[: len(names) - len(defaults)]):
        raise TypeError(f"a field of {cls.__qualname__} without a default follows one that has a default")
    code = _setting(len(names))
    scope = {f"_set_{position}": getattr(cls, name).__set__ for position, name in enumerate(names)}
    made = FunctionType(code.replace(co_varnames=("self", *names)), scope, "__init__")
    made.__defaults__ = tuple(defaults[name] for name in names if name in defaults)
    made.__qualname__ = f"{cls.__qualname__}.__init__"  # in messages
    return made


@functools.cache
def _setting(count: int) -> CodeType:
    """The code of a constructor of so many fields, compiled once: constructors differ in the names of their parameters."""
    parameters = "".join(f", _{position}" for position in range(count))
    body = "".join(f"\n _set_{position}(self, _{position})" for position in range(count)) or "\n pass"
    scope: dict[str, Any] = {}
    exec(f"def __init__(self{parameters}):{body}", scope)
    code: CodeType = scope["__init__"].__code__
    return code


def _getter(names: tuple[str, ...]) -> Any:
    """A function that gives the values of an instance as a tuple."""
    if len(names) > 1:
        return attrgetter(*names)
    return staticmethod(lambda instance: tuple(getattr(instance, name) for name in names))


def _equal(self: Any, other: Any) -> bool:
    if other.__class__ is not self.__class__:
        return NotImplemented
    return bool(self.__values__(self) == other.__values__(other))


def _hash(self: Any) -> int:
    return hash(self.__values__(self))


def _repr(self: Any) -> str:
    values = ", ".join(f"{name}={value!r}" for name, value in values_by_name(self).items())
    return f"{type(self).__qualname__}({values})"


def _reduce(self: Any) -> tuple[type, tuple[Any, ...]]:
    return type(self), self.__values__(self)


def _refuse(self: object, name: str, value: object = None) -> NoReturn:
    raise AttributeError(f"{type(self).__name__} is immutable: its {name} cannot be changed")
