import pytest
import torch
from sklearn.linear_model import LogisticRegression

from residualign.classification.classifier import linear_probe
from residualign.errors import BadInputError

DIM, CLASSES = 7, 3


def split(n, seed):
    g = torch.Generator().manual_seed(seed)
    centers = torch.randn(CLASSES, DIM, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(n) % CLASSES
    return (centers[labels] + torch.randn(n, DIM, generator=g)) * (1 + labels[:, None]), labels


def test_the_chosen_probe_is_scikit_learns_on_unit_embeddings():
    train, val, test = split(83, 1), split(41, 2), split(59, 3)
    probe = linear_probe(train, val, test, strengths=(0.01, 1.0, 100.0))

    def unit(part):
        return (part[0].double() / part[0].double().norm(dim=-1, keepdim=True)).numpy()

    scores = {}
    for strength in (0.01, 1.0, 100.0):
        model = LogisticRegression(C=strength, max_iter=300).fit(unit(train), train[1].numpy())
        scores[strength] = model.score(unit(val), val[1].numpy()), model.score(unit(test), test[1].numpy())
    best = max(scores, key=lambda strength: (scores[strength][0], -strength))
    assert (probe.strength, probe.val_accuracy, probe.accuracy) == (best, *scores[best])
    assert [probe.to_json()[name] for name in ("accuracy", "val", "strength")] == [
        scores[best][1],
        scores[best][0],
        best,
    ]
    assert probe.parameters == CLASSES * DIM + CLASSES


def test_without_test_images_there_is_no_accuracy():
    assert linear_probe(split(31, 1), split(17, 2), strengths=(1.0,)).accuracy is None


def test_one_class_is_refused():
    embeddings, labels = split(31, 1)
    with pytest.raises(BadInputError, match="two classes"):
        linear_probe((embeddings, labels * 0), split(17, 2))
