"""load_data: from what a user types to labeled images in three splits."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

from residualign._messages import did_you_mean, listed
from residualign.data.folders import read_folder
from residualign.data.hub import parse_hub_name, read_hub
from residualign.data.hub_rows import StreamedRows
from residualign.data.parquet import holds_parquet, read_parquet
from residualign.data.partition import complete_splits
from residualign.data.prompts import DEFAULT_TEMPLATE, Classes, Templates, read_prompts, rename_classes
from residualign.data.registered import read_registered, registered_names
from residualign.data.split import ImageData, RawData, Split
from residualign.data.webdataset import COMPRESSED, holds_shards, read_shards
from residualign.errors import BadInputError

__all__ = ["load_data"]


def load_data(
    source: str | PathLike[str],
    *,
    classes: Classes = None,
    templates: Templates = None,
    seed: int = 42,
    split: bool = True,
    stream: bool = False,
    skip_bad: bool = False,
) -> ImageData:
    """Open labeled images: a folder, parquet files, WebDataset shards, a hub data set, or a registered name.

    Parameters
    ----------
    source : str or path
        One of: a folder of class folders, optionally inside train, val (or valid, validation) and test; a folder of
        `train|val|test.parquet` with columns `image` and `label`; a folder of WebDataset shards (`*.tar`) or a single
        shard; `hf:org/name`, optionally with `:config` and `@revision`; a registered name such as `digits` or
        `cifar10`. An existing path wins over a name.
    classes : sequence of str, mapping, or path, optional
        Names for the classes: a list in label order, a mapping from the data's own names to new ones, or a YAML or JSON
        file of either, which may hold templates too (`{"classes": ..., "templates": [...]}`).
    templates : sequence of str, str, or path, optional
        Prompts with one `{}` each, or a YAML or JSON file of them. Defaults to the data's own, or `"a photo of a {}."`.
    seed : int, default 42
        Random seed for splits that are missing: 0 or larger.
    split : bool, default True
        Split off missing splits from train, stratified by class; `residualign.data.partition` states the rule. False
        leaves them empty; labels may then be missing, and a single class is enough, as for a reference set.
    stream : bool, default False
        Read a hub data set over the network instead of downloading it: for one pass, in the order of the split.
        Images, keys, labels and splits are the same either way.
    skip_bad : bool, default False
        Leave out class folders without images, with a note, instead of refusing them.

    Returns
    -------
    ImageData
        Class names, templates and the splits `train`, `val` and `test`. No pixels are read yet.

    Raises
    ------
    BadInputError
        If the source does not exist or cannot be used; the message names what is wrong.

    Notes
    -----
    Costs a listing of the folders or a read of the label column, and for a hub data set its download. Memory: keys and
    labels only.

    Examples
    --------
    >>> data = load_data("digits")
    >>> len(data.train), len(data.val), len(data.test), data.split_rule
    (1259, 179, 359, 'stratified 70/10/20, seed 42')
    """
    if not isinstance(source, str | PathLike):
        raise BadInputError(
            "the data are a path (class folders, parquet files, tar shards), hf:org/name or a registered name; "
            f"got a {type(source).__name__}: save it as one of these first"
        )
    names, own_templates = read_prompts(classes, templates)
    n_names = len(names) if isinstance(names, tuple) else None
    raw = _read(source, labeled=split, n_classes=n_names, stream=stream, skip_bad=skip_bad)
    if split and len(raw.class_names) < 2:
        raise BadInputError(
            f"the data {str(source)!r} has only one class ({raw.class_names[0]!r}); at least two are needed"
        )
    class_names = rename_classes(raw.class_names, names)
    if split:
        splits, rule, notes = complete_splits(raw.splits, seed, class_names)
    else:
        splits = {name: raw.splits.get(name, Split.empty(name)) for name in ("train", "val", "test")}
        rule, notes = "own, nothing split off", ()
    splits = {name: _with_own_cursor(part) for name, part in splits.items()}
    return ImageData(
        name=str(source),
        class_names=class_names,
        templates=own_templates or raw.templates or (DEFAULT_TEMPLATE,),
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        split_rule=rule,
        strays=raw.strays,
        notes=(*raw.notes, *notes),
    )


def _with_own_cursor(split: Split) -> Split:
    """A stream only goes forward: splits that shared one cursor would restart it again and again."""
    if not isinstance(split.source, StreamedRows):
        return split
    return Split(split.name, split.keys, split.labels, split.source.of_rows(split.rows), split.rows)


def _read(source: str | PathLike[str], labeled: bool, n_classes: int | None, stream: bool, skip_bad: bool) -> RawData:
    path = Path(source).expanduser()
    # os.path.exists, unlike Path.exists, is also False for names that no file system takes
    if not str(source).strip() or not os.path.exists(path):
        return _read_name(str(source), labeled, n_classes, stream)
    if not path.is_dir():
        if path.name.lower().endswith((".tar", *COMPRESSED)):
            return read_shards(path, labeled, n_classes)
        hint = f"; give its folder, {str(path.parent)!r}" if path.suffix == ".parquet" else ""
        raise BadInputError(
            f"the data {str(source)!r} is a file, expected a folder of images, parquet files or tar shards{hint}"
        )
    _refuse_saved(path)
    if holds_parquet(path):
        return read_parquet(path, labeled, n_classes)
    if holds_shards(path):
        return read_shards(path, labeled, n_classes)
    return read_folder(path, labeled, skip_bad)


def _refuse_saved(path: Path) -> None:
    """Name the right folder, or the way out, for what `datasets` saves and for the folder of a hub data set."""
    if any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
        raise BadInputError(
            f"the folder {str(path)!r} was written by save_to_disk of the datasets library (Arrow files), which is not "
            "read: write each split as a file with to_parquet, such as train.parquet, and give their folder"
        )
    if holds_parquet(path):
        return
    inside = [folder for folder in sorted(path.glob("[!.]*/")) if folder.is_dir() and holds_parquet(folder)]
    if inside:
        raise BadInputError(
            f"the folder {str(path)!r} holds no parquet files, but {listed([folder.name for folder in inside])} in it "
            f"{'does' if len(inside) == 1 else 'do'}: give {str(inside[0])!r}"
        )


def _read_name(name: str, labeled: bool, n_classes: int | None, stream: bool) -> RawData:
    if name in registered_names():
        return read_registered(name, labeled, stream)
    if name.startswith("hf:"):
        return read_hub(parse_hub_name(name), labeled, n_classes, stream)
    raise BadInputError(
        f"no data at {name!r}{did_you_mean(name, registered_names())}: expected a folder of class folders, of "
        "parquet files or of tar shards, a hub data set (hf:org/name), or a registered name (`residualign data` lists "
        "them)"
    )
