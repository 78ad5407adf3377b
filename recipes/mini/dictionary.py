"""The dictionary that comes with mini: the package's descriptions that use only words in mini's captions."""

import argparse
from pathlib import Path

from recipes.dictionary.phrases import sections
from recipes.mini.attribute_dictionary import of_words, taught_words


def text() -> str:
    """The file: sections with their remaining descriptions, in the order of the whole dictionary."""
    left = of_words(sections(), taught_words())
    parts = ["# " + name + "\n" + "".join(f"{line}\n" for line in lines) for name, lines in left.items() if lines]
    return "\n".join(parts)


def main() -> None:
    """Write dictionary.txt into a model directory."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("model", type=Path)
    path = parser.parse_args().model / "dictionary.txt"
    path.write_text(text(), encoding="utf-8", newline="\n")
    lines = [line for line in text().splitlines() if line and not line.startswith("#")]
    print(f"{path.name}: {len(lines)} descriptions, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
