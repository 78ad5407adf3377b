"""Captions say only what is true, and the truth table agrees with a plain loop."""

import re

import pytest
import torch
from recipes.mini.attributes import COLORS, COLUMN, DIGIT_WORDS, NAMES, SHAPES, UNDEFINED, VALUES, empty, true_of
from recipes.mini.captions import article, plural
from recipes.mini.generate import Batch, generate


@pytest.fixture(scope="module")
def batch() -> Batch:
    return generate(seed=2, index=3, n=997, size=8)


def test_every_claim_is_true_of_one_view_of_its_image(batch: Batch) -> None:
    said = batch.claims != UNDEFINED
    agrees = ((batch.claims[:, None] == batch.views) | ~said[:, None]).all(-1)
    assert agrees.any(1).all()
    assert said.any(1).float().mean() > 0.99


def test_words_of_a_caption_are_in_its_claim(batch: Batch) -> None:
    """Reads the text itself: a shape, color or digit named in it is one of those that the claim mentions."""
    for text, claim in zip(batch.captions, batch.claims.tolist(), strict=True):
        mentioned = {VALUES[n][claim[COLUMN[n]]] for n in NAMES if claim[COLUMN[n]] != UNDEFINED}
        found = set(re.findall(r"\w+", text))
        for color in found & set(COLORS):
            assert color in mentioned, text
        for shape in SHAPES:
            if re.search(rf"\b({shape}|{plural(shape)})\b", text):
                assert shape in mentioned, text
        for figure, word in enumerate(DIGIT_WORDS):
            if {str(figure), word} & found:
                # a count is said in figures, too: "2 circles"
                assert {str(figure), word} & mentioned, text


def test_truth_table_equals_a_plain_loop(batch: Batch) -> None:
    n = 131
    fast = true_of(batch.claims[:n], batch.views[:n])
    for i in range(n):
        for j in range(n):
            claim = batch.claims[j].tolist()
            slow = any(
                all(c in (UNDEFINED, v) for c, v in zip(claim, batch.views[i, view].tolist(), strict=True))
                for view in (0, 1)
            )
            assert fast[i, j] == slow, (batch.captions[j], batch.truth(i))
    assert fast.diagonal().all()
    assert 0.005 < fast.float().mean() < 0.2


def test_a_claim_must_hold_within_one_view() -> None:
    views = empty(2).view(1, 2, -1).clone()
    views[0, 0, COLUMN["shape"]], views[0, 0, COLUMN["color"]] = 1, 2
    views[0, 1, COLUMN["shape"]], views[0, 1, COLUMN["color"]] = 3, 4
    claims = empty(3)
    claims[0, COLUMN["shape"]], claims[0, COLUMN["color"]] = 3, 4
    claims[1, COLUMN["shape"]], claims[1, COLUMN["color"]] = 1, 4  # the color of the other object
    assert true_of(claims, views).tolist() == [[True, False, True]]  # the last says nothing


def test_captions_are_many_and_some_repeat(batch: Batch) -> None:
    assert 150 < len(set(batch.captions)) < 0.85 * len(batch.captions)
    assert any("handwritten" in c for c in batch.captions)
    assert any("background" in c for c in batch.captions)


@pytest.mark.parametrize(
    ("noun", "expected"),
    [("8", "an 8"), ("one", "a one"), ("oval", "an oval"), ("3", "a 3"),
     ("uppercase letter b", "an uppercase letter b"),
     ("hexagon", "a hexagon"), ("up arrow", "an up arrow")],
)  # fmt: skip
def test_article(noun: str, expected: str) -> None:
    assert article(noun) == expected


def test_identity_captions_leave_little_to_chance(batch: Batch) -> None:
    """Most captions of single digits name the digit."""
    digits = batch.views[:, :, COLUMN["digit"]].amax(1) >= 0
    named = torch.stack([batch.claims[:, COLUMN[n]] >= 0 for n in ("digit", "other_digit")]).any(0)
    assert named[digits].float().mean() > 0.75
