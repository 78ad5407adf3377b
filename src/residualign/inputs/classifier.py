"""The classifier that was asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from residualign._messages import listed, plural
from residualign._progress import Progress
from residualign.classification.classifier import Classifier, ClassifierKind, text_classifier, zero_shot_vectors
from residualign.data.prompts import DEFAULT_TEMPLATE, read_prompts, rename_classes
from residualign.errors import BadInputError
from residualign.inputs.options import WordOptions
from residualign.inputs.subject import Subject
from residualign.store import Store

if TYPE_CHECKING:
    from residualign.models.vision_model import VisionModel

__all__ = ["chosen_classifier", "classifier_kind", "refuse_lonely_classes", "warn_of_unknown_words"]


def chosen_classifier(
    words: WordOptions, subject: Subject, store: Store, progress: Progress
) -> Classifier | ClassifierKind | None:
    """The classifier asked for: its kind, or, with new words for a store, one made by the text tower.

    New words for a model and data are already in the store that was made of them.
    """
    if subject.data is not None or (words.classes is None and not words.template):
        return words.classifier
    if words.classifier == "means":
        raise BadInputError(
            "--classes and --template change class vectors from text; they cannot be combined with --classifier means "
            "on a store"
        )
    names, templates = read_prompts(words.classes, words.templates)
    class_names = rename_classes(store.class_names, names)
    model = subject.model()
    if model.logit_scale is None:
        raise BadInputError(f"model {model.name!r} has no text tower, so --classes and --template have no effect")
    templates = templates or store.templates or (DEFAULT_TEMPLATE,)
    warn_of_unknown_words(model, class_names, templates, progress)
    vectors = zero_shot_vectors(model.encode_text, class_names, templates)
    return text_classifier(vectors, class_names, model.logit_scale, model.logit_bias)


def classifier_kind(classifier: Classifier | str | None, store: Store) -> str:
    """The kind of what `chosen_classifier` gives; None is text where the store has class vectors from text."""
    if classifier is None:
        return "means" if store.text_vectors is None else "text"
    return classifier if isinstance(classifier, str) else classifier.kind


def refuse_lonely_classes(subject: Subject, classifier: ClassifierKind | None) -> None:
    """Refuse a class of one image before the pass: class means leave one image out while fitting."""
    if subject.data is None or (classifier != "means" and subject.model().has_text):
        return
    names = subject.data.class_names
    lonely = [name for name, n in zip(names, subject.data.train.class_counts(len(names)), strict=True) if n == 1]
    if lonely:
        raise BadInputError(
            f"class {lonely[0]!r} has only one training image, but class means leave one image out while fitting; "
            "give at least two images per class, or use a model with a text tower"
        )


def warn_of_unknown_words(
    model: VisionModel, class_names: Sequence[str], templates: Sequence[str], progress: Progress
) -> None:
    """Warn of class names that the text tower does not know, and of numbers and wnids in the default template."""
    numbers = [name for name in class_names if re.fullmatch(r"n?\d+", name.strip())]
    if 2 * len(numbers) > len(class_names) and tuple(templates) == (DEFAULT_TEMPLATE,):
        progress.warn(
            f"{plural(len(numbers), 'class name')} of {len(class_names)} ({listed(numbers)}) are numbers, which the "
            "text tower reads as they are: give the words with --classes, or use --classifier means"
        )
    unknown = model.unknown_words(list(class_names))
    if unknown:
        progress.warn(
            f"the text tower of {model.name!r} does not know {len(unknown)} of {len(class_names)} class names "
            f"({listed(unknown)}); consider --classifier means"
        )
