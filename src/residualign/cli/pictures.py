"""Small grey pictures in a terminal, two pixels a character cell."""

from __future__ import annotations

from PIL import Image
from rich.console import Console
from rich.text import Text

from residualign.cli.views import has_blocks

__all__ = ["draw"]

_ASCII = " .:-=+*#%@"
_HALVES = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}


def draw(image: Image.Image, console: Console, side: int = 8) -> list[Text]:
    """The lines of a square picture, `side` cells wide and half as many lines high.

    In grey where the terminal has colours, black and white where it has none, in ASCII where the encoding lacks blocks.
    """
    grey = image.convert("L").resize((side, side), Image.Resampling.BOX)
    pixels = [[int(grey.getpixel((x, y))) for x in range(side)] for y in range(side)]  # type: ignore[arg-type]
    pairs = [list(zip(pixels[y], pixels[y + 1], strict=True)) for y in range(0, side, 2)]
    if not has_blocks(console):
        return [Text("".join(_ASCII[(top + bottom) * 9 // 510] for top, bottom in row)) for row in pairs]
    if console.color_system is None or console.no_color:
        return [Text("".join(_HALVES[top > 100, bottom > 100] for top, bottom in row)) for row in pairs]
    return [Text.assemble(*(("▀", f"rgb({t},{t},{t}) on rgb({b},{b},{b})") for t, b in row)) for row in pairs]
