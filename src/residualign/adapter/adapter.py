"""The adapter: predicts with the frozen model, its lambdas and its class vectors; is saved and loaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from residualign._messages import plural
from residualign._result import Table
from residualign.adapter.attribution import Attribution, attribute
from residualign.adapter.files import AdapterContent, read_adapter, refuse_other_model, to_config, write_adapter
from residualign.adapter.fold import Adapted
from residualign.adapter.lambdas import Moved, learning_curve, moved_components
from residualign.data.given import Images, given_images
from residualign.decomposition.coordinates import Coordinates, UnitMaps, refuse_not_finite
from residualign.errors import BadInputError
from residualign.fitting.coefficients import Scaling
from residualign.spectrum.spectrum import Spectra
from residualign.store import Store

if TYPE_CHECKING:
    from residualign.figures._figure import Figure
    from residualign.models.vision_model import VisionModel

__all__ = ["Adapter", "load_adapter"]

_Batch = Tensor | Sequence[Any]


@dataclass(frozen=True, eq=False, repr=False)
class Adapter(AdapterContent):
    """A fitted method that classifies images with the frozen model it was fitted on.

    The model is needed only for images: it is loaded by name on first use (on `device`, in `dtype`), and refused if it
    is not the one the adapter was fitted on.

    Attributes
    ----------
    method : str
        Name of the method.
    lambdas : mapping from unit label to (component,) tensor
        One scale per component; empty for `linear`.
    accuracy : Accuracy
        Shares in [0, 1], None without test images: `zero_shot` and `adapted` on test, `zero_shot_val` and
        `val` on the validation images.
    parameters : int
        Number of learned scales and weights.
    history : tuple of dict
        One record per validation.
    settings : dict
        The options of the fit, and the number of images.
    classifier, base_classifier : Classifier
        Class vectors and logit scale for adapted embeddings, and for those before adapting.
    spectra, model_info : dict
        Source of the components; name, fingerprint, sizes, preprocessing and dtype of the model.

    Examples
    --------
    >>> adapter = ra.load_adapter("digits-adapter")                                         # doctest: +SKIP
    >>> adapter.predict(["image.png"])                                                      # doctest: +SKIP
    ['three']
    """

    device: str = "cpu"
    dtype: str = "float32"
    _model: VisionModel | None = field(default=None)
    _store_maps: UnitMaps | None = field(default=None)

    @property
    def model(self) -> VisionModel:
        """The frozen model, loaded on first use.

        Raises
        ------
        BadInputError
            If the model cannot be found, is not the one the adapter was fitted on, or was never loaded by its name
            before: an adapter may be a stranger's.
        """
        if self._model is None:
            from residualign.load import load_named_by_file
            from residualign.models.trust import refuse_unnamed_model

            name = str(self.model_info.get("name"))
            refuse_unnamed_model(name, "the adapter")
            try:
                model = load_named_by_file(name, "the adapter", device=self.device, dtype=self.dtype)
            except BadInputError as error:
                raise BadInputError(f"{error} (if the model has moved, give its new place as `model`)") from error
            self.attach(model)
        assert self._model is not None
        return self._model

    def attach(self, model: VisionModel) -> None:
        """Use this model.

        Parameters
        ----------
        model : VisionModel
            The model the adapter was fitted on, loaded.

        Raises
        ------
        BadInputError
            If it is a different model, saying what differs.
        """
        refuse_other_model(self.model_info, model.describe())
        object.__setattr__(self, "_model", model)

    def attach_store(self, store: Store) -> None:
        """Use the maps of a store of the same model: its coordinates then need no model.

        Parameters
        ----------
        store : Store
            A store made with the model the adapter was fitted on.

        Raises
        ------
        BadInputError
            If it was made with a different model, saying what differs.
        """
        refuse_other_model(self.model_info, store.model)
        object.__setattr__(self, "_store_maps", store.maps)
        self.__dict__.pop("adapted", None)

    @cached_property
    def adapted(self) -> Adapted:
        """The adapter on its tower: components in the output space, and everything as one linear map."""
        maps = self._store_maps
        if maps is None:
            # imported here: only the maps of a model need the model library
            from residualign.decomposition.maps import unit_maps

            # in the model's dtype, as in a store, so that both ways to an adapter give the same numbers
            maps = unit_maps(self.model.tower)
        return Adapted(maps, self.scaling.expand(maps), self.learned, self.classifier, self.base_classifier)

    @property
    def maps(self) -> UnitMaps:
        """The tower's maps: those of the store it was fitted on, or, loaded from disk, computed from the model."""
        return self.adapted.maps

    @property
    def full_scaling(self) -> Scaling:
        """What the lambdas multiply, components in the output space, float64."""
        return self.adapted.scaling

    def embed_coordinates(self, coordinates: Coordinates) -> Float[Tensor, "image dim"]:
        """Adapted embeddings from coordinates, (image, dim), not normalized. One matrix product."""
        return self.adapted.embed(coordinates)

    def embed(self, images: Images, batch_size: int = 32) -> Float[Tensor, "image dim"]:
        """Adapted embeddings of images.

        Parameters
        ----------
        images : list of PIL images, paths or (height, width, 3) uint8 arrays, or (image, 3, height, width) tensor
            A tensor holds preprocessed pixels. Also a generator of pictures, a single one, or a `Split`.
        batch_size : int
            Images per forward pass.

        Returns
        -------
        (image, dim) tensor
            Not normalized.

        Raises
        ------
        BadInputError
            If there are no images, one cannot be read or its embedding is NaN or infinite, or the model is not
            available.

        Notes
        -----
        Costs a plain forward pass and one matrix product.
        """
        return torch.cat([self._embed_batch(*batch) for batch in _batches(images, batch_size)])

    def logits(self, images: Images | Coordinates, batch_size: int = 32) -> Float[Tensor, "image class"]:
        """Cosine with every class vector times the logit scale, (image, class). Parameters: see `predict_proba`."""
        if isinstance(images, Coordinates):
            refuse_not_finite(images)
            return self.classifier.logits(self.embed_coordinates(images))
        return self.classifier.logits(self.embed(images, batch_size))

    def predict_proba(self, images: Images | Coordinates, batch_size: int = 32) -> Float[Tensor, "image class"]:
        """Probability of every class.

        Parameters
        ----------
        images : list of PIL images or paths, (image, 3, height, width) tensor, or Coordinates
            What `embed` takes; coordinates, e.g. of a store, need no forward pass.
        batch_size : int
            Images per forward pass.

        Returns
        -------
        (image, class) tensor
            In the order of `class_names`. Rows sum to one, unless the adapter was fitted with the sigmoid loss: each
            class then has a probability of its own.

        Raises
        ------
        BadInputError
            As `embed`, and for coordinates of a different tower.
        """
        logits = self.logits(images, batch_size)
        return self.classifier.sigmoid(logits) if self.settings.get("loss") == "sigmoid" else logits.softmax(dim=-1)

    def predict_indices(self, images: Images | Coordinates, batch_size: int = 32) -> Int[Tensor, " image"]:
        """Index into `class_names` of each image's most probable class. Parameters: see `predict_proba`."""
        return self.logits(images, batch_size).argmax(dim=-1)

    def predict(self, images: Images | Coordinates, batch_size: int = 32) -> list[str]:
        """Name of each image's most probable class. Parameters and errors: see `predict_proba`."""
        return [self.class_names[i] for i in self.predict_indices(images, batch_size).tolist()]

    def take_apart(self, images: Images, batch_size: int = 32, names: Sequence[str] | None = None) -> Coordinates:
        """Coordinates of images, for the methods that take coordinates. One plain forward pass.

        Parameters
        ----------
        images, batch_size
            See `predict_proba`.
        names : list of str, optional
            What the images are called in an error message.

        Returns
        -------
        Coordinates
            One row per image.
        """
        from residualign.decomposition.trace import trace_coordinates

        model = self.model
        return Coordinates.cat(
            trace_coordinates(model.tower, model.pixels(batch), names=called)
            for batch, called in _batches(images, batch_size, names)
        )

    def attribution(self, images: Images | Coordinates, batch_size: int = 32) -> Attribution:
        """Which units decided: each unit's exact share of the margin between an image's top two classes.

        Parameters
        ----------
        images : list of PIL images or paths, (image, 3, height, width) tensor, or Coordinates
            See `predict_proba`.
        batch_size : int
            Images per forward pass.

        Returns
        -------
        Attribution
            One row per image; `.top(i)` gives the units with the largest shares of image i.

        Raises
        ------
        BadInputError
            As `predict_proba`, and for an adapter with one class.

        Notes
        -----
        Costs as much as one adapted embedding in float64, O(image x coordinate x dim).

        References
        ----------
        Direct effect of a component on a logit: arXiv 2310.05916, section 3.
        """
        coordinates = images if isinstance(images, Coordinates) else self.take_apart(images, batch_size)
        refuse_not_finite(coordinates)
        return attribute(self.adapted, coordinates)

    def moved(self, source: Spectra | Store | None = None) -> Moved:
        """Every lambda with its effect on the embedding, largest effect first.

        Parameters
        ----------
        source : Spectra, Store or None
            The images over which the effect is measured: spectra of them, or a store, of which the training images are
            taken. None ranks by |lambda - 1|.

        Returns
        -------
        Moved
            A sequence of components; the effect is the root mean square length of the change of the embedding when the
            lambda goes from one to its value.

        Raises
        ------
        BadInputError
            For a method without lambdas (`linear`).
        """
        if "lambdas" not in self.learned:
            raise BadInputError(f"method {self.method!r} has no lambdas to read")
        if source is None:
            return moved_components(self.scaling, self.learned["lambdas"])
        if isinstance(source, Store):
            # imported here: predicting does not need it
            from residualign.extraction import fit_spectrum

            source = fit_spectrum(source)
        return moved_components(self.full_scaling, self.learned["lambdas"], source)

    @property
    def figures(self) -> dict[str, Figure]:
        """`moved`: lambdas by |lambda - 1|; `learning_curves`: losses and validation accuracy by step."""
        from residualign.figures.fitting import lambda_figures

        tables = self.tables
        known = {"moved": tables["lambdas"], "learning_curves": tables["history"]}
        return lambda_figures(known, str(self.method), n_images=0, scale_free=self.scaling.scale_free)

    @property
    def tables(self) -> dict[str, Table]:
        """`accuracy` before and after; `lambdas`, one row per component; `history`, one row per validation."""
        # the effects need images: adapter.moved(store) has them
        moved = self.moved().tables["moved"] if "lambdas" in self.learned else []
        history = [row for curve in learning_curve(self.history) for row in curve.rows()]
        return {**super().tables, "lambdas": moved, "history": history}

    def to_json(self) -> dict[str, Any]:
        """As JSON types: what `adapter_config.json` holds, the lambdas by unit and the history."""
        lambdas = {label: values.tolist() for label, values in self.lambdas.items()}
        return {**to_config(self), "lambdas": lambdas, "history": list(self.history)}

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `adapter.safetensors`, `adapter_config.json`, `history.jsonl` and a model card into a folder.

        Parameters
        ----------
        folder : str or path
            Created if it is missing. An existing adapter is replaced, other files are left alone.

        Raises
        ------
        RunError
            If writing fails; nothing is changed in that case.
        """
        write_adapter(folder, self)

    def _summary(self) -> str:
        classes = plural(len(self.class_names), "class", "classes")
        return f"{super()._summary()}, model {self.model_info.get('name')}, {classes}"

    def _embed_batch(self, images: _Batch, names: Sequence[str]) -> Tensor:
        model = self.model
        pixels = model.pixels(images)
        if not self.adapted.exact_map.needs_units:
            output = model.encode_pixels(pixels, names)
            output = output.float() if output.dtype.itemsize < 4 else output
            return self.adapted.map_like(output).of_output(output)
        from residualign.decomposition.trace import trace_coordinates

        return self.embed_coordinates(trace_coordinates(model.tower, pixels, names=names))


def load_adapter(
    folder: str | os.PathLike[str],
    *,
    model: VisionModel | str | os.PathLike[str] | None = None,
    device: str = "cpu",
    dtype: str = "float32",
) -> Adapter:
    """Read an adapter that `Adapter.save` wrote.

    Parameters
    ----------
    folder : str or path
        The folder of the adapter, or of a finished run.
    model : VisionModel, str or path, optional
        A loaded model, or the name of one. None loads the one the adapter names when it is first needed, if its user
        has loaded it by that name before, or it is in the local cache of the hub.
    device, dtype : str
        Where, and in which floating-point type, a model is loaded: see `load_model`.

    Returns
    -------
    Adapter
        It predicts what it did when it was saved.

    Raises
    ------
    BadInputError
        If files are missing, damaged or do not fit together, or if the model, its revision or its preprocessing is a
        different one, saying what differs.
    """
    adapter = Adapter(**read_adapter(folder), device=device, dtype=dtype)
    if isinstance(model, str | os.PathLike):
        from residualign.load import load_model

        model = load_model(model, device=device, dtype=dtype)
    if model is not None:
        adapter.attach(model)
    return adapter


def _batches(images: Images, size: int, names: Sequence[str] | None = None) -> list[tuple[_Batch, Sequence[str]]]:
    """Parts of at most `size` images, with their names; one empty part if there are none, for the model to refuse."""
    if size < 1:
        raise BadInputError(f"batch_size is at least 1; got {size}")
    images = given_images(images)
    # imported here: a module of models is needed only for images
    from residualign.models.vision_model import image_names

    parts = [(start, start + size) for start in range(0, max(len(images), 1), size)]
    return [
        (images[start:stop], image_names(images, start, stop) if names is None else names[start:stop])
        for start, stop in parts
    ]
