"""Image sets known by a name: one YAML file per set in `sets/`, so that a new set needs no code.

What such a file may hold; it is checked when it is read:

    description   one or two sentences: what the set is, who made it, under which terms
    source        kind: hub           repo, config, revision, image, label, splits, only
                  kind: scikit-learn  loader, largest
    n_classes     number of classes
    classes       their names in label order, where the source has none itself
    readable      rules that make the source's names readable, applied in order: see `RULES`
    rename        name in the source -> name to use, instead of the rules; names it lacks are left alone
    templates     prompts, each with one {}
    unverified    what could not be verified when the file was written

Class names follow the source by name, never by position: `rename` is a mapping, and a list `classes` is used only where
the source's labels are bare integers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from residualign.data.hub import HubSet, HubSource, read_hub
from residualign.data.images import to_rgb
from residualign.data.prompts import check_templates
from residualign.data.split import RawData, Split
from residualign.errors import BadInputError

__all__ = [
    "RULES",
    "HubSource",
    "RegisteredSet",
    "ScikitLearnSource",
    "SetFile",
    "parse_set_file",
    "read_registered",
    "read_set_file",
    "registered_names",
    "registered_sets",
]

_SETS = Path(str(files("residualign.data"))) / "sets"


def _spaces(name: str) -> str:
    return " ".join(name.replace("_", " ").split())


def _path(name: str) -> str:
    # scenes: /a/airplane_cabin, /c/church/indoor
    parts = [part for part in name.split("/") if part]
    return " ".join(parts[1:] if len(parts) > 1 and len(parts[0]) == 1 else parts)


def _first_synonym(name: str) -> str:
    return name.split(",")[0].strip()


RULES: Mapping[str, Callable[[str], str]] = {"underscores": _spaces, "path": _path, "first synonym": _first_synonym}
"""underscores: become spaces. path: `/c/church/indoor` becomes `church indoor`. first synonym: what comes before the
first comma, unless two classes would then have the same name: those keep all their synonyms."""


@dataclass(frozen=True)
class ScikitLearnSource:
    """A scikit-learn loader whose images have pixels in 0..largest."""

    loader: str
    largest: int


@dataclass(frozen=True)
class SetFile:
    """One registered set; the module docstring explains the fields."""

    description: str
    source: HubSource | ScikitLearnSource
    n_classes: int
    classes: tuple[str, ...] | None = None
    readable: tuple[str, ...] = ()
    rename: Mapping[str, str] | None = None
    templates: tuple[str, ...] | None = None
    unverified: str | None = None

    def readable_names(self, own: Sequence[str]) -> tuple[str, ...]:
        """Readable names for the source's own class names, in the same order."""
        shortened = [self._by_rules(name) for name in own]
        often = {name for name, count in Counter(shortened).items() if count > 1}
        names = [name if short in often else short for name, short in zip(own, shortened, strict=True)]
        return tuple((self.rename or {}).get(given, name) for given, name in zip(own, names, strict=True))

    def _by_rules(self, name: str) -> str:
        for rule in self.readable:
            name = RULES[rule](name)
        return name


def registered_names() -> tuple[str, ...]:
    """The names that `load_data` knows.

    >>> "digits" in registered_names()
    True
    """
    return tuple(sorted(path.stem for path in _SETS.glob("*.yaml")))


@dataclass(frozen=True)
class RegisteredSet:
    """What is known about a registered set before it is loaded. source: its origin, as `load_data` takes it."""

    name: str
    n_classes: int
    source: str
    description: str


def registered_sets() -> tuple[RegisteredSet, ...]:
    """All registered sets, sorted by name. Reads only the registry's files.

    >>> [(one.n_classes, one.source) for one in registered_sets() if one.name == "digits"]
    [(10, 'scikit-learn')]
    """
    found = []
    for name in registered_names():
        entry = read_set_file(name)
        source = "scikit-learn"
        if isinstance(entry.source, HubSource):
            config = "" if entry.source.config is None else f":{entry.source.config}"
            source = f"hf:{entry.source.repo}{config}"
        found.append(RegisteredSet(name, entry.n_classes, source, " ".join(entry.description.split())))
    return tuple(found)


def read_registered(name: str, labeled: bool = True, stream: bool = False) -> RawData:
    """The set registered under this name. Raises what `read_hub` raises if it comes from the hub."""
    entry = read_set_file(name)
    if isinstance(entry.source, ScikitLearnSource):
        return _from_scikit_learn(name, entry, entry.source)
    wanted = HubSet(name=name, classes=entry.classes, n_classes=entry.n_classes, **vars(entry.source))
    raw = read_hub(wanted, labeled, stream=stream)
    return RawData(raw.splits, entry.readable_names(raw.class_names), entry.templates, raw.strays, raw.notes)


