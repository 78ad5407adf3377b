"""Build a command from its request class: the fields are the parameters of the command."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Callable
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, Protocol, TypeVar

import typer
from typer.core import TyperArgument, TyperCommand

from residualign.cli.console import Out
from residualign.commands._flags import INPUT, MACHINE, METHOD, OUTPUT, flag
from residualign.commands._request import Field, command_line, fields_of, places_of_work
from residualign.runs.folder import holds_work

__all__ = ["JSON", "Interrupted", "PlainHelp", "add_command", "resume_command"]

_PANELS = (INPUT, METHOD, OUTPUT, MACHINE)

JSON = Annotated[bool, flag("--json", OUTPUT, "Print one JSON object on stdout and nothing else.", metavar=" ")]


class _Printable(Protocol):
    def to_json(self) -> dict[str, Any]: ...


Request = TypeVar("Request")
Result = TypeVar("Result", bound=_Printable)


class Interrupted(Exception):  # noqa: N818  (not an error: the user asked for it)
    """Ctrl-C while a command ran. again: the command that resumes it, if one does. kept: whether work was kept."""

    def __init__(self, again: str | None = None, kept: bool = False) -> None:
        super().__init__(again)
        self.again, self.kept = again, kept


class PlainHelp:
    """A command or group that shows `--help` without a placeholder for a value."""

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)  # type: ignore[misc]
        if option is not None:
            option.metavar = " "
        return option


class _Argument(TyperArgument):
    """An argument that `--help` shows by its name alone, without braces and without a type."""

    def display_type_rich(self, ctx: Any) -> str | None:
        return None

    def get_usage_pieces(self, ctx: Any) -> list[str]:
        name = str(self.metavar) + ("" if self.nargs == 1 or str(self.metavar).endswith("...") else "...")
        return [name if self.required else f"[{name}]"]


class _Command(PlainHelp, TyperCommand):
    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        for parameter in self.params:
            if isinstance(parameter, TyperArgument):
                parameter.__class__ = _Argument


def add_command(
    app: typer.Typer,
    name: str,
    request: type[Request],
    run: Callable[[Request, Any], Result],
    show: Callable[[Out, Result], None],
    printer: Callable[[bool], Out] = Out,
) -> None:
    """Add a command: `run` gets the request and the printer, which shows progress; `show` prints its result.

    The command's help is the docstring of the request.
    """

    def call(json: bool, **values: Any) -> None:
        out = printer(json)
        made = make_request(request, {one.name: _given(one, values[one.name]) for one in fields_of(request)})
        try:
            result = run(made, out)
        except KeyboardInterrupt:
            raise Interrupted(resume_command(name, made), any(map(holds_work, places_of_work(made)))) from None
        out.finish(result.to_json())
        if not json:
            show(out, result)
        if code := getattr(result, "exit_code", 0):
            raise typer.Exit(code)

    call.__signature__ = _signature(request)  # type: ignore[attr-defined]
    call.__annotations__ = {one.name: one.annotation for one in call.__signature__.parameters.values()}  # type: ignore[attr-defined]
    call.__name__ = name
    call.__doc__ = request.__doc__
    app.command(name, cls=_Command)(call)


def make_request(kind: type[Request], values: dict[str, Any]) -> Request:
    """The request of a command line."""
    return kind(**values)


def _signature(request: type) -> inspect.Signature:
    parameters = [
        inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=_default(one), annotation=_annotation(one))
        for one in sorted(
            fields_of(request), key=lambda one: _place(one, own=one.name in vars(request)["__annotations__"])
        )
    ]
    json = inspect.Parameter("json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=JSON)
    return inspect.Signature([*parameters, json])


def _place(field: Field, own: bool) -> tuple[bool, bool, int, bool]:
    """Arguments first, required ones before optional ones; then panel by panel, a command's own flags first."""
    panel = field.parameter.rich_help_panel
    order = _PANELS.index(panel) if panel in _PANELS else 0
    return not field.is_argument, field.is_argument and not field.is_required, order, not own


def _annotation(field: Field) -> Any:
    parameter = copy.copy(field.parameter)
    if parameter.metavar is None:
        parameter.metavar = _placeholder(field)
    kind = _enum(field.choices) if field.choices else field.kind if field.item is None else field.item
    if field.item is not None:
        # the parser knows lists; a frozen request holds tuples
        kind = list[kind]  # type: ignore[valid-type]
    elif field.is_optional and field.choices:
        kind = kind | None
    return Annotated[kind, parameter]


@cache
def _enum(choices: tuple[str, ...]) -> Any:
    # the parser supports lists of enumerations, but not lists of literals
    return StrEnum("Choice", {choice: choice for choice in choices})


def _placeholder(field: Field) -> str | None:
    """What stands for the value in `--help`: the choices; nothing for a switch."""
    if field.kind is bool:
        return " "
    return "|".join(field.choices) or None


def _default(field: Field) -> Any:
    if field.is_required:
        return inspect.Parameter.empty
    if field.item is not None:
        return [_enum(field.choices)(one) for one in field.default] if field.choices else list(field.default)
    return _enum(field.choices)(field.default) if field.choices and field.default is not None else field.default


def _given(field: Field, value: Any) -> Any:
    if field.item is not None:
        return tuple(one.value if isinstance(one, StrEnum) else one for one in value or ())
    return value.value if isinstance(value, StrEnum) else value


def resume_command(name: str, request: Any) -> str | None:
    """The command that resumes an interrupted one; None if it keeps no work."""
    if not places_of_work(request):
        return None
    # with --overwrite it would discard the work that was kept
    kept = dataclasses.replace(request, overwrite=False) if hasattr(request, "overwrite") else request
    return command_line(name, kept)
