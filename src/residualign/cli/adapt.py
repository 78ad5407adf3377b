"""Terminal output of `residualign adapt`: the images used, every method and the linear probe, and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residualign.cli.console import Out

if TYPE_CHECKING:
    from residualign.classification.classifier import LinearProbe
    from residualign.cli.views import MethodLine
    from residualign.inputs.spectra import ChosenSpectra
    from residualign.runs.results import AdaptOutcome, MethodResult

__all__ = ["accuracy_interval", "before_line", "probe_line", "result_line", "show"]


def show(out: Out, outcome: AdaptOutcome) -> None:
    """Print the outcome."""
    from residualign._messages import listed, plural, shell_word
    from residualign.cli.views import facts, method_line

    store, chosen, spectra = outcome.store, outcome.chosen, outcome.spectra
    used = " · ".join(f"{name} {size:,}" for name, size in outcome.sizes.items())
    few = "" if outcome.shots is None else f" ({plural(outcome.shots, 'shot')} per class)"
    lines = [method_line(None, out.stdout), method_line(before_line(chosen), out.stdout)]
    lines += [method_line(result_line(one), out.stdout, marked=one is chosen) for one in outcome.results]
    if outcome.probe is not None:
        lines.append(method_line(probe_line(outcome.probe, chosen.n_test), out.stdout))
    folder = shell_word(outcome.out)
    best = f", {chosen.method}: {_why(outcome)}" if len(outcome.results) > 1 else ""
    words = (("templates", listed(store.templates)),) if chosen.classifier == "text" and store.templates else ()
    out.show(
        facts(
            ("model", str(store.model["name"])),
            ("data", f"{store.data['name']}: {used}{few}"),
            *words,
            ("components", _components(spectra)),
            ("sum check", f"units sum to the model's output within {store.residual_error:.0e}"),
        ),
        "",
        *lines,
        "",
        facts(
            ("adapter", f"{outcome.out}{best}"),
            (
                "store",
                f"{store.path}, kept: `residualign adapt {shell_word(store.path)} --out ...` fits again without the "
                "images",
            ),
            ("next", f"residualign report {folder}  (a page that shows what was learned)"),
            ("", f"residualign classify {folder} IMAGE..."),
        ),
    )


def _components(chosen: ChosenSpectra) -> str:
    """Which images the components are of; their number where the source does not say it."""
    from residualign._messages import plural

    found = chosen.spectra
    images = "" if str(found.n_samples) in str(found.source) else f" ({plural(found.n_samples, 'image')})"
    whose = {
        "given": "of --reference",
        "shipped": "that come with the model",
        "training split": "of the training split",
    }
    return f"{whose[chosen.kind]}: {found.source}{images}"


def _why(outcome: AdaptOutcome) -> str:
    """Why this of the methods is the adapter: the best on validation images, of equals the smallest."""
    best = max(one.accuracy.val or 0.0 for one in outcome.results)
    tied = sum((one.accuracy.val or 0.0) == best for one in outcome.results) > 1
    return "the best validation accuracy" + (", with the fewest parameters" if tied else "")


def before_line(result: MethodResult) -> MethodLine:
    """The classifier before adapting."""
    from residualign.cli.views import MethodLine, before_name

    name, test = before_name(result.classifier), result.accuracy.zero_shot
    # runs of earlier versions do not record the second
    return MethodLine(name, test, accuracy_interval(test, result.n_test), result.accuracy.zero_shot_val)


def result_line(result: MethodResult) -> MethodLine:
    """A fitted method."""
    from residualign.cli.views import MethodLine

    test = result.accuracy.adapted
    spread = accuracy_interval(test, result.n_test)
    return MethodLine(result.method, test, spread, result.accuracy.val, result.parameters, result.seconds)


def probe_line(probe: LinearProbe, n_test: int) -> MethodLine:
    """The linear probe on the same images."""
    from residualign.cli.views import MethodLine

    spread = accuracy_interval(probe.accuracy, n_test)
    return MethodLine("linear probe", probe.accuracy, spread, probe.val_accuracy, probe.parameters, probe.seconds)


def accuracy_interval(accuracy: float | None, n: int) -> tuple[float, float] | None:
    """The 95 % interval of an accuracy over n images."""
    from residualign.classification.evaluation import wilson_interval

    return None if accuracy is None or n == 0 else wilson_interval(round(accuracy * n), n)
