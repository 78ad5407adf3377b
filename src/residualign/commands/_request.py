"""What a request is: a frozen dataclass whose annotated fields are a command line.

One field is one flag. Its annotation carries the flag's name, help and panel (`residualign.commands._flags`), so that
the parser, resuming, the message after Ctrl-C, "how it was made" and the documentation all read the same object.
Nothing here imports torch: `--help` must stay fast.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo, OptionInfo, ParameterInfo

__all__ = ["KEEPS_WORK", "NEUTRAL", "Field", "command_line", "command_words", "fields_of", "identity", "places_of_work"]


class Role(Enum):
    """The role of a flag in resuming."""

    NEUTRAL = "changes no result: speed, tolerance of bad images, where files go"
    KEEPS_WORK = "names a place that keeps finished work: the same command resumes from there"


NEUTRAL, KEEPS_WORK = Role.NEUTRAL, Role.KEEPS_WORK


@dataclass(frozen=True)
class Field:
    """One field of a request. kind: the bare type, `tuple[str, ...]` for a flag that can be repeated."""

    name: str
    kind: Any
    parameter: ParameterInfo
    default: Any
    roles: frozenset[Role]

    @property
    def is_argument(self) -> bool:
        """Whether it is a positional argument."""
        return isinstance(self.parameter, ArgumentInfo)

    @property
    def is_required(self) -> bool:
        """Whether it has no default."""
        return self.default is dataclasses.MISSING

    @property
    def item(self) -> Any:
        """The type of one value, for a flag that can be repeated; None for any other."""
        return get_args(self.kind)[0] if get_origin(self.kind) is tuple else None

    @property
    def is_optional(self) -> bool:
        """Whether it may be None."""
        return type(None) in get_args(self.kind)

    @property
    def choices(self) -> tuple[str, ...]:
        """The values it takes, if they are a fixed set."""
        kinds = (self.kind, *get_args(self.kind))
        literal = next((one for one in kinds if get_origin(one) is Literal), None)
        return () if literal is None else get_args(literal)

    @property
    def flag(self) -> str:
        """`--batch-size`, or the placeholder of an argument."""
        if isinstance(self.parameter, OptionInfo):
            # inside Annotated the first declaration is stored as the default
            return str((self.parameter.param_decls or (self.parameter.default,))[0])
        return str(self.parameter.metavar or self.name)


def fields_of(request: type) -> tuple[Field, ...]:
    """The fields of a request class that are flags or arguments, in the order they were declared."""
    hints = get_type_hints(request, include_extras=True)
    return tuple(
        _field(one, hints[one.name]) for one in dataclasses.fields(request) if get_origin(hints[one.name]) is Annotated
    )


def _field(field: dataclasses.Field[Any], hint: Any) -> Field:
    kind, *extras = get_args(hint)
    (parameter,) = [extra for extra in extras if isinstance(extra, ParameterInfo)]
    roles = frozenset(extra for extra in extras if isinstance(extra, Role))
    return Field(field.name, kind, parameter, field.default, roles)


def identity(request: Any) -> dict[str, Any]:
    """What decides the result, as JSON types: an unfinished run is resumed only if all of it is equal."""
    values = vars(request)
    kept = [one for one in fields_of(type(request)) if not one.roles]
    return {one.name: _plain(values[one.name]) for one in kept}


def places_of_work(request: Any) -> tuple[str, ...]:
    """The folders that keep finished work, from which the same command resumes; none for most commands."""
    kept = (vars(request)[one.name] for one in fields_of(type(request)) if KEEPS_WORK in one.roles)
    return tuple(str(place) for place in kept if place is not None)


def command_words(command: str, request: Any) -> tuple[str, ...]:
    """The words of a command line that gives this request; defaults are left out."""
    ordered = sorted(fields_of(type(request)), key=lambda one: not one.is_argument)
    words = [word for one in ordered for word in _words(one, vars(request)[one.name])]
    return ("residualign", *command.split(), *words)


def command_line(command: str, request: Any) -> str:
    """The command that gives this request, quoted for a shell."""
    return shlex.join(command_words(command, request))


def _words(field: Field, value: Any) -> Iterator[str]:
    if value == field.default or value is None:
        return
    values = value if isinstance(value, tuple) else (value,)
    for one in values:
        if not field.is_argument:
            yield field.flag
        if not isinstance(one, bool):
            yield str(one)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value
