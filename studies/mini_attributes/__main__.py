"""What each head of `mini` represents, compared with the ground truth, and whether its words are right.

`python -m studies.mini_attributes --json proof.json --out proof`
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from recipes.dictionary.phrases import sections
from recipes.mini.attribute_dictionary import Dictionary, of_words, taught_words, value_vectors
from recipes.mini.attribute_truth import MAIN, MIN_IMAGES, OTHERS, attribute

import residualign as ra
from residualign._files import plain
from studies.mini_attributes.figures import figures
from studies.mini_attributes.measure import (
    UnitScore,
    candidates,
    score,
    spectra_of,
    trace,
    unit_coefficients,
)
from studies.mini_attributes.results import AttributeProof, AttributeResult
from studies.mini_attributes.scores import linear_score
from studies.mini_attributes.tables import markdown
from studies.mini_attributes.words import Candidate, agreement

MODEL = Path(__file__).parents[2] / "src/residualign/models/mini"
# training has seed 0, the shipped spectra 411, the tokenizer's captions 2**20
SEED = 811
N_IMAGES = 8192
TOP_COMPONENTS = 10


def prove(
    n_images: int = N_IMAGES,
    seed: int = SEED,
    mix: str = "general",
    names: Sequence[str] = (*MAIN, *OTHERS),
    min_images: int = MIN_IMAGES,
) -> AttributeProof:
    """Generate, run mini once, and score every head and MLP.

    Components are those of the shipped spectra, computed from other images. Values with fewer than `min_images` images
    are left out, and so are attributes with fewer than two values. About two minutes on one core for 8,192 images and
    all attributes.
    """
    model = ra.load_model("mini")
    spectra, traced = spectra_of(MODEL), trace(model, n_images, seed, mix)
    attributes = [of for of in (attribute(name, traced.views, min_images) for name in names) if len(of.values) > 1]
    if not attributes:
        raise ra.BadInputError(
            f"no attribute has two values with {min_images} images each among {n_images:,} images; the proof takes "
            f"{N_IMAGES:,} by default"
        )
    everything = sections()
    dictionaries = [
        Dictionary.encode("whole dictionary", everything, model.encode_text),
        Dictionary.encode("words of its captions", of_words(everything, taught_words()), model.encode_text),
    ]
    scores: dict[str, list[UnitScore]] = {of.name: [] for of in attributes}
    found: dict[str, list[Candidate]] = {of.name: [] for of in attributes}
    for unit, spectrum, values in unit_coefficients(traced, spectra):
        ratio = spectrum.explained_variance_ratio.double().numpy()
        for of in attributes:
            scores[of.name].append(score(values, ratio, unit.label, of, seed))
            if unit.kind == "head":
                found[of.name] += candidates(values, spectrum, unit.label, of)
    output = traced.coordinates.output.numpy()
    results = []
    for of in attributes:
        best = sorted(found[of.name], key=lambda candidate: -candidate.eta_squared)[:TOP_COMPONENTS]
        captions = value_vectors(of, model.encode_text)
        words = agreement(of, best, captions, dictionaries, seed)
        heads = (unit for unit in scores[of.name] if spectra.units.get(unit.unit).kind == "head")
        largest = max(heads, key=lambda unit: unit.variance_share).unit
        first = next(candidate for candidate in found[of.name] if candidate.unit == largest)
        whole = linear_score(output[of.shown], of.labels[of.shown], seed)
        shown = agreement(of, [first], captions, dictionaries, seed).components[0]
        results.append(AttributeResult(of, whole, tuple(scores[of.name]), words, shown))
    return AttributeProof(n_images, seed, mix, spectra.source, tuple(results))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=N_IMAGES)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--mix", default="general")
    parser.add_argument("--attributes", nargs="+", choices=(*MAIN, *OTHERS), default=(*MAIN, *OTHERS), metavar="NAME")
    parser.add_argument("--json", type=Path, help="output file for everything measured")
    parser.add_argument("--out", type=Path, help="output directory for figures")
    args = parser.parse_args()
    try:
        proof = prove(args.images, args.seed, args.mix, args.attributes)
    except ra.BadInputError as error:
        parser.error(str(error))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(plain(proof.to_json()), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        for name, figure in figures(proof).items():
            figure.savefig(args.out / f"{name}.png", dpi=150, bbox_inches="tight")
    print(markdown(proof))


if __name__ == "__main__":
    main()
