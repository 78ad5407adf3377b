"""The model card saved with an adapter: a README in the Hugging Face format."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from residualign._messages import visible
from residualign.units import Unit

__all__ = ["escape", "model_card"]

_SHOWN_CLASSES = 100
_HUB_ID = re.compile(r"(hf:)?(?P<id>[\w.-]+/[\w.-]+)")

_NAMES = {"n_train": "training images", "threshold": "variance threshold", "shots": "images per class"}

_METHODS = {
    "residual": "one scale for every principal component of every attention head and MLP",
    "residual-heads": "one scale for each leading principal component of the attention heads; all else is left out",
    "coarse": "one scale for every attention head; all else is left out",
    "spectral-output": "one scale for every principal component of the image embedding",
    "linear": "a linear map and a bias on the image embedding",
    "joint": "one scale for every principal component of every attention head and MLP, and a step per class vector",
}


_CARD = """\
---
library_name: residualign
pipeline_tag: image-classification
{base}tags:
- residualign
- image-classification
- {method_tag}
---

# {method} adapter for {model}

Classifies images into {n_classes} classes with the frozen encoder {model}. {what} The encoder's weights are not \
changed and not included.

{accuracy}## Use

```python
import residualign as ra

adapter = ra.load_adapter("this/folder")
adapter.predict(["image.jpg"])
```

A different model, revision or preprocessing is refused. The model is loaded by the name above; if it has moved, give \
its new place: `ra.load_adapter(folder, model=...)`.

## How it was made

| | |
|---|---|
{facts}

ResiDual (arXiv 2411.00246) writes the image embedding as an exact sum of contributions of all attention heads and \
MLPs; the scales act on the principal components of each contribution.

## Limits

It knows only the classes below: every image gets one of them. Probabilities are calibrated at best on images like \
those it was fitted on. Biases of the encoder remain.

Classes: {classes}
"""

_ACCURACY = """\
## Accuracy

| | accuracy | images |
|---|---|---|
{rows}

Settings were chosen on the validation images, so their accuracy is not an estimate for new images.

"""


def escape(text: str) -> str:
    """Text on one line that Markdown shows verbatim, in running text and in tables."""
    flat = visible(" ".join(text.split()))
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|~&$:@=^])", r"\\\1", flat)


def model_card(config: Mapping[str, Any]) -> str:
    """The card of an adapter with this config. Equal configs give equal cards."""
    classes = [escape(name) for name in config["class_names"]]
    more = len(classes) - _SHOWN_CLASSES
    name = str(config["model"].get("name"))
    hub = _HUB_ID.fullmatch(name)
    facts = [(key, escape(str(value))) for key, value in _facts(config).items() if value is not None]
    return _CARD.format(
        # a JSON string is a YAML string, whatever it holds
        base=f"base_model: {json.dumps(hub['id'])}\n" if hub else "",
        method_tag=json.dumps(config["method"]),
        method=escape(config["method"]),
        model=escape(name),
        n_classes=len(classes),
        what=_what(config),
        accuracy=_accuracy(config),
        facts=_rows(facts),
        classes=", ".join(classes[:_SHOWN_CLASSES])
        + (f" and {more} more (in `adapter_config.json`)" if more > 0 else ""),
    )


def _what(config: Mapping[str, Any]) -> str:
    """What was learned, in one sentence."""
    if config["method"] == "select":
        heads = sum(Unit.parse(label).kind == "head" for label, *_ in config["units"])
        rest = "replaced by its mean" if config["rest"] == "mean" else "left out"
        others = "every other unit is" if len(config["units"]) == heads else "every other head is"
        return f"Nothing was learned: {heads} attention heads are kept as they are, {others} {rest}."
    return f"Learned: {_METHODS[config['method']]} ({config['parameters']:,} numbers)."


def _accuracy(config: Mapping[str, Any]) -> str:
    """The section on accuracy; empty where none was measured."""
    accuracy, settings = config["accuracy"], config["settings"]
    before = "class means" if config["classifier"] == "means" else "zero-shot"
    rows = [
        (f"test, {before}, before adapting", accuracy.get("zero_shot"), settings.get("n_test")),
        ("test, adapted", accuracy.get("adapted"), settings.get("n_test")),
        ("validation, adapted", accuracy.get("val"), settings.get("n_val")),
    ]
    known = [(what, f"{value:.4f}", "" if n is None else n) for what, value, n in rows if value is not None]
    return _ACCURACY.format(rows=_rows(known)) if known else ""


def _facts(config: Mapping[str, Any]) -> dict[str, Any]:
    spectra, settings, model = config["spectra"], config["settings"], config["model"]
    choices = {key: settings.get(key) for key in ("solver", "shots", "start", "threshold", "seed", "n_train")}
    return {
        "method": config["method"],
        "model": model.get("name"),
        "model fingerprint": model.get("fingerprint"),
        "principal components from": spectra.get("source"),
        "spectra fingerprint": spectra.get("fingerprint"),
        "images the components were computed on": spectra.get("n_samples"),
        "class vectors from": {"text": "text", "means": "means of training images"}[config["classifier"]],
        "logit scale": config["logit_scale"],
        "unit means": config["mean"],
        "what is not scaled": config["rest"],
        "epochs": config["epochs"],
        "learning rate": config["learning_rate"],
        **{_NAMES.get(key, key): value for key, value in choices.items()},
    }


def _rows(cells: Iterable[Sequence[Any]]) -> str:
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in cells)
