"""Terminal output of `residualign select`: which heads a task needs, and how few of them are enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residualign._messages import percent, plural, whole_percent
from residualign.cli.console import Out

if TYPE_CHECKING:
    from rich.console import RenderableType

    from residualign.commands.select import SelectOutcome
    from residualign.selection.result import SelectionStudy

# under the names that --score takes
_SCORES = {
    "S": "accuracy of the head alone",
    "U": "correlation with the output",
    "UT": "correlation with the output in the span of the class vectors",
    "R": "random",
    "cosine": "mean cosine with the output",
}


def show(out: Out, outcome: SelectOutcome) -> None:
    """Print the accuracy curves at some budgets, layer by layer, and what was chosen."""
    from residualign.cli.views import before_name, facts, paragraph
    from residualign.selection.result import ENOUGH

    first = outcome.study
    out.show(
        facts(
            ("model", f"{outcome.model}: {plural(first.n_heads, 'head')}"),
            ("images", f"{first.n_scored:,} val images for the scores, {first.n_images:,} {first.split} for accuracy"),
            ("means", f"of ablated units: {outcome.means_from}"),
        )
    )
    for study in outcome.studies:
        before = before_name(study.classifier)
        others = " besides all MLPs and the embedding" if study.keep_mlps else ""
        out.show(
            "",
            paragraph(
                f"{study.name}: {before} accuracy with every unit is {percent(study.accuracy)}. The table shows "
                f"accuracy in % when only the best heads by a score are kept{others}. Last column: the fewest heads "
                f"that reach {whole_percent(ENOUGH)} of the accuracy with every unit."
            ),
            "",
        )
        out.show(_budgets(study))
    shown = dict.fromkeys(one.score for study in outcome.studies for one in study.summaries)
    out.show("", paragraph("; ".join(f"{name}: {_SCORES[name]}" for name in shown), "quiet"))
    sentence = (
        "Accuracy by layer, %: without its heads, its MLP, or both; of its heads alone; of all heads from it "
        "onward; of everything up to it."
    )
    out.show("", paragraph(sentence), "", _layers(first))
    if len(outcome.studies) > 1:
        out.show("", _overlaps(outcome))
    if outcome.selection is not None:
        out.show("", facts(("adapter", _adapter(outcome))))
    if outcome.request.out is not None:
        out.show("", f"  tables and figures in {outcome.request.out}")


def _budgets(study: SelectionStudy) -> RenderableType:
    """One line per score and ablation, one column per budget."""
    from residualign.cli.views import plain_table
    from residualign.selection.result import ENOUGH

    columns = [("score", False), ("rest", False), *((one.name, True) for one in study.budgets)]
    rows = [("", "heads", *(str(one.n_heads) for one in study.budgets), "")]
    for one in study.summaries:
        enough = one.heads_for(ENOUGH * study.accuracy)
        figures = (f"{100 * one.at(budget.n_heads):.1f}" for budget in study.budgets)
        share = "–" if enough is None else f"{enough} = {100 * enough / study.n_heads:.0f} %"
        rows.append((one.score, one.ablation, *figures, share))
    return plain_table((*columns, (f"for {100 * ENOUGH:.0f} %", True)), rows)


def _layers(study: SelectionStudy) -> RenderableType:
    """One line per layer: what is lost without it, and what its heads are worth alone."""
    from residualign.cli.views import plain_table

    mode = study.layers[0].ablation
    found = {(one.kind, one.layer): 100 * one.accuracy for one in study.layers if one.ablation == mode}
    kinds = ("without heads", "without mlp", "without layer", "heads of layer", "heads from layer", "up to layer")
    titles = ("no heads", "no MLP", "neither", "heads alone", "heads onward", "up to it")
    layers = sorted({layer for _, layer in found if layer is not None})
    rows = [(f"L{layer}", *(f"{found[kind, layer]:.1f}" for kind in kinds)) for layer in layers]
    return plain_table((("layer", False), *((title, True) for title in titles)), rows)


def _overlaps(outcome: SelectOutcome) -> RenderableType:
    """Pairs of data sets at one budget: a tenth of the heads."""
    from residualign.cli.views import plain_table

    count = next(one.n_heads for one in outcome.study.budgets if one.name == "10%")

    def short(name: str) -> str:
        return name.rstrip("/").rsplit("/", 1)[-1]

    rows = [
        (
            f"{short(one.first[0])} · {short(one.second[0])}",
            one.first[1],
            f"{one.jaccard:.2f}",
            f"{one.expected:.2f}",
        )
        for one in outcome.overlaps
        if one.first[0] != one.second[0] and one.n_heads == count
    ]
    title = f"overlap of the best {plural(count, 'head')}"
    return plain_table(((title, False), ("score", False), ("Jaccard", True), ("chance", True)), rows)


def _adapter(outcome: SelectOutcome) -> str:
    chosen = outcome.selection
    assert chosen is not None
    rest = "zero" if chosen.ablation == "zero" else "at its mean"
    heads = plural(len(chosen.heads), "head")
    test, val = percent(chosen.accuracy["adapted"]), percent(chosen.accuracy["val"])
    return f"{outcome.request.adapter}: {heads} by {chosen.score}, the rest {rest}; val {val}, test {test}"
