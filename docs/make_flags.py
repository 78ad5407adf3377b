"""Write docs/flags.md from the requests of the commands: `python docs/make_flags.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from residualign.cli.app import REQUESTS
from residualign.commands._request import Field, fields_of

PAGE = Path(__file__).parent / "flags.md"

HEAD = """# Flags of every command

Made from the commands' own definitions by `python docs/make_flags.py`. A flag means the same wherever it appears;
`--help` after a command shows the same text. Every command also takes `--json`: one JSON object on stdout and nothing
else.
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(section for name, request in REQUESTS.items() for section in _section(name, request))


def _section(name: str, request: type) -> Iterator[str]:
    fields = fields_of(request)
    places = " ".join(f"[{one.flag}]" if not one.is_required else one.flag for one in fields if one.is_argument)
    paragraphs = [" ".join(part.split()) for part in (request.__doc__ or "").split("\n\n")]
    title = f"## `{' '.join(['residualign', name, places]).strip()}`"
    yield "\n".join(["", title, "", *_between(paragraphs), ""])
    flags = [one for one in fields if not one.is_argument]
    if flags:
        yield "\n| flag | default | meaning |\n|---|---|---|\n"
        yield from (f"| `{_spelled(one)}` | {_default(one)} | {_escaped(str(one.parameter.help))} |\n" for one in flags)


def _between(paragraphs: list[str]) -> list[str]:
    return [line for paragraph in paragraphs for line in (paragraph, "")][:-1]


def _spelled(field: Field) -> str:
    placeholder = field.parameter.metavar or "|".join(field.choices)
    text = field.flag if field.kind is bool else f"{field.flag} {placeholder}"
    return _escaped(text.strip())


def _default(field: Field) -> str:
    if field.is_required:
        return "required"
    if field.default in (None, ()) or field.kind is bool:
        return ""
    values = field.default if isinstance(field.default, tuple) else (field.default,)
    return ", ".join(f"`{value}`" for value in values)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