@dataclass(frozen=True, eq=False)
class _Pixels:
    """Images held as gray pixels, (image, row, column) in 0..255."""

    pixels: NDArray[np.uint8]

    def image(self, row: int, key: str) -> Image.Image:
        return to_rgb(Image.fromarray(self.pixels[row]), key)


def _from_scikit_learn(name: str, entry: SetFile, source: ScikitLearnSource) -> RawData:
    """Gray images that come with scikit-learn; pixels 0..`largest` become 0..255."""
    # imported here: importing the package must stay quick
    from sklearn import datasets

    loaded = getattr(datasets, source.loader)()
    pixels = np.rint(loaded.images * (255 / source.largest)).astype(np.uint8)
    labels = tuple(int(label) for label in loaded.target)
    keys = tuple(f"{name}/{i}" for i in range(len(labels)))
    split = Split("train", keys, labels, _Pixels(pixels), tuple(range(len(labels))))
    if entry.classes is None:
        raise BadInputError(f"the set {name!r} names no classes")
    return RawData({"train": split}, entry.classes, entry.templates)


def read_set_file(name: str) -> SetFile:
    """The file of this set."""
    return parse_set_file(yaml.safe_load((_SETS / f"{name}.yaml").read_text(encoding="utf-8")), name)


def parse_set_file(content: Any, name: str) -> SetFile:
    """Check a file's content; raises `BadInputError` naming the set and the entry that is wrong."""
    entry = _known(content, SetFile, name, ("description", "source", "n_classes"))
    classes = None if entry.get("classes") is None else tuple(_texts(entry["classes"], name, "classes"))
    if classes is not None and len(classes) != entry["n_classes"]:
        raise BadInputError(f"the set {name!r} names {len(classes)} classes, expected {entry['n_classes']}")
    rename = entry.get("rename")
    if rename is not None:
        if not isinstance(rename, Mapping):
            raise BadInputError(f"rename of the set {name!r} must be a mapping, got {type(rename).__name__}")
        _texts(list(rename), name, "rename")
        _texts(list(dict.fromkeys(rename.values())), name, "rename")
    rules = tuple(entry.get("readable") or ())
    unknown = [rule for rule in rules if rule not in RULES]
    if unknown:
        raise BadInputError(f"the set {name!r} has the unknown rule {unknown[0]!r}, expected one of {', '.join(RULES)}")
    templates = entry.get("templates")
    checked = {
        "source": _source(entry["source"], name),
        "classes": classes,
        "readable": rules,
        "templates": None if templates is None else check_templates(_texts(templates, name, "templates")),
    }
    return SetFile(**(entry | checked))


def _source(content: Any, name: str) -> HubSource | ScikitLearnSource:
    kinds = {"hub": HubSource, "scikit-learn": ScikitLearnSource}
    kind = content.get("kind") if isinstance(content, Mapping) else None
    if kind not in kinds:
        raise BadInputError(f"the source of the set {name!r} must be of kind {' or '.join(kinds)}, got {kind!r}")
    told = {key: value for key, value in content.items() if key != "kind"}
    if kind == "scikit-learn":
        return ScikitLearnSource(**_known(told, ScikitLearnSource, name, ("loader", "largest")))
    entry = _known(told, HubSource, name, ("repo",))
    splits = entry.get("splits")
    if splits is not None and not set(splits) <= {"train", "val", "test"}:
        raise BadInputError(f"splits of the set {name!r} must be train, val or test, got {', '.join(splits)}")
    only = entry.get("only")
    if only is not None:
        ((column, value),) = only.items()
        entry["only"] = (column, value)
    return HubSource(**entry)


def _known(content: Any, kind: type[Any], name: str, needed: Sequence[str]) -> dict[str, Any]:
    """The entries of a mapping, if each is a field of the dataclass and no required one is missing."""
    allowed = [field.name for field in fields(kind)]
    if not isinstance(content, Mapping):
        raise BadInputError(f"the file of the set {name!r} must hold a mapping, got {type(content).__name__}")
    for key in content:
        if key not in allowed:
            raise BadInputError(f"the set {name!r} has the unknown entry {key!r}, expected {', '.join(allowed)}")
    for key in needed:
        if content.get(key) is None:
            raise BadInputError(f"the set {name!r} lacks the entry {key!r}")
    return dict(content)


def _texts(values: Any, name: str, what: str) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) and value.strip() for value in values):
        raise BadInputError(f"{what} of the set {name!r} must be non-empty texts")
    if len(set(values)) < len(values):
        raise BadInputError(f"{what} of the set {name!r} must differ")
    return values
