"""`residualign explain`: what heads and their components say, in words and images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residualign.cli import options as o
from residualign.cli.console import Out

if TYPE_CHECKING:
    from rich.console import RenderableType

    from residualign.commands.explain import ExplainOutcome
    from residualign.text.explanation import ComponentWords, UnitWords

_COMPONENTS = 2


def explain(
    source: o.ModelOrStore,
    data: o.OptionalData = None,
    dictionary: o.DictionaryFile = None,
    split: o.SplitOption = o.SplitChoice.train,
    unit: o.UnitLabels = None,
    component: o.Components = None,
    words: o.WordsOption = None,
    texts: o.TextCount = 5,
    reference: o.Reference = None,
    top: o.Top = 6,
    out: o.AnalysisOut = None,
    formats: o.Formats = None,
    store: o.StoreOption = None,
    model: o.ModelPath = None,
    stream: o.Stream = False,
    skip_bad: o.SkipBad = False,
    overwrite: o.Overwrite = False,
    device: o.Device = "cpu",
    dtype: o.DTypeOption = o.DType.float32,
    batch_size: o.BatchSize = 32,
    workers: o.Workers = 2,
    json: o.Json = False,
) -> None:
    """Say what heads mean: MODEL with DATA, or a STORE.

    Chooses descriptions from a dictionary that rebuild what a head writes, and says what both ends of its components
    say, with the images that lie furthest along them. Units are heads unless --unit names others. A model without text
    tower is explained by images alone.
    """
    from residualign.commands._inputs import Machine, analysed_store
    from residualign.commands.explain import end_images, run_explain
    from residualign.figures.explain import explain_figures
    from residualign.runs.files import check_analysis_files, write_analysis_files
    from residualign.text.dictionary import load_texts

    printer = Out(json)
    wanted = [choice.value for choice in formats] if formats else None
    check_analysis_files(out, wanted, overwrite)
    machine = Machine(device, dtype.value, batch_size, workers)
    if dictionary is not None:
        # a file that cannot be used is refused before the pass over the images
        load_texts(dictionary)
    with analysed_store(
        source, data, machine, store=store, model=model, stream=stream, skip_bad=skip_bad, units=unit, progress=printer
    ) as (made, subject):
        outcome = run_explain(
            made,
            subject,
            split=split.value,
            reference=reference,
            dictionary=dictionary,
            units=unit,
            components=component,
            n_texts=texts,
            method=None if words is None else words.value,
            progress=printer,
        )
    explanation = outcome.explanation
    shown = explanation.most_telling(top)
    payload = outcome.to_json()
    if out is not None:
        tables = explanation.tables
        figures = {}
        if explanation.dictionary is not None or subject.data is not None:
            figures = explain_figures(
                tables,
                "",
                [unit.label for unit in shown],
                # images are read only where a figure is asked for
                lambda: end_images(subject.data, shown),
                explanation.method,
            )
        else:
            printer.note("no figure: a store holds no pictures and the model knows no words")
        written = write_analysis_files(out, "explain", payload, tables, figures, wanted)
        payload |= {"files": [str(path) for path in written]}
    printer.finish(payload)
    if not json:
        # two say enough on a screen, unless they were asked for
        _show(printer, outcome, shown, None if component else _COMPONENTS)
        if out is not None:
            printer.show("", f"  written to {out}")


def _show(printer: Out, outcome: ExplainOutcome, shown: tuple[UnitWords, ...], most: int | None) -> None:
    from residualign.cli.views import facts, paragraph

    explanation = outcome.explanation
    words = "none: the model has no text tower"
    if explanation.dictionary is not None:
        words = f"{explanation.method}, from {explanation.n_texts:,} descriptions ({explanation.dictionary})"
    printer.show(
        facts(
            ("model", outcome.model),
            ("images", f"{explanation.n_images:,} ({explanation.split} of {outcome.data})"),
            ("words", words),
            ("components", f"from {outcome.components_from} ({outcome.n_reference:,})"),
        )
    )
    for unit in shown:
        printer.show("", *_unit(unit, explanation.method, most))
    n, left = len(shown), len(explanation.units) - len(shown)
    if left:
        which = "whose texts explain most" if explanation.dictionary is not None else "with the largest component"
        printer.show(
            "", paragraph(f"{n} of {n + left} units are shown, those {which}; --top shows more, --json lists all")
        )


def _unit(unit: UnitWords, method: str, most: int | None) -> list[RenderableType]:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from residualign.cli.views import heading, paragraph, percent

    lines: list[RenderableType] = [heading(unit.label)]
    if unit.chosen:
        whose = "the first component" if method == "omp" else "its variance"
        said = f"{len(unit.chosen)} texts explain {percent(unit.explained)} of {whose}"
        if unit.coherence is not None:
            said += f"; coherence {unit.coherence:+.1f}"
        lines += [paragraph("; ".join(text.text for text in unit.chosen), "title"), paragraph(said, "quiet")]
    if not unit.components:
        lines.append(paragraph("it never varies over these images", "quiet"))
    table = Table.grid(padding=(0, 2))
    for justify in ("right", "right", "left", "left"):
        table.add_column(justify=justify, overflow="fold", no_wrap=justify == "right")
    for component in unit.components[:most]:
        share = percent(component.explained_variance_ratio)
        table.add_row(str(component.index), share, Text("+", "good"), _end(component, positive=True))
        table.add_row("", "", Text("-", "bad"), _end(component, positive=False))
    return [*lines, Padding(table, (0, 0, 0, 2), expand=False)]


def _end(component: ComponentWords, positive: bool) -> str:
    matches = component.positive if positive else component.negative
    images = component.images_positive if positive else component.images_negative
    if matches:
        return ", ".join(f"{match.text} {match.score:.2f}" for match in matches)
    return ", ".join(key for key, _ in images)
