"""Immutable classes: made, compared, printed, copied like frozen data classes."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest

from pierian.compiler.frozen import frozen, replace, values_by_name


@frozen
class Base:
    """A size."""

    width: int
    unit: str = "px"

    def doubled(self) -> Base:
        return replace(self, width=2 * self.width)


@frozen
class Derived(Base):
    height: float = 1.0


@frozen
class Empty:
    pass


@frozen
class Single:
    value: object


def test_construction():
    assert (Base(3).width, Base(3).unit, Base(unit="em", width=1).unit) == (3, "px", "em")
    assert values_by_name(Derived(1, "a", 2.0)) == {"width": 1, "unit": "a", "height": 2.0}
    assert Derived(1).height == 1.0
    for arguments, named in (((), {}), ((1, "a", 3), {}), ((1,), {"depth": 2})):
        with pytest.raises(TypeError, match=r"Base\.__init__"):
            Base(*arguments, **named)


def test_equality_and_hash():
    assert Base(1) == Base(1, "px") != Base(1, "em")
    assert Base(1) != Derived(1)
    assert Empty() == Empty() != Single(1)
    assert hash(Base(1)) == hash((1, "px"))
    assert len({Single(1), Single(1), Single(2)}) == 2
    not_a_number = Single(float("nan"))
    assert not_a_number == not_a_number != Single(float("nan"))


def test_immutable():
    size = Base(1)
    for name in ("width", "other"):
        with pytest.raises(AttributeError, match=f"Base is immutable: its {name}"):
            setattr(size, name, 2)
        with pytest.raises(AttributeError, match="immutable"):
            delattr(size, name)
    assert not hasattr(size, "__dict__")
    assert size.doubled() == Base(2) and size == Base(1)


def test_text_and_copies():
    assert repr(Derived(1)) == "Derived(width=1, unit='px', height=1.0)"
    assert Base.__doc__ == "A size."
    for one in (Derived(1), Empty(), Single((1, 2))):
        assert copy.deepcopy(one) == pickle.loads(pickle.dumps(one)) == one
    match Base(1, "em"):
        case Base(width, unit):
            assert (width, unit) == (1, "em")


def test_replace_takes_data_classes():
    @dataclasses.dataclass
    class Point:
        x: int
        y: int = 0

    assert replace(Point(1), y=2) == Point(1, 2)
    assert values_by_name(Point(1)) == {"x": 1, "y": 0}


@pytest.mark.parametrize("default", [[], {}, dataclasses.field(default_factory=list)])
def test_shared_defaults_are_refused(default):
    with pytest.raises(TypeError, match="items"):
        frozen(type("Shared", (), {"__annotations__": {"items": list}, "items": default}))
