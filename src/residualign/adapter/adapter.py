"""What is shipped: an adapter predicts with the frozen model, its lambdas and its class vectors."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from residualign.adapter.card import model_card
from residualign.adapter.compact import CompactScaling
from residualign.adapter.files import AdapterFiles, from_files, read_adapter, to_config, to_tensors, write_adapter
from residualign.adapter.fold import FactoredMap, FoldedMap, fold
from residualign.classification.classifier import Classifier
from residualign.decomposition.coordinates import Coordinates, UnitMaps
from residualign.errors import BadInputError
from residualign.fitting.coefficients import Scaling

if TYPE_CHECKING:
    from residualign.fitting.fit import Fitted
    from residualign.models.vision_model import VisionModel
    from residualign.spectrum.spectrum import Spectra
    from residualign.store import Store

__all__ = ["Adapter", "adapter_from_fit", "load_adapter"]

_Batch = Tensor | Sequence[Image.Image | str | os.PathLike[str]]
# a single image is admitted by the types so that it can be refused by a sentence
Images = _Batch | Image.Image


@dataclass(eq=False)
class Adapter:
    """A fitted method that classifies images with the frozen model it was fitted on.

    classifier: class vectors and logit scale for adapted embeddings; base_classifier: those before adapting. learned:
    what was fitted, float32: `lambdas` joined over units, or `map` (dim, dim) and `bias` (dim,). accuracy: shares in
    [0, 1] or None, as measured while fitting. parameters: learned scales and weights, nothing else. spectra: source,
    fingerprint and n_samples of the components. model_info: name, fingerprint, sizes, preprocessing and dtype of the
    model.

    An adapter needs its model only to look at images: it is loaded by name when it is first used (on `device`, in
    `dtype`) and refused where it is another one.
    """

    method: str
    scaling: CompactScaling
    learned: Mapping[str, Tensor]
    classifier: Classifier
    base_classifier: Classifier
    accuracy: dict[str, float | None]
    parameters: int
    epochs: int
    learning_rate: float | None
    history: tuple[dict[str, Any], ...]
    settings: dict[str, Any]
    spectra: dict[str, Any]
    model_info: dict[str, Any]
    device: str = "cpu"
    dtype: str = "float32"
    _model: VisionModel | None = field(default=None, repr=False)
    _store_maps: UnitMaps | None = field(default=None, repr=False)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the columns of `predict_proba`."""
        return self.classifier.class_names

    @property
    def lambdas(self) -> Mapping[str, Tensor]:
        """Lambdas of every scaled unit under its label, (component,); empty for `linear`."""
        return self.scaling.split(self.learned["lambdas"]) if "lambdas" in self.learned else {}

    @property
    def model(self) -> VisionModel:
        """The frozen model, loaded when first asked for. `BadInputError` where it is absent or another one."""
        if self._model is None:
            from residualign.load import load_model

            name = str(self.model_info.get("name"))
            try:
                model = load_model(name, device=self.device, dtype=self.dtype)
            except BadInputError as error:
                raise BadInputError(f"{error} (where the model has moved, give its new place as `model`)") from error
            self.attach(model)
        assert self._model is not None
        return self._model

    def attach(self, model: VisionModel) -> None:
        """Use this model. `BadInputError` saying what differs where the adapter was made for another one."""
        refuse_other_model(self.model_info, model.describe())
        self._model = model

    def attach_store(self, store: Store) -> None:
        """Use the maps of a store of the same model: its coordinates then need no model. `BadInputError` likewise."""
        refuse_other_model(self.model_info, store.model)
        self._store_maps = store.maps
        for name in ("maps", "full_scaling", "exact_map", "_folded"):
            self.__dict__.pop(name, None)

    @cached_property
    def maps(self) -> UnitMaps:
        """The tower's maps: those of the store it was fitted on, or, loaded from disk, computed from the model."""
        if self._store_maps is not None:
            return self._store_maps
        # imported here: maps of a model need the model library, an adapter alone does not
        from residualign.decomposition.maps import unit_maps

        # in the model's dtype, as a store keeps them: both ways to an adapter then give the same numbers
        return unit_maps(self.model.tower)

    @cached_property
    def full_scaling(self) -> Scaling:
        """What the lambdas multiply, components in the output space, float64."""
        return self.scaling.expand(self.maps)

    @cached_property
    def exact_map(self) -> FoldedMap | FactoredMap:
        """The whole adapter as one linear map of coordinates, float64."""
        lambdas = self.learned.get("lambdas", torch.zeros(0)).to(self.maps.embedding.device)
        return fold(self.maps, self.full_scaling, lambdas, self.learned.get("map"), self.learned.get("bias"))

    def folded(self, like: Tensor) -> FoldedMap | FactoredMap:
        """The map in the dtype and on the device of a tensor, kept until another is asked for."""
        kept: FoldedMap | FactoredMap | None = self.__dict__.get("_folded")
        if kept is None or kept.bias.dtype != like.dtype or kept.bias.device != like.device:
            kept = self.__dict__["_folded"] = self.exact_map.to(like.device, like.dtype)
        return kept

    def embed_coordinates(self, coordinates: Coordinates) -> Float[Tensor, "image dim"]:
        """Adapted embeddings, not normalised, of images already taken apart. One matrix product."""
        self._check_coordinates(coordinates)
        return self.folded(coordinates.output)(coordinates)

    def embed(self, images: Images, batch_size: int = 32) -> Float[Tensor, "image dim"]:
        """Adapted embeddings of images (PIL, paths or pixels), not normalised: a plain forward pass and one product."""
        return torch.cat([self._embed_batch(batch) for batch in _batches(images, batch_size)])

    def logits(self, images: Images | Coordinates, batch_size: int = 32) -> Float[Tensor, "image class"]:
        """Cosine with every class vector times the logit scale."""
        embedded = self.embed_coordinates(images) if isinstance(images, Coordinates) else self.embed(images, batch_size)
        return self.classifier.logits(embedded)

    def predict_proba(self, images: Images | Coordinates, batch_size: int = 32) -> Float[Tensor, "image class"]:
        """Probability of every class, in the order of `class_names`.

        Rows sum to one, unless the adapter was fitted with the sigmoid: each class then has a probability of its own.
        """
        logits = self.logits(images, batch_size)
        return self.classifier.sigmoid(logits) if self.settings.get("loss") == "sigmoid" else logits.softmax(dim=-1)

    def predict_indices(self, images: Images | Coordinates, batch_size: int = 32) -> Int[Tensor, " image"]:
        """Index into `class_names` of each image's most probable class."""
        return self.logits(images, batch_size).argmax(dim=-1)

    def predict(self, images: Images | Coordinates, batch_size: int = 32) -> list[str]:
        """Name of each image's most probable class."""
        return [self.class_names[i] for i in self.predict_indices(images, batch_size).tolist()]

    def predict_coordinates(self, coordinates: Coordinates) -> list[str]:
        """`predict` for images already taken apart, e.g. those of a store; needs no model for a fresh adapter."""
        return self.predict(coordinates)

    def take_apart(self, images: Images, batch_size: int = 32) -> Coordinates:
        """Coordinates of images, for everything here that takes coordinates. One plain forward pass."""
        from residualign.decomposition.trace import trace_coordinates

        model = self.model
        return Coordinates.cat(
            trace_coordinates(model.tower, model.pixels(batch)) for batch in _batches(images, batch_size)
        )

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `adapter.safetensors`, `adapter_config.json`, `history.jsonl` and a model card into a folder.

        Replaces an adapter that is there and leaves other files alone; whole or not at all. `RunError` where writing
        fails.
        """
        tensors, config = to_tensors(self), to_config(self)
        write_adapter(folder, AdapterFiles(config, tensors, self.history), model_card(config))

    def _embed_batch(self, images: _Batch) -> Tensor:
        model = self.model
        pixels = model.pixels(images)
        if not self.exact_map.needs_units:
            output = model.encode_pixels(pixels)
            output = output.float() if output.dtype.itemsize < 4 else output
            return self.folded(output).of_output(output)
        from residualign.decomposition.trace import trace_coordinates

        return self.embed_coordinates(trace_coordinates(model.tower, pixels))

    def _check_coordinates(self, coordinates: Coordinates) -> None:
        expected = self.maps.value_shapes
        got = {name: tuple(tensor.shape[1:]) for name, tensor in coordinates.tensors().items()}
        other = [name for name in {**expected, **got} if got.get(name) != expected.get(name)]
        if other:
            listed = ", ".join(f"{name} {expected.get(name)} (got {got.get(name)})" for name in other)
            raise BadInputError(f"coordinates of another tower: expected {listed} an image")


def adapter_from_fit(
    result: Fitted,
    store: Any,
    spectra: Spectra | None = None,
    component_dtype: torch.dtype = torch.float16,
) -> Adapter:
    """The adapter of a fitted method.

    store: what it was fitted on; its maps and its model's description are taken. spectra: where the components are
    from; None means the training images. Components are rounded at once, so that a fresh adapter predicts what the
    saved one will.
    """
    source = {
        "source": result.settings.get("spectra"),
        "fingerprint": None,
        "n_samples": result.settings.get("n_train"),
    }
    if spectra is not None:
        source |= {"source": spectra.source, "fingerprint": spectra.fingerprint, "n_samples": spectra.n_samples}
    return Adapter(
        method=result.method,
        scaling=CompactScaling.of(result.scaling, store.maps, component_dtype),
        learned={k: v.detach().float().cpu() for k, v in result.learned.items() if k != "class_residual"},
        classifier=_shipped(result.classifier),
        base_classifier=_shipped(result.base_classifier),
        accuracy=dict(result.accuracy),
        parameters=result.parameters,
        epochs=result.epochs,
        learning_rate=result.learning_rate,
        history=tuple(result.history),
        settings=dict(result.settings),
        spectra=source,
        model_info=dict(getattr(store, "model", {})),
        _store_maps=store.maps,
    )


def load_adapter(
    folder: str | os.PathLike[str],
    *,
    model: VisionModel | str | os.PathLike[str] | None = None,
    device: str = "cpu",
    dtype: str = "float32",
) -> Adapter:
    """Read an adapter that `Adapter.save` wrote.

    model: a loaded model, or the name of one where it has moved; None loads the one the adapter names when it is first
    needed. `BadInputError` for files that are damaged or do not fit together, and for another model, revision or
    preprocessing, saying what differs.
    """
    adapter = Adapter(**from_files(read_adapter(folder)), device=device, dtype=dtype)
    if isinstance(model, str | os.PathLike):
        from residualign.load import load_model

        model = load_model(model, device=device, dtype=dtype)
    if model is not None:
        adapter.attach(model)
    return adapter


def refuse_other_model(expected: Mapping[str, Any], got: Mapping[str, Any]) -> None:
    """`BadInputError` naming what differs: sizes first, then weights, then the keys of the preprocessing.

    Both are as `VisionModel.describe` gives them. The dtype and the name may differ: they change no embedding beyond
    rounding.
    """
    sizes = ("n_layers", "n_heads", "width", "dim")
    other = [key for key in sizes if expected.get(key) != got.get(key)]
    name = got.get("name")
    if other:
        listed = ", ".join(f"{key} {expected.get(key)} (model: {got.get(key)})" for key in other)
        raise BadInputError(f"the adapter does not fit model {name!r}: it was made for {listed}")
    if expected.get("fingerprint") != got.get("fingerprint"):
        raise BadInputError(
            f"the adapter was made for other weights than model {name!r} has: fingerprint "
            f"{str(expected.get('fingerprint'))[:12]}... expected, {str(got.get('fingerprint'))[:12]}... found"
        )
    wanted, found = expected.get("preprocessing") or {}, got.get("preprocessing") or {}
    keys = sorted(key for key in {*wanted, *found} if wanted.get(key) != found.get(key))
    if keys:
        listed = ", ".join(f"{key} {wanted.get(key)} (model: {found.get(key)})" for key in keys)
        raise BadInputError(f"the adapter was made with another preprocessing than model {name!r} has: {listed}")


def _shipped(classifier: Classifier) -> Classifier:
    """The classifier as it is stored: float32, without the sums that only fitting needs."""
    return Classifier(
        classifier.kind,
        tuple(classifier.class_names),
        classifier.vectors.detach().float().cpu(),
        float(classifier.logit_scale),
        logit_bias=classifier.logit_bias,
    )


def _batches(images: Images, size: int) -> list[_Batch]:
    """Parts of at most `size` images; one empty part where there are none, for the model to refuse."""
    if size < 1:
        raise BadInputError(f"batch_size is at least 1; got {size}")
    if isinstance(images, Image.Image | str | os.PathLike):
        raise BadInputError(
            "images is a list of PIL images or paths, or a tensor; got a single one (wrap it in a list)"
        )
    return [images[start : start + size] for start in range(0, max(len(images), 1), size)]
