"""Terminal output of `residualign demo`: each part as soon as it is done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from residualign._messages import percent, shell_word
from residualign.cli.classify import decided
from residualign.cli.console import Out
from residualign.cli.views import (
    facts,
    first_and_last,
    has_blocks,
    heading,
    method_line,
    paragraph,
    seconds,
    share_bars,
)

if TYPE_CHECKING:
    from PIL import Image

    from residualign.commands.demo import DemoOutcome, Example
    from residualign.store import Store

__all__ = ["Story", "draw", "show"]

_STORY = (
    "An image embedding is an exact sum of what the units of the encoder add: every attention head, every MLP, and the "
    "embedding of the patches. ResiDual learns one scale per principal component of these units. The encoder stays "
    "frozen, and one pass over the images is all it takes."
)

_YOURS = (
    "FOLDER contains one folder of images per class. In place of mini, give any CLIP or ViT in transformers format: a "
    "directory, or a hub id such as openai/clip-vit-base-patch32."
)

_PROBE = "The linear probe is a baseline: logistic regression on the same embeddings."

_N_HEADS = 3


def show(story: Out, outcome: DemoOutcome) -> None:
    """Print what follows the methods: heads, examples, and what to do next."""
    from residualign.runs.results import head_shares

    adapted = outcome.adapted
    residual = next((result for result in adapted.results if result.method == "residual"), adapted.chosen)
    heads, spectra = head_shares(residual), adapted.spectra.spectra
    shown = first_and_last(heads, _N_HEADS)
    story.show(
        heading("Which heads were amplified, and which suppressed"),
        "",
        share_bars([(head.label, head.before, head.after) for head in shown], story.stdout, "head"),
        "",
        paragraph(
            f"Shares of the variance of all {len(heads)} heads over the {spectra.n_samples:,} images that the "
            f"principal components come from ({spectra.source}). L0.H1 is head 1 of layer 0.",
            style="quiet",
        ),
        "",
        heading("Some test images"),
        "",
    )
    for example in outcome.examples:
        _show_example(story, example)
    folder = str(adapted.out)
    story.show(
        heading("The adapter"),
        "",
        facts(
            ("folder", f"{folder}, {_size(adapted.out)} without the store of the pass"),
            ("method", f"{adapted.chosen.method}; the adapter of every method is in {folder}/methods"),
            ("page", f"residualign report {shell_word(folder)} makes a page that shows what was learned"),
        ),
        "",
        heading("Your own images"),
        "",
        facts(
            ("1", "residualign adapt mini FOLDER --out my-adapter"),
            ("2", "residualign classify my-adapter IMAGE..."),
            ("3", "residualign evaluate my-adapter FOLDER"),
        ),
        "",
        paragraph(_YOURS, style="quiet"),
        "",
    )


class Story(Out):
    """Prints each part as soon as it is done."""

    _n_test = 0
    _has_rows = False

    def __init__(self, as_json: bool) -> None:
        super().__init__(as_json)
        # printed before torch is loaded, which takes seconds
        self.show("", paragraph(_STORY), "")

    def done(self, result: object, duration: float) -> None:
        """Show what has just been finished."""
        from residualign.classification.classifier import LinearProbe
        from residualign.cli.adapt import before_line, probe_line, result_line
        from residualign.runs.results import MethodResult
        from residualign.store import Store

        if isinstance(result, Store):
            self._show_pass(result, duration)
        elif isinstance(result, MethodResult):
            if not self._has_rows:
                self._has_rows, self._n_test = True, result.n_test
                self.show(heading("Accuracy on validation and test images, before and after learning the scales"), "")
                self.show(method_line(None, self.stdout), method_line(before_line(result), self.stdout))
            self.show(method_line(result_line(result), self.stdout))
        elif isinstance(result, LinearProbe):
            self.show(method_line(probe_line(result, self._n_test), self.stdout))
            self.show("", paragraph(_PROBE, style="quiet"), "")

    def _show_pass(self, store: Store, duration: float) -> None:
        sizes = {name: len(store.split(name)) for name in store.splits}
        units = store.units
        kinds = f"{units.n_layers} layers x {units.n_heads} heads, {units.n_layers} MLPs, 1 embedding"
        error = store.residual_error
        self.show(
            heading("One pass over the images"),
            "",
            facts(
                ("model", "mini, a small CLIP inside this package; trained on generated images only"),
                ("data", f"digits, {sum(sizes.values()):,} real handwritten digits of 8 x 8 pixels"),
                ("splits", " · ".join(f"{name} {size:,}" for name, size in sizes.items())),
                ("units", f"{len(units)} = {kinds}"),
                ("sum check", f"the units sum to the model's output within {error:.0e}"),
                ("time", seconds(duration) if duration > 0.5 else "none: the store was already complete"),
            ),
            "",
        )


def _show_example(story: Out, example: Example) -> None:
    verdict = example.verdict
    right = example.truth == verdict.label
    texts = (
        Text.assemble(
            ("adapted    ", "quiet"),
            (verdict.label, "good" if right else "bad"),
            f"  {percent(verdict.probability)}",
        ),
        Text.assemble(("zero-shot  ", "quiet"), example.before),
        Text.assemble(("truth      ", "quiet"), example.truth),
        Text.assemble(("heads      ", "quiet"), decided(verdict.decided_by)),
    )
    for picture, text in zip(draw(example.image, story.stdout), texts, strict=True):
        story.show(Text.assemble("  ", picture, "   ", text))
    story.show("")


def _size(folder: Path) -> str:
    from residualign.runs.folder import ADAPTER_FILES

    return f"{sum((folder / name).stat().st_size for name in ADAPTER_FILES) / 1e6:.1f} MB"


_ASCII = " .:-=+*#%@"


_HALVES = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}


def draw(image: Image.Image, console: Console, side: int = 8) -> list[Text]:
    """The lines of a square picture, `side` cells wide and half as many lines high.

    In gray on a terminal with colors, in black and white without, in ASCII if the encoding lacks block characters.
    """
    from PIL import Image

    gray = image.convert("L").resize((side, side), Image.Resampling.BOX)
    pixels = [[int(gray.getpixel((x, y))) for x in range(side)] for y in range(side)]  # type: ignore[arg-type]
    pairs = [list(zip(pixels[y], pixels[y + 1], strict=True)) for y in range(0, side, 2)]
    if not has_blocks(console):
        return [Text("".join(_ASCII[(top + bottom) * 9 // 510] for top, bottom in row)) for row in pairs]
    if console.color_system is None or console.no_color:
        return [Text("".join(_HALVES[top > 100, bottom > 100] for top, bottom in row)) for row in pairs]
    return [Text.assemble(*(("▀", f"rgb({t},{t},{t}) on rgb({b},{b},{b})") for t, b in row)) for row in pairs]
