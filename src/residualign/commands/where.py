"""Heat maps of chosen heads over chosen images, for people: along a component, a text, or what decided the class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from residualign._progress import Progress
from residualign.adapter.adapter import Adapter, load_adapter
from residualign.adapter.attribution import decision_directions
from residualign.adapter.files import CONFIG
from residualign.commands._inputs import Machine, chosen_units, expand_images
from residualign.commands._messages import left_out_sentence
from residualign.commands._spectra import given_spectra, shipped_spectra
from residualign.commands.classify import opened_images
from residualign.errors import BadInputError
from residualign.extraction import fit_spectrum
from residualign.load import load_model
from residualign.location import Location, locate
from residualign.location.result import shown_pixels
from residualign.models.vision_model import VisionModel
from residualign.runs.files import check_analysis_files, write_analysis_files
from residualign.spectrum import Spectra
from residualign.store import Store
from residualign.units import Units

__all__ = ["WhereOutcome", "run_where"]

MAX_MAPS = 12


@dataclass(frozen=True)
class WhereOutcome:
    """along: what the maps are along, in words. pictures: (height, width, 3) in [0, 1], what the model saw.

    classes: by image, the first and the second class of an adapter; empty for a model.
    """

    model: str
    along: str
    images: tuple[str, ...]
    pictures: tuple[NDArray[np.float32], ...]
    classes: tuple[tuple[str, str], ...]
    location: Location
    skipped: tuple[str, ...]

    def rows(self) -> list[dict[str, Any]]:
        """One mapping an image and target: the total and what it is made of, and the patch with the largest part."""
        found = []
        location = self.location
        for i, name in enumerate(self.images):
            for k, target in enumerate(location.targets):
                patches = location.maps[i, k]
                peak = int(patches.abs().argmax())
                found.append(
                    {
                        "image": name,
                        "target": target.label,
                        "total": float(location.total[i, k]),
                        "patches": float(patches.sum()),
                        "prefix": float(location.prefix[i, k].sum()),
                        "constant": float(location.constant[i, k]),
                        "peak": float(patches.flatten()[peak]),
                        "peak_row": peak // patches.shape[1],
                        "peak_column": peak % patches.shape[1],
                    }
                )
        return found

    def to_json(self) -> dict[str, Any]:
        """What `where --json` prints."""
        content = self.location.to_json()
        images = content.pop("images")
        named = []
        for i, (name, numbers) in enumerate(zip(self.images, images, strict=True)):
            decided = {"label": self.classes[i][0], "second": self.classes[i][1]} if self.classes else {}
            named.append({**numbers, "image": name, **decided})
        return {
            "model": self.model,
            "along": self.along,
            **content,
            "n_images": len(named),
            "n_skipped": len(self.skipped),
            "skipped": list(self.skipped),
            "images": named,
        }


def run_where(
    source: str,
    images: Sequence[str | os.PathLike[str]],
    machine: Machine,
    *,
    units: Sequence[str] | None,
    components: Sequence[int] | None = None,
    text: str | None = None,
    against: Sequence[str] | None = None,
    reference: str | None = None,
    model: str | None = None,
    skip_bad: bool = False,
    out: str | os.PathLike[str] | None = None,
    formats: Sequence[str] | None = None,
    overwrite: bool = False,
    progress: Progress,
) -> WhereOutcome:
    """Do everything `residualign where` does.

    source: a model, or the folder of an adapter, whose maps without component and text are along what set each image's
    first class apart from its second. reference: as in `choose_spectra`. Errors: those of `load_model`, `load_adapter`
    and `locate`.
    """
    check_analysis_files(out, formats, overwrite)
    if against and text is None:
        raise BadInputError("--against sets other texts against --text; give --text too")
    if reference is not None and components is None:
        raise BadInputError("--reference says where components come from; give --component too")
    files = expand_images(images)
    adapter = _adapter(source, model, machine)
    loaded = load_model(source, device=machine.device, dtype=machine.dtype) if adapter is None else adapter.model
    heads = _heads(loaded.units, units)
    spectra = None if components is None else _spectra(source, loaded, reference, machine, skip_bad, progress)
    skipped: list[str] = []
    names, pictures, classes, found = [], [], [], []
    with progress.task("images") as tick:
        for start in range(0, len(files), machine.batch_size):
            batch = list(opened_images(files[start : start + machine.batch_size], skip_bad, skipped))
            if batch:
                pixels = loaded.pixels([image for _, image in batch])
                direction = None
                if adapter is not None and text is None and components is None:
                    direction, decided = _decision(adapter, pixels, heads)
                    classes += decided
                found.append(
                    locate(
                        loaded,
                        pixels,
                        heads,
                        direction=direction,
                        components=components,
                        spectra=spectra,
                        text=text,
                        against=tuple(against or ()),
                        batch_size=machine.batch_size,
                    )
                )
                names += [str(path) for path, _ in batch]
                pictures += list(shown_pixels(pixels, loaded.preprocess.describe()).numpy())
            tick(min(start + machine.batch_size, len(files)), len(files))
    if not found:
        raise BadInputError(f"none of the {len(files)} images could be read, {skipped[0]!r} first")
    if skipped:
        progress.warn(left_out_sentence(skipped))
    outcome = WhereOutcome(
        model=loaded.name,
        along=_along(components, text, against, bool(classes)),
        images=tuple(names),
        pictures=tuple(pictures),
        classes=tuple(classes),
        location=Location.cat(found),
        skipped=tuple(skipped),
    )
    if out is not None:
        _write(outcome, out, formats)
    return outcome


def _adapter(source: str, model: str | None, machine: Machine) -> Adapter | None:
    if (Path(source) / CONFIG).is_file():
        return load_adapter(source, model=model, device=machine.device, dtype=machine.dtype)
    if model is not None:
        raise BadInputError(f"--model {model} says where an adapter's model is; {source!r} is no adapter")
    return None


def _heads(units: Units, labels: Sequence[str] | None) -> list[str]:
    if not labels:
        raise BadInputError("say which heads: --unit L5.H3 (repeats)")
    heads = [unit.label for unit in chosen_units(units, labels)]
    if len(heads) > MAX_MAPS:
        raise BadInputError(f"a sheet has room for {MAX_MAPS} heads; got {len(heads)}")
    return heads


def _spectra(
    source: str, model: VisionModel, reference: str | None, machine: Machine, skip_bad: bool, progress: Progress
) -> Spectra:
    """Where components come from: what was named, an adapter's store, or what ships with the model."""
    if reference is not None:
        spectra = given_spectra(
            reference, lambda: model, machine.batch_size, machine.workers, False, skip_bad, progress
        )
    elif (Path(source) / "store" / "manifest.json").is_file():
        spectra = fit_spectrum(Store.open(Path(source) / "store"))
    elif (shipped := shipped_spectra(model.name)) is not None:
        spectra = Spectra.load(shipped)
    else:
        raise BadInputError(
            f"no components lie with {source!r}; name images, a store or a spectra file they come from with --reference"
        )
    if spectra.model_fingerprint and spectra.model_fingerprint != model.fingerprint:
        raise BadInputError(f"the components were computed with other weights than {source!r} has")
    return spectra


