"""Class names and prompt templates from a list, a mapping, or a YAML or JSON file of either."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import yaml

from residualign._messages import listed
from residualign.data.same_names import matched
from residualign.errors import BadInputError, refuse_bare_text

__all__ = ["DEFAULT_TEMPLATE", "Classes", "Templates", "check_templates", "read_prompts", "rename_classes"]

DEFAULT_TEMPLATE = "a photo of a {}."

Classes = str | PathLike[str] | Sequence[str] | Mapping[Any, Any] | None
Templates = str | PathLike[str] | Sequence[str] | None


def read_prompts(
    classes: Classes, templates: Templates
) -> tuple[Mapping[str, str] | tuple[str, ...] | None, tuple[str, ...] | None]:
    """Read the arguments `classes` and `templates` of `load_data`: names (or a mapping to names), and templates.

    A file may hold a list of names, a mapping from the data's own names to new ones, or `{"classes": either of them,
    "templates": [...]}`. Templates given as an argument win over those of the file. None for what was not given. Raises
    `BadInputError` if a file cannot be read or an entry is not text.
    """
    told: Any = classes
    where = "classes"
    if isinstance(classes, str | PathLike):
        told, where = _read_file(Path(classes)), str(classes)
        if told is None:
            raise BadInputError(f"{where} must hold a list of texts or a mapping to texts, got nothing")
    own_templates: Any = None
    if isinstance(told, Mapping) and told and set(told) <= {"classes", "templates"}:
        own_templates, told = told.get("templates"), told.get("classes")
    if templates is not None:
        own_templates = _templates_argument(templates)
    elif own_templates is not None:
        own_templates = _text_list(own_templates, f"the templates of {where}")
    return _names(told, where), None if own_templates is None else check_templates(own_templates)


def rename_classes(own: Sequence[str], names: Mapping[str, str] | Sequence[str] | None) -> tuple[str, ...]:
    """The class names to use, given the data's own: a list replaces all in order, a mapping those it names.

    Raises `BadInputError` for a list of a different length, an unknown class, and empty or duplicate names.
    """
    if isinstance(names, Mapping):
        indices = matched(list(names), own)
        unknown = [name for name, index in zip(names, indices, strict=True) if index is None]
        if unknown:
            raise BadInputError(
                f"class names were given for {unknown[0]!r}, but the data's classes are {listed(own, 10)}"
            )
        new = dict(zip(indices, names.values(), strict=True))
        renamed = tuple(new.get(index, name) for index, name in enumerate(own))
    elif names is not None:
        if len(names) != len(own):
            raise BadInputError(f"{len(names)} class names were given for {len(own)} classes ({listed(own, 10)})")
        renamed = tuple(names)
    else:
        renamed = tuple(own)
    for name, count in Counter(renamed).items():
        if not name.strip():
            raise BadInputError(f"class {own[renamed.index(name)]!r} has an empty name")
        if count > 1:
            raise BadInputError(f"class names must differ, but {count} classes are called {name!r}")
    return renamed


def check_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """The templates, if each has exactly one `{}`; raises `BadInputError` naming the first that does not."""
    refuse_bare_text("templates", templates)
    if not templates:
        raise BadInputError("at least one template is needed, got an empty list")
    for template in templates:
        if template.count("{}") != 1:
            raise BadInputError(f"a template must contain {{}} exactly once, got {template!r}")
    return tuple(templates)


def _names(told: Any, where: str) -> Mapping[str, str] | tuple[str, ...] | None:
    if told is None:
        return None
    if isinstance(told, Mapping):
        return {_text(key, where): _text(name, where) for key, name in told.items()}
    return _text_list(told, where)


def _templates_argument(templates: str | PathLike[str] | Sequence[str]) -> tuple[str, ...]:
    if isinstance(templates, str) and ("{}" in templates or not os.path.isfile(templates)):
        return (templates,)
    if isinstance(templates, str | PathLike):
        told = _read_file(Path(templates))
        if isinstance(told, Mapping):
            told = told.get("templates")
        return _text_list(told, f"the templates of {templates}")
    return _text_list(templates, "templates")


def _text_list(values: Any, where: str) -> tuple[str, ...]:
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise BadInputError(f"{where} must hold a list of texts or a mapping to texts, got {type(values).__name__}")
    return tuple(_text(value, where) for value in values)


def _text(value: Any, where: str) -> str:
    # YAML reads 0 as a number, which is a valid name; but it reads no as False and 1.10 as 1.1, which lose the name
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise BadInputError(f"{where} must hold texts, got {value!r}: put the name in quotes")
    return value


class _WithoutAliases(yaml.SafeLoader):
    """A few bytes with aliases of aliases stand for more names than memory holds; lists of names need none."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has aliases (*name); write out what they stand for")
        return super().compose_node(parent, index)


def _read_file(path: Path) -> Any:
    try:
        data = path.read_bytes()
        # Windows writes a byte order mark before UTF-8, and UTF-16 where output is redirected to a file
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        return json.loads(text) if path.suffix.lower() == ".json" else yaml.load(text, _WithoutAliases)
    except OSError as error:
        raise BadInputError(f"the file {str(path)!r} cannot be read ({error.strerror or error})") from error
    except (UnicodeDecodeError, json.JSONDecodeError, yaml.YAMLError) as error:
        raise BadInputError(f"{str(path)!r} is not valid YAML or JSON: {' '.join(str(error).split())}") from error


def _as_written(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | str:
    """An integer; with zeros before it the text as written, which YAML would read as an octal number."""
    number: int = yaml.SafeLoader.construct_yaml_int(loader, node)
    return node.value if node.value[:1] == "0" and node.value != "0" else number


_WithoutAliases.add_constructor("tag:yaml.org,2002:int", _as_written)
