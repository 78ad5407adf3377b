"""`residualign similarity`: what of a model's units stays the same from one set of images, or model, to another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residualign.cli import options as o
from residualign.cli.console import Out

if TYPE_CHECKING:
    from residualign.commands.similarity import Compared, SimilarityOutcome, Source
    from residualign.similarity import UnitSimilarity

_SHOWN = 5


def similarity(
    sources: o.Sources,
    split: o.SplitOption = o.SplitChoice.train,
    unit: o.UnitLabels = None,
    variance: o.Variance = 0.9,
    pairs: o.Pairs = False,
    matching: o.MatchingOption = o.MatchingChoice.greedy,
    same_space: o.SameSpace = False,
    anchors: o.Anchors = 100,
    seed: o.Seed = 0,
    out: o.AnalysisOut = None,
    format: o.Formats = None,
    overwrite: o.Overwrite = False,
    stream: o.Stream = False,
    skip_bad: o.SkipBad = False,
    device: o.Device = "cpu",
    dtype: o.DTypeOption = o.DType.float32,
    batch_size: o.BatchSize = 32,
    workers: o.Workers = 2,
    json: o.Json = False,
) -> None:
    """Compare the principal components of every unit: STORE STORE..., or MODEL DATA DATA...; the first with each other.

    Prints the normalised spectral cosine of each layer (0 to 1, 1 for the same components), weighted by variance and
    unweighted. Where the images are the same ones, CKA too, which needs no common space: across models.
    """
    from residualign.commands._inputs import Machine
    from residualign.commands.similarity import Settings, run_similarity, similarity_payload, similarity_tables
    from residualign.runs.files import check_analysis_files, write_analysis_files

    printer = Out(json)
    formats = None if format is None else [choice.value for choice in format]
    check_analysis_files(out, formats, overwrite)
    machine = Machine(device, dtype.value, batch_size, workers)
    settings = Settings(
        split=split.value,
        variance_threshold=variance,
        pairs=pairs,
        matching=matching.value,
        same_space=same_space,
        anchors=anchors,
        seed=seed,
        unit_labels=None if unit is None else tuple(unit),
    )
    outcome = run_similarity(sources, machine, settings, stream=stream, skip_bad=skip_bad, progress=printer)
    payload = similarity_payload(outcome)
    written = None
    if out is not None:
        from residualign.figures.similarity import similarity_figures

        tables = similarity_tables(outcome)
        written = write_analysis_files(out, "similarity", payload, tables, similarity_figures(tables), formats)
    printer.finish({**payload, "files": None if written is None else [str(path) for path in written]})
    if not json:
        _show(printer, outcome)
        if written is not None:
            printer.show("", f"  {len(written)} files written to {out}")


def _show(printer: Out, outcome: SimilarityOutcome) -> None:
    from residualign.cli.views import facts

    first = outcome.first
    printer.show(
        facts(
            ("model", first.model),
            ("images", f"{first.spectra.n_samples:,} of {first.name}, {outcome.settings.split}"),
            *(("beside", _beside(first.model, one.second)) for one in outcome.compared),
        )
    )
    alike = [one for one in outcome.compared if one.spectral is not None]
    if alike:
        _show_layers(printer, alike)
    # with several others, tables of heads for each of them would bury what is above
    one_pair, chosen = len(outcome.compared) == 1, outcome.settings.unit_labels is not None
    for one in outcome.compared:
        if one.spectral is not None and (one_pair or chosen):
            _show_units(printer, one, chosen)
        if one.cka is not None:
            _show_cka(printer, one)
        if one.pairs_cka is not None or one.pairs is not None:
            _show_pairs(printer, one, one_pair)


def _beside(model: str, other: Source) -> str:
    images = f"{other.spectra.n_samples:,} of {other.name}"
    return images if other.model == model else f"{images}, model {other.model}"


def _show_layers(printer: Out, compared: list[Compared]) -> None:
    from residualign.cli.views import heading, plain_table

    for kind, weighting, title in (
        ("head", "weighted", "heads, mean of each layer, weighted by variance"),
        ("head", "unweighted", "heads, mean of each layer, unweighted"),
        ("mlp", "weighted", "MLPs, weighted by variance"),
    ):
        columns = []
        for one in compared:
            assert one.spectral is not None
            layers = one.spectral.layers("head" if kind == "head" else "mlp")
            pairs = [(getattr(x.cosine, weighting), getattr(x.cosine, f"{weighting}_optimal")) for x in layers]
            columns.append([f"{_figure(greedy)} ({_figure(optimal)})" for greedy, optimal in pairs])
        rows = [(str(layer), *line) for layer, line in enumerate(zip(*columns, strict=True))]
        names = [(one.second.name, True) for one in compared]
        printer.show("", heading(f"  {title}: greedy (optimal)"), plain_table((("layer", False), *names), rows))
    of_output = [one.spectral.output.cosine for one in compared if one.spectral is not None]
    printer.show(
        "",
        heading("  the whole output: greedy (optimal)"),
        plain_table(
            (("", False), *((one.second.name, True) for one in compared)),
            [
                ("weighted", *(f"{_figure(c.weighted)} ({_figure(c.weighted_optimal)})" for c in of_output)),
                ("unweighted", *(f"{_figure(c.unweighted)} ({_figure(c.unweighted_optimal)})" for c in of_output)),
            ],
        ),
    )


def _show_units(printer: Out, one: Compared, chosen: bool) -> None:
    from residualign.cli.views import heading, plain_table

    assert one.spectral is not None
    means = {} if one.means is None else {mean.label: mean for mean in one.means}

    def line(unit: UnitSimilarity) -> tuple[str, ...]:
        cosine, mean = unit.cosine, means.get(unit.label)
        counts = f"{unit.n_components[0]}, {unit.n_components[1]}"
        figures = (cosine.weighted, cosine.weighted_optimal, cosine.unweighted, cosine.unweighted_optimal)
        of_means = (None, None) if mean is None else (mean.cosine, mean.relative_cosine)
        return (unit.label, counts, *(_figure(value) for value in (*figures, *of_means)))

    columns = ("components", "weighted", "optimal", "unweighted", "optimal", "means' cosine", "to anchors")
    titles = tuple((title, True) for title in columns)
    labels = {unit.label for unit in one.units}
    listed = [unit for unit in one.spectral.units if unit.label in labels]
    if not chosen:
        known = [unit for unit in listed if unit.kind == "head" and unit.cosine.weighted >= 0]
        ranked = sorted(known, key=lambda unit: unit.cosine.weighted)
        listed = ranked if len(ranked) <= 2 * _SHOWN else [*ranked[:_SHOWN], *ranked[-_SHOWN:]]
    what = "units" if chosen else "heads, least alike first (some of either end; --json lists all)"
    rows = [line(unit) for unit in (*listed, one.spectral.output)]
    printer.show("", heading(f"  {one.second.name}: {what}"), plain_table((("", False), *titles), rows))


def _show_cka(printer: Out, one: Compared) -> None:
    from residualign.cli.views import heading, plain_table

    assert one.cka is not None
    known = [line for line in one.cka[:-1] if line.cka >= 0]
    ranked = sorted(known, key=lambda line: line.cka)
    shown = ranked if len(ranked) <= 2 * _SHOWN else [*ranked[:_SHOWN], *ranked[-_SHOWN:]]
    rows = [(line.label, _figure(line.cka), _figure(line.debiased)) for line in (*shown, one.cka[-1])]
    titles = (("", False), ("CKA", True), ("debiased", True))
    printer.show("", heading(f"  {one.second.name}: the same images, least alike first"), plain_table(titles, rows))


def _show_pairs(printer: Out, one: Compared, in_full: bool) -> None:
    """The pairs of heads that are most alike; in one tower, those of different heads."""
    import torch

    from residualign.cli.views import heading, plain_table

    found = []
    if one.pairs is not None:
        found.append(("weighted cosine", one.pairs.rows, one.pairs.columns, one.pairs.weighted))
    if one.pairs_cka is not None:
        found.append(("CKA", one.pairs_cka.rows, one.pairs_cka.columns, one.pairs_cka.cka))
    one_tower = one.first.spectra.units == one.second.spectra.units
    for what, heads, others, matrix in found:
        values = torch.nan_to_num(matrix, nan=-1.0)
        if in_full or not one_tower:
            top = values.flatten().argsort(descending=True, stable=True).tolist()
            pairs = [(heads[k // len(others)], others[k % len(others)], float(values.flatten()[k])) for k in top]
            shown = [pair for pair in pairs if not one_tower or pair[0].label != pair[1].label][: 2 * _SHOWN]
            rows = [(first.label, second.label, _figure(value)) for first, second, value in shown]
            title = f"  {one.second.name}: {'different ' if one_tower else ''}heads that are most alike, {what}"
            titles = ((one.first.name, False), (one.second.name, False), (what, True))
            printer.show("", heading(title), plain_table(titles, rows))
        if one_tower:
            itself = sum(heads[i].label == others[int(j)].label for i, j in enumerate(values.argmax(dim=1)))
            sentence = f"{itself} of {len(heads)} heads are most like the head of the same place, by {what}"
            printer.show("", f"  {one.second.name}: {sentence}")


def _figure(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.3f}"
