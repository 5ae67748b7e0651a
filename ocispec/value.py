"""`@value`: a class of frozen, slotted, comparable fields.

The same shape as `@dataclass(frozen=True, slots=True)`, and type checkers see it as that. It exists
because importing `dataclasses` costs more than starting a container does (it pulls in `inspect`),
and these values are on the path of every `pyreg run`. Nothing else is different.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar, dataclass_transform

    T = TypeVar("T")
else:

    def dataclass_transform(**_):
        return lambda decorator: decorator


class FrozenFieldError(AttributeError):
    """Somebody tried to change a value after it was made."""


@dataclass_transform(frozen_default=True, eq_default=True)
def value(cls: type[T]) -> type[T]:
    """Turn annotated names into constructor arguments, in order; `= default` makes one optional.

    `__post_init__` runs last, to check; use `replace` to get a changed copy. Defaults are shared
    between instances, so they must not be changed. Not supported: inheritance between values, and
    `super()` without arguments (the class made here is not the one the compiler saw).
    """
    fields = tuple(
        name
        for name, kind in cls.__annotations__.items()  # a class's own: they are not inherited
        if not str(kind).startswith("ClassVar")
    )
    defaults = {name: cls.__dict__[name] for name in fields if name in cls.__dict__}
    body = {
        name: item
        for name, item in cls.__dict__.items()
        if name not in defaults and name not in ("__dict__", "__weakref__")
    }
    body["__slots__"] = fields
    body["__match_args__"] = fields
    body["__init__"] = _first_init(fields, defaults, "__post_init__" in body)
    body["__setattr__"] = _refuse
    body["__delattr__"] = _refuse
    for method in (_repr, _eq, _hash, _reduce):
        name = f"__{method.__name__.strip('_')}__"
        if body.get(name) is None:  # a class that writes its own keeps it
            body[name] = method
    metaclass: Any = type(cls)
    made: type[T] = metaclass(cls.__name__, cls.__bases__, body)
    made.__qualname__ = cls.__qualname__
    return made


def replace(instance: T, **changes: Any) -> T:
    """A copy of a value with some fields changed; it is checked like a new one."""
    fields = {name: getattr(instance, name) for name in type(instance).__slots__}  # type: ignore[attr-defined]
    return type(instance)(**(fields | changes))


_OFTEN = 16  # instances after which compiling has paid for itself


def _first_init(fields: tuple[str, ...], defaults: dict[str, Any], check: bool) -> Any:
    """A constructor that needs no compiling, and has itself replaced when it is used often.

    Compiling takes 70 µs, which is 16 instances; a start of a container passes by a hundred
    classes and makes a few instances of each.
    """
    made = 0

    def __init__(self: Any, *given: Any, **named: Any) -> None:
        nonlocal made
        made += 1
        if made > _OFTEN:
            compiled = _constructor(fields, defaults, check)
            type(self).__init__ = compiled
            compiled(self, *given, **named)
            return
        found = defaults | dict(zip(fields, given, strict=False)) | named
        if len(found) != len(fields) or len(given) + len(named) > len(fields):
            _constructor(fields, defaults, check)(self, *given, **named)  # says what is wrong
            return
        for name in fields:
            object.__setattr__(self, name, found[name])
        if check:
            self.__post_init__()

    return __init__


def _constructor(fields: tuple[str, ...], defaults: dict[str, Any], check: bool) -> Any:
    arguments = ", ".join(f"{f}=_defaults[{f!r}]" if f in defaults else f for f in fields)
    lines = [f"def __init__(self, {arguments}):"]
    lines += [f"    _set(self, {f!r}, {f})" for f in fields]
    lines += ["    self.__post_init__()"] if check else []
    lines += ["    pass"]  # for a class without fields
    scope = {"_set": object.__setattr__, "_defaults": defaults}
    exec("\n".join(lines), scope)  # the names come from a class statement, never from input
    return scope["__init__"]


def _refuse(self: Any, name: str, *_: Any) -> None:
    raise FrozenFieldError(f"{type(self).__name__}.{name} cannot be changed")


def _repr(self: Any) -> str:
    fields = ", ".join(f"{f}={getattr(self, f)!r}" for f in self.__slots__)
    return f"{type(self).__qualname__}({fields})"


def _eq(self: Any, other: Any) -> Any:
    if other.__class__ is not self.__class__:
        return NotImplemented
    return all(getattr(self, f) == getattr(other, f) for f in self.__slots__)


def _hash(self: Any) -> int:
    return hash((type(self), *(getattr(self, f) for f in self.__slots__)))


def _reduce(self: Any) -> tuple[Any, ...]:
    return type(self), tuple(getattr(self, f) for f in self.__slots__)
