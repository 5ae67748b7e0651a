"""`@value` makes what `@dataclass(frozen=True, slots=True)` would."""

from __future__ import annotations

import copy
import pickle
from typing import ClassVar

import pytest

from ocispec.value import FrozenFieldError, replace, value


@value
class Point:
    """A point."""

    x: int
    y: int = 0

    ORIGIN: ClassVar[str] = "zero"

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("x is negative")

    @property
    def sum(self) -> int:
        return self.x + self.y


@value
class Other:
    x: int
    y: int = 0


@value
class Empty:
    pass


@value
class Own:
    x: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Own)

    def __hash__(self) -> int:
        return 7

    def __repr__(self) -> str:
        return "own"


def test_fields_are_arguments_in_order_with_defaults() -> None:
    assert (Point(1).x, Point(1).y) == (1, 0)
    assert (Point(1, 2).x, Point(1, 2).y) == (1, 2)
    assert Point(y=2, x=1) == Point(1, 2)
    with pytest.raises(TypeError):
        Point()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Point(1, z=2)  # type: ignore[call-arg]


def test_fields_cannot_change() -> None:
    point = Point(1, 2)
    with pytest.raises(FrozenFieldError, match=r"Point\.x"):
        point.x = 3  # type: ignore[misc]
    with pytest.raises(FrozenFieldError):
        del point.x
    with pytest.raises(AttributeError):
        point.z = 3  # type: ignore[attr-defined]
    assert point == Point(1, 2)


def test_there_is_no_instance_dictionary() -> None:
    assert not hasattr(Point(1), "__dict__")


def test_equality_needs_the_same_class() -> None:
    assert Point(1, 2) == Point(1, 2) != Point(1, 3)
    others: list[object] = [Other(1, 2), (1, 2), None]
    assert all(Point(1, 2) != other for other in others)
    assert {Point(1), Point(1), Other(1)} == {Point(1), Other(1)}


def test_replace_checks_the_copy() -> None:
    assert replace(Point(1, 2), y=5) == Point(1, 5)
    with pytest.raises(ValueError, match="negative"):
        replace(Point(1, 2), x=-1)


def test_the_class_keeps_what_it_had() -> None:
    assert Point(1, 2).sum == 3
    assert Point.__doc__ == "A point."
    assert Point.__module__ == __name__
    assert Point.ORIGIN == "zero"
    assert repr(Point(1)) == "Point(x=1, y=0)"
    assert repr(Own(1)) == "own"
    assert Own(1) == Own(2) and hash(Own(1)) == 7


def test_matching_by_position() -> None:
    match Point(1, 2):
        case Point(x, y):
            assert (x, y) == (1, 2)


def test_no_fields_at_all() -> None:
    assert Empty() == Empty() and repr(Empty()) == "Empty()"


def test_copies_and_pickles_are_equal() -> None:
    point = Point(1, 2)
    assert copy.copy(point) == copy.deepcopy(point) == point
    assert pickle.loads(pickle.dumps(point)) == point
