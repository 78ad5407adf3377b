"""`residualign where`: the image patches that chosen heads read their contribution from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from residualign._progress import SILENT, Progress
from residualign._result import Result
from residualign.commands._flags import (
    METHOD,
    REPEATED,
    BatchSize,
    ComponentIndex,
    Files,
    ImagePaths,
    Loading,
    ModelPath,
    UnitLabels,
    argument,
    flag,
)

if TYPE_CHECKING:
    from torch import Tensor

    from residualign.adapter.adapter import Adapter
    from residualign.location import Location
    from residualign.models.vision_model import VisionModel
    from residualign.spectrum import Spectra
    from residualign.units import Units

__all__ = ["WhereOutcome", "WhereRequest", "run"]

_ROWS_PER_SHEET = 8
_MAX_MAPS = 12


@dataclass(frozen=True, kw_only=True)
class WhereRequest(Loading, Files):
    """Show which image patches chosen heads (--unit) read their contribution from.

    Maps follow a principal component of the head (--component) or a text (--text). With the DIR of an adapter and
    neither of them, they follow the margin between an image's first and second class; with a MODEL, they show the
    length of each part. The parts sum to the head's exact value. Components are by default those of the adapter, or
    come with the model. With --out, writes heat maps over the images; with --quick, over at
    most 20 of them.
    """

    source: Annotated[str, argument("MODEL|DIR", "A model, or the output directory of `residualign adapt`.")]
    images: ImagePaths
    unit: UnitLabels
    component: ComponentIndex = ()
    text: Annotated[str | None, flag("--text", METHOD, "Text that the maps follow.", metavar="TEXT")] = None
    against: Annotated[
        tuple[str, ...],
        flag(
            "--against",
            METHOD,
            "Text to contrast --text with; the maps follow the difference of the two, or of --text and the mean of "
            "several" + REPEATED + ".",
            metavar="TEXT",
        ),
    ] = ()
    reference: Annotated[
        str | None,
        flag(
            "--reference",
            METHOD,
            "Images, store or spectra file that the components of --component are computed from. By default the "
            "adapter's own components, or those that come with the model.",
            metavar="DATA",
        ),
    ] = None
    model: ModelPath = None
    batch_size: BatchSize = 8


@dataclass(frozen=True, repr=False, eq=False)
class WhereOutcome(Result):
    """The maps. along: what they follow, in words.

    classes: per image, the first and the second class of an adapter; empty where the maps do not follow a margin.
    """

    request: WhereRequest
    model: str
    along: str
    images: tuple[str, ...]
    classes: tuple[tuple[str, str], ...]
    location: Location
    skipped: tuple[str, ...]
    files: tuple[Path, ...] = ()

    def rows(self) -> list[dict[str, Any]]:
        """One row per image and target: the total and what it is the sum of, and the patch with the largest part."""
        n_targets = len(self.location.targets)
        table = self.location.tables["where"]
        return [{**row, "image": self.images[i // n_targets]} for i, row in enumerate(table)]

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

    @property
    def tables(self) -> dict[str, Any]:
        """The table of `--out`."""
        return {"where": self.rows()}

    @property
    def figures(self) -> dict[str, Any]:
        """Sheets of heat maps, by file name."""
        from residualign.figures.where import where_figures

        rows = self.rows()
        if self.classes:
            decided = [dict(zip(("label", "second"), pair, strict=True)) for pair in self.classes]
            n_targets = len(self.location.targets)
            rows = [{**row, **decided[i // n_targets]} for i, row in enumerate(rows)]
        unit = "logits" if self.classes else "embedding units"
        return where_figures(
            rows,
            f"{os.path.basename(os.path.normpath(self.model))}: {self.along}, in {unit}",
            list((self.location.pictures.float() / 255).numpy()),
            self.location.maps.double().cpu().numpy(),
            signed=self.location.kind == "direction",
        )


def run(request: WhereRequest, progress: Progress = SILENT) -> WhereOutcome:
    """Map the images, and write a table and heat maps. Errors: those of `load_model`, `load_adapter` and `locate`."""
    from residualign.adapter.adapter import load_adapter
    from residualign.adapter.files import CONFIG
    from residualign.inputs.images import image_files
    from residualign.load import load_model
    from residualign.runs.files import check_analysis_files, with_files

    is_adapter = (Path(request.source) / CONFIG).is_file()
    _check(request, is_adapter)
    check_analysis_files(request.out, request.format, request.overwrite)
    files = image_files(request.images, request.quick)
    adapter = None
    if is_adapter:
        adapter = load_adapter(request.source, model=request.model, device=request.device, dtype=request.dtype)
        model = adapter.model
    else:
        model = load_model(request.source, device=request.device, dtype=request.dtype)
    heads = _heads(model.units, request.unit)
    spectra = _spectra(request, model, adapter, progress) if request.component else None
    decides = adapter is not None and request.text is None and not request.component
    outcome = _located(request, files, model, heads, adapter if decides else None, spectra, progress)
    return with_files(outcome, "where")


def _check(request: WhereRequest, is_adapter: bool) -> None:
    """`BadInputError` for flags that cannot be combined, before anything is loaded."""
    from residualign.errors import BadInputError

    if not request.unit:
        raise BadInputError("choose one or more heads, such as --unit L5.H3")
    if request.component and request.text is not None:
        raise BadInputError("maps follow either --component or --text; give one of them")
    if request.against and request.text is None:
        raise BadInputError("--against contrasts other texts with --text; give --text too")
    if request.reference is not None and not request.component:
        raise BadInputError("--reference is what components are computed from; give --component too")
    if request.model is not None and not is_adapter:
        raise BadInputError(
            f"--model {request.model} is the new location of an adapter's model; {request.source!r} is not an adapter"
        )


def _located(
    request: WhereRequest,
    files: Sequence[Path],
    model: VisionModel,
    heads: Sequence[str],
    decider: Adapter | None,
    spectra: Spectra | None,
    progress: Progress,
) -> WhereOutcome:
    """The maps of all images. decider: the adapter whose margins they follow, if any."""
    from residualign.inputs.images import read_in_batches
    from residualign.location import Location, locate

    skipped: list[str] = []
    names, classes, found = [], [], []
    for paths, images in read_in_batches(files, request.batch_size, request.skip_bad, skipped, progress):
        pixels = model.pixels(images)
        direction = None
        if decider is not None:
            direction, decided = _decision(decider, pixels, paths, heads)
            classes += decided
        found.append(
            locate(
                model,
                pixels,
                heads,
                direction=direction,
                components=request.component or None,
                spectra=spectra,
                text=request.text,
                against=request.against,
                batch_size=request.batch_size,
                names=paths,
            )
        )
        names += paths
    return WhereOutcome(
        request,
        model=model.name,
        along=_along(request, decider is not None),
        images=tuple(names),
        classes=tuple(classes),
        location=Location.cat(found),
        skipped=tuple(skipped),
    )


def _heads(units: Units, labels: Sequence[str]) -> list[str]:
    from residualign.errors import BadInputError
    from residualign.inputs.store import chosen_units

    heads = [unit.label for unit in chosen_units(units, labels)]
    if len(heads) > _MAX_MAPS:
        raise BadInputError(f"a sheet has room for {_MAX_MAPS} heads, got {len(heads)}; name fewer with --unit")
    return heads


def _spectra(request: WhereRequest, model: VisionModel, adapter: Adapter | None, progress: Progress) -> Spectra:
    """The components: of the given reference, those that an adapter scales, or those that come with the model.

    Units that the adapter does not scale by component take those of its run's training images.
    """
    from residualign.errors import BadInputError
    from residualign.extraction import fit_spectrum
    from residualign.inputs.spectra import bundled_spectra, given_spectra
    from residualign.report.measure import shown_spectra
    from residualign.spectrum import Spectra
    from residualign.store import Store

    source = request.source
    own_store = Path(source) / "store"
    if request.reference is not None:
        spectra = given_spectra(request.reference, lambda: model, request, progress)
    elif (own_store / "manifest.json").is_file():
        spectra = fit_spectrum(Store.open(own_store))
    elif (bundled := bundled_spectra(model.name)) is not None:
        spectra = Spectra.load(bundled)
    else:
        raise BadInputError(
            f"no components come with {source!r}; name images, a store or a spectra file to compute them from with "
            "--reference"
        )
    if spectra.model_fingerprint and spectra.model_fingerprint != model.fingerprint:
        raise BadInputError(f"the components were computed with different weights than {source!r} has")
    return spectra if adapter is None or request.reference is not None else shown_spectra(adapter, spectra)


def _decision(
    adapter: Adapter, pixels: Tensor, paths: Sequence[str], heads: Sequence[str]
) -> tuple[dict[str, Tensor], list[tuple[str, str]]]:
    from residualign.adapter.attribution import decision_directions

    coordinates = adapter.take_apart(pixels, names=paths)
    top = adapter.logits(coordinates).topk(2, dim=-1).indices.tolist()
    names = adapter.class_names
    return decision_directions(adapter.adapted, coordinates, heads), [
        (names[first], names[second]) for first, second in top
    ]


def _along(request: WhereRequest, decides: bool) -> str:
    if request.component:
        numbers = " and ".join(map(str, request.component))
        return f"along {'component' if len(request.component) == 1 else 'components'} {numbers} of each head"
    if request.text is not None:
        others = f" against {', '.join(map(repr, request.against))}" if request.against else ""
        return f"along the text {request.text!r}{others}"
    return "along the margin between the first and the second class" if decides else "length of each part"