def _decision(
    adapter: Adapter, pixels: Tensor, heads: Sequence[str]
) -> tuple[dict[str, Tensor], list[tuple[str, str]]]:
    coordinates = adapter.take_apart(pixels)
    top = adapter.logits(coordinates).topk(2, dim=-1).indices.tolist()
    names = adapter.class_names
    return decision_directions(adapter.adapted, coordinates, heads), [
        (names[first], names[second]) for first, second in top
    ]


def _along(components: Sequence[int] | None, text: str | None, against: Sequence[str] | None, decides: bool) -> str:
    if components is not None:
        return "along the head's own component"
    if text is not None:
        return f"along the text {text!r}" + (f" against {', '.join(map(repr, against))}" if against else "")
    return "along what set the first class apart from the second" if decides else "length of every part"


def _write(outcome: WhereOutcome, out: str | os.PathLike[str], formats: Sequence[str] | None) -> None:
    from residualign.figures.where import where_figures

    rows = outcome.rows()
    decided = [dict(zip(("label", "second"), pair, strict=True)) for pair in outcome.classes]
    n_targets = len(outcome.location.targets)
    unit = "logits" if outcome.classes else "embedding units"
    figures = where_figures(
        [{**row, **decided[i // n_targets]} for i, row in enumerate(rows)] if decided else rows,
        f"{os.path.basename(os.path.normpath(outcome.model))}: {outcome.along}, in {unit}",
        outcome.pictures,
        outcome.location.maps.double().cpu().numpy(),
        signed=outcome.location.kind == "direction",
    )
    write_analysis_files(out, "where", outcome.to_json(), {"where": rows}, figures, formats)
