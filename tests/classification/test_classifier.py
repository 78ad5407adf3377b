from dataclasses import replace

import numpy as np
import pytest
import torch

from residualign.classification.classifier import (
    CoincidentClassesWarning,
    choose_logit_scale,
    class_means,
    text_classifier,
    zero_shot_vectors,
)
from residualign.errors import BadInputError
from tests.reference import classifier_twin as twin

CLASSES, DIM, IMAGES = ("crow", "red fox", "ibis"), 7, 23


def embeddings_and_labels(n=IMAGES):
    labels = torch.arange(n) % len(CLASSES)
    centers = torch.randn(len(CLASSES), DIM, dtype=torch.float64)
    lengths = torch.rand(n, 1, dtype=torch.float64) * 5 + 0.1
    return (centers[labels] + torch.randn(n, DIM, dtype=torch.float64)) * lengths, labels


def encode_text(texts):
    """Vectors that depend on every letter and on the order, of very different lengths."""
    rows = [[sum(ord(c) * (i + 1) ** (j % 3) % (11 + j) for i, c in enumerate(t)) for j in range(DIM)] for t in texts]
    return torch.tensor(rows, dtype=torch.float64) - 40.0


TEMPLATES = ("a {}.", "a blurry photo of a {} outdoors.")


def test_zero_shot_vectors_are_the_twins_whatever_the_batches():
    expected = twin.text_vectors(lambda text: encode_text([text])[0].numpy(), CLASSES, TEMPLATES)
    for batch_size in (1, 4, 256):
        vectors = zero_shot_vectors(encode_text, CLASSES, TEMPLATES, batch_size)
        np.testing.assert_allclose(vectors.numpy(), expected, atol=1e-14)


@pytest.mark.parametrize("template", ["a photo", "a {} and a {}"])
def test_a_template_without_one_place_for_the_name_is_refused(template):
    with pytest.raises(BadInputError, match="template"):
        zero_shot_vectors(encode_text, CLASSES, [template])


def test_logits_are_cosines_times_the_scale_and_ignore_lengths():
    embeddings, _ = embeddings_and_labels()
    vectors = torch.randn(len(CLASSES), DIM, dtype=torch.float64)
    classifier = text_classifier(vectors, CLASSES, 17.0)
    for n in (0, 5):
        for c in (0, 2):
            expected = 17.0 * twin.unit(embeddings[n].numpy()) @ twin.unit(vectors[c].numpy())
            assert classifier.logits(embeddings)[n, c].item() == pytest.approx(expected, abs=1e-13)
    torch.testing.assert_close(classifier.logits(3.7 * embeddings), classifier.logits(embeddings))


def test_class_vectors_that_coincide_warn_and_suggest_means():
    vectors = torch.eye(3, DIM, dtype=torch.float64)
    text_classifier(vectors, CLASSES, 10.0)
    vectors[2] = vectors[1] + 0.01
    with pytest.warns(CoincidentClassesWarning, match="'red fox' and 'ibis'.*--classifier means"):
        text_classifier(vectors, CLASSES, 10.0)


def test_class_means_are_the_twins():
    embeddings, labels = embeddings_and_labels()
    expected = twin.mean_vectors(embeddings.numpy(), labels.tolist(), len(CLASSES))
    np.testing.assert_allclose(class_means(embeddings, labels, CLASSES).vectors.numpy(), expected, atol=1e-14)


def test_leaving_an_image_out_is_the_class_mean_made_without_it():
    embeddings, labels = embeddings_and_labels()
    left_out = class_means(embeddings, labels, CLASSES).leave_one_out(embeddings, labels)
    for i in range(IMAGES):
        expected = twin.mean_vectors(embeddings.numpy(), labels.tolist(), len(CLASSES), leave_out=i)[labels[i]]
        np.testing.assert_allclose(left_out[i].numpy(), expected, atol=1e-13)


def test_leave_one_out_takes_images_in_any_order():
    embeddings, labels = embeddings_and_labels()
    classifier = class_means(embeddings, labels, CLASSES)
    order = torch.randperm(IMAGES)[:11]
    expected = classifier.leave_one_out(embeddings, labels)[order]
    torch.testing.assert_close(classifier.leave_one_out(embeddings[order], labels[order]), expected)


def test_a_single_image_of_a_class_cannot_be_left_out():
    embeddings, _ = embeddings_and_labels(5)
    labels = torch.tensor([0, 0, 1, 2, 2])
    with pytest.raises(BadInputError, match="'red fox' has one training image"):
        class_means(embeddings, labels, CLASSES).leave_one_out(embeddings, labels)


def test_text_vectors_hold_no_images_to_leave_out():
    embeddings, labels = embeddings_and_labels()
    with pytest.raises(BadInputError, match="needs class means"):
        text_classifier(torch.eye(3, DIM), CLASSES, 1.0).leave_one_out(embeddings, labels)


def test_a_class_without_images_is_named():
    embeddings, _ = embeddings_and_labels(4)
    with pytest.raises(BadInputError, match="'red fox' has no training image"):
        class_means(embeddings, torch.tensor([0, 2, 2, 0]), CLASSES)


def test_a_label_without_a_name_is_refused():
    embeddings, _ = embeddings_and_labels(4)
    with pytest.raises(BadInputError, match="label 3 has no name"):
        class_means(embeddings, torch.tensor([0, 1, 2, 3]), CLASSES)


def test_the_chosen_scale_has_the_least_cross_entropy_and_is_found_again():
    embeddings, labels = embeddings_and_labels(211)
    classifier = class_means(embeddings, labels, CLASSES)
    val, val_labels = embeddings_and_labels(101)
    # the same classes, so that the scale has an inside optimum
    val = embeddings[:101] + 0.5 * val
    val_labels = labels[:101]
    chosen = choose_logit_scale(classifier, val, val_labels)

    def loss(scale):
        return twin.cross_entropy(replace(classifier, logit_scale=scale).logits(val).numpy(), val_labels.numpy())

    for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2.0):
        assert loss(chosen.logit_scale) < loss(chosen.logit_scale * factor)
    assert 1.0 < chosen.logit_scale < 1000.0
    assert choose_logit_scale(classifier, val, val_labels).logit_scale == chosen.logit_scale


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_no_positive_number_is_refused(scale):
    with pytest.raises(BadInputError, match="logit scale"):
        text_classifier(torch.eye(3, DIM), CLASSES, scale)


def test_as_many_vectors_as_classes():
    with pytest.raises(BadInputError, match="one class vector for each of 3"):
        text_classifier(torch.eye(2, DIM), CLASSES, 1.0)
