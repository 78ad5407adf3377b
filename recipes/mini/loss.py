"""A contrastive loss in which a caption that is true of an image is never used as its negative."""

import torch
from torch import Tensor
from torch.nn.functional import normalize, softplus


def contrastive_loss(images: Tensor, texts: Tensor, own: Tensor, true: Tensor, scale: Tensor) -> Tensor:
    """Mean over both directions of -log(own / (own + false ones)).

    images: (image, dim); texts: (caption, dim), unique captions; own: (image,) index of each image's caption; true:
    (image, caption) booleans, which captions are true of which images (`attributes.true_of`); scale: the factor of the
    cosines. An image is compared with its own caption and the false ones, a caption with its own image and those it is
    false of. Other true pairs are not used.
    """
    logits = scale * normalize(images, dim=-1) @ normalize(texts, dim=-1).T
    rows = torch.arange(logits.shape[0], device=logits.device)
    positive = logits[rows, own]
    false = logits.masked_fill(true, float("-inf"))
    by_image = softplus(false.logsumexp(1) - positive)
    by_text = softplus(false.logsumexp(0)[own] - positive)
    return (by_image.mean() + by_text.mean()) / 2
