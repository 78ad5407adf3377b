"""Write the dictionary included in the package: `python -m recipes.dictionary`."""

from pathlib import Path

from recipes.dictionary.phrases import sections, text

PATH = Path(__file__).parents[2] / "src/residualign/text/dictionary.txt"


def main() -> None:
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_text(text(), encoding="utf-8", newline="\n")
    count = {name: len(phrases) for name, phrases in sections().items()}
    print(f"{PATH.name}: {sum(count.values()):,} descriptions in {len(count)} sections, {PATH.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
