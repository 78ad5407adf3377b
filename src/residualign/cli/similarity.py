"""Terminal output of `residualign similarity`: layers of all comparisons side by side, then units and pairs of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residualign._messages import plural
from residualign.cli.console import Out

if TYPE_CHECKING:
    from residualign.commands.similarity import SimilarityOutcome
    from residualign.similarity import UnitSimilarity
    from residualign.similarity.sources import Compared, Source

_SHOWN = 5
_NAME = 20


def show(printer: Out, outcome: SimilarityOutcome) -> None:
    """Print what was compared, layer by layer, and the units that agree most and least."""
    from residualign.cli.views import facts

    first, request = outcome.first, outcome.request
    printer.show(
        facts(
            ("model", first.model),
            ("images", f"{first.spectra.n_samples:,} of {first.name}, {request.split}"),
            *(("compared with", _described(first.model, one.second)) for one in outcome.compared),
        )
    )
    alike = [one for one in outcome.compared if one.result.spectral is not None]
    if alike:
        _show_layers(printer, alike)
    # with several others, their tables of heads would hide the summary above
    one_pair, chosen = len(outcome.compared) == 1, bool(request.unit)
    for one in outcome.compared:
        if one.result.spectral is not None and (one_pair or chosen):
            _show_units(printer, one, chosen)
        if one.result.cka is not None:
            _show_cka(printer, one)
        if one.result.pairs_cka is not None or one.result.pairs is not None:
            _show_pairs(printer, one, one_pair)
    if outcome.files:
        printer.show("", f"  {plural(len(outcome.files), 'file')} in {request.out}")


def _described(model: str, other: Source) -> str:
    images = f"{other.spectra.n_samples:,} of {other.name}"
    return images if other.model == model else f"{images}, model {other.model}"


def _show_layers(printer: Out, compared: list[Compared]) -> None:
    from residualign.cli.views import heading

    for kind, weighting, title in (
        ("head", "weighted", "heads, mean of each layer, weighted by variance"),
        ("head", "unweighted", "heads, mean of each layer, unweighted"),
        ("mlp", "weighted", "MLPs, weighted by variance"),
    ):
        columns = []
        for one in compared:
            assert one.result.spectral is not None
            layers = one.result.spectral.layers("head" if kind == "head" else "mlp")
            columns.append([_both(line.cosine, weighting) for line in layers])
        printer.show("", heading(f"  {title}: greedy (optimal)"))
        _show_columns(printer, compared, "layer", [str(i) for i in range(len(columns[0]))], columns)
    of_output = [one.result.spectral.output.cosine for one in compared if one.result.spectral is not None]
    names = ["weighted", "unweighted"]
    printer.show("", heading("  the whole output: greedy (optimal)"))
    _show_columns(printer, compared, "", names, [[_both(cosine, name) for name in names] for cosine in of_output])


def _show_columns(
    printer: Out, compared: list[Compared], title: str, names: list[str], columns: list[list[str]]
) -> None:
    """One column per comparison, as many side by side as fit the terminal."""
    from residualign.cli.views import plain_table

    each = max(1, (printer.stdout.width - len("  unweighted")) // (2 + _NAME))
    for start in range(0, len(compared), each):
        part = slice(start, start + each)
        titles = ((title, False), *((_short(one.second.name), True) for one in compared[part]))
        printer.show(*([""] if start else []), plain_table(titles, list(zip(names, *columns[part], strict=True))))


def _both(cosine: object, weighting: str) -> str:
    return f"{_figure(getattr(cosine, weighting))} ({_figure(getattr(cosine, f'{weighting}_optimal'))})"


def _short(name: str) -> str:
    """Shorten a name to a column: keep its end, and its first letters, which may be a number that tells two apart."""
    return name if len(name) <= _NAME else f"{name[:3]}…{name[4 - _NAME :]}"


def _show_units(printer: Out, one: Compared, chosen: bool) -> None:
    from residualign.cli.views import first_and_last, heading, paragraph, plain_table

    assert one.result.spectral is not None
    means = {} if one.result.means is None else {mean.label: mean for mean in one.result.means}

    def line(unit: UnitSimilarity) -> tuple[str, ...]:
        cosine, mean = unit.cosine, means.get(unit.label)
        counts = f"{unit.n_components[0]}, {unit.n_components[1]}"
        figures = (cosine.weighted, cosine.weighted_optimal, cosine.unweighted, cosine.unweighted_optimal)
        of_means = (None, None) if mean is None else (mean.cosine, mean.relative_cosine)
        return (unit.label, counts, *(_figure(value) for value in (*figures, *of_means)))

    columns = ("kept", "weighted", "optimal", "unweighted", "optimal", "means", "anchors")
    titles = tuple((title, True) for title in columns)
    labels = {unit.label for unit in one.result.units}
    listed = [unit for unit in one.result.spectral.units if unit.label in labels]
    if not chosen:
        known = [unit for unit in listed if unit.kind == "head" and unit.cosine.weighted >= 0]
        listed = list(first_and_last(sorted(known, key=lambda unit: unit.cosine.weighted), _SHOWN))
    what = "units" if chosen else f"heads, least similar first (the first and last {_SHOWN}; --json lists all)"
    rows = [line(unit) for unit in (*listed, one.result.spectral.output)]
    printer.show(
        "",
        heading(f"  {one.second.name}: {what}"),
        plain_table((("", False), *titles), rows),
        paragraph(
            "kept: components of the first and of the second. means: cosine of the two means; anchors: the same, of "
            "similarities to the anchors.",
            "quiet",
        ),
    )


def _show_cka(printer: Out, one: Compared) -> None:
    from residualign.cli.views import first_and_last, heading, plain_table

    assert one.result.cka is not None
    known = [line for line in one.result.cka[:-1] if line.cka >= 0]
    shown = first_and_last(sorted(known, key=lambda line: line.cka), _SHOWN)
    rows = [(line.label, _figure(line.cka), _figure(line.debiased)) for line in (*shown, one.result.cka[-1])]
    titles = (("", False), ("CKA", True), ("debiased", True))
    printer.show("", heading(f"  {one.second.name}: the same images, least similar first"), plain_table(titles, rows))


def _show_pairs(printer: Out, one: Compared, in_full: bool) -> None:
    """The most similar pairs of heads; within one tower, pairs of different heads."""
    import torch

    from residualign.cli.views import heading, paragraph, plain_table

    found = []
    if one.result.pairs is not None:
        found.append(("weighted cosine", one.result.pairs.rows, one.result.pairs.columns, one.result.pairs.weighted))
    if one.result.pairs_cka is not None:
        found.append(("CKA", one.result.pairs_cka.rows, one.result.pairs_cka.columns, one.result.pairs_cka.cka))
    one_tower = one.first.spectra.units == one.second.spectra.units
    for what, heads, others, matrix in found:
        values = torch.nan_to_num(matrix, nan=-1.0)
        if in_full or not one_tower:
            top = values.flatten().argsort(descending=True, stable=True).tolist()
            pairs = [(heads[k // len(others)], others[k % len(others)], float(values.flatten()[k])) for k in top]
            shown = [pair for pair in pairs if not one_tower or pair[0].label != pair[1].label][: 2 * _SHOWN]
            rows = [(first.label, second.label, _figure(value)) for first, second, value in shown]
            title = f"  {one.second.name}: most similar {'different ' if one_tower else ''}heads, {what}"
            titles = ((_short(one.first.name), False), (_short(one.second.name), False), (what, True))
            printer.show("", heading(title), plain_table(titles, rows))
        if one_tower:
            itself = sum(heads[i].label == others[int(j)].label for i, j in enumerate(values.argmax(dim=1)))
            sentence = f"{itself} of {len(heads)} heads are most similar to the head in the same position, by {what}"
            printer.show("", paragraph(f"{one.second.name}: {sentence}"))


def _figure(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.3f}"
