"""open_clip's models: OpenAI, LAION, DataComp, MetaCLIP, DFN and SigLIP checkpoints, among others.

Names are `open_clip:NAME/tag`, `open_clip:local-dir:PATH` and `open_clip:hf-hub:ORG/NAME`. Image towers are open_clip's
own `VisionTransformer`, whose blocks have torch's `nn.MultiheadAttention` or open_clip's `Attention`, with or without
layer scale; or a timm model inside a `TimmModel`.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from residualign.errors import BadInputError
from residualign.models import timm_vit
from residualign.models.accounting import refused_by
from residualign.models.hub import cache_alone_without_network
from residualign.models.pooling import (
    CLASS_TOKEN,
    AttentionPooling,
    MeanPooling,
    Pooling,
    Projection,
    packed_thirds,
    pooling_constants,
)
from residualign.models.preprocess import TransformPreprocess
from residualign.models.text import TextEncoder
from residualign.models.tower import Block, Tower, layer_scale
from residualign.models.trust import check_keywords, own_config
from residualign.models.vision_model import VisionModel
from residualign.models.weights import neutral_tensors

__all__ = ["explicit_attention", "load", "timm_tower", "tower"]

_TOKENIZER_KEYWORDS = (
    "additional_special_tokens",
    "clean",
    "context_length",
    "language",
    "reduction_mask",
    "strip_sep_token",
)

_SCHEMAS = ("local-dir:", "hf-hub:")

_NAMES = {
    "embedding.class": "class_embedding",
    "embedding.patch.weight": "conv1.weight",
    "embedding.position": "positional_embedding",
    "norm_pre": "ln_pre",
    "norm_final": "ln_post",
    "pool": "attn_pool",
    "projection.weight": "proj.T",
}
_BLOCK_NAMES = {
    "norm_attention": "ln_1",
    "[query,key,value].weight": "attn.in_proj_weight",
    "[query,key,value].bias": "attn.in_proj_bias",
    "out": "attn.out_proj",
    # norms of queries and keys, and scales of heads, in open_clip's own attention
    "attention": "attn",
    "scale_attention": "ls_1.gamma?",
    "norm_mlp": "ln_2",
    "mlp.in": "mlp.c_fc",
    "mlp.norm": "mlp.ln?",
    "mlp.out": "mlp.c_proj",
    "scale_mlp": "ls_2.gamma?",
}


def load(name: str) -> VisionModel:
    """The model behind a name with prefix `open_clip:`; float32, in evaluation mode, frozen.

    The QuickGELU setting is that of the tag, with a warning where it differs from that of the architecture's name;
    `BadInputError` where the two cannot be reconciled, and for a tag that open_clip does not know.
    """
    try:
        import open_clip
    except ImportError as error:
        raise BadInputError(f"model {name!r} needs open_clip: pip install 'residualign[open_clip]'") from error
    spec = name.removeprefix("open_clip:")
    identifier, tag = (spec, None) if spec.startswith(_SCHEMAS) else _parts(open_clip, name, spec)
    quick = tag is not None and _wants_quick_gelu(open_clip, name, identifier, tag)
    try:
        with _quiet(), cache_alone_without_network(spec):
            _check_tokenizer(own_config(spec, "open_clip_config.json"))
            model = open_clip.create_model(identifier, tag, force_quick_gelu=quick, require_pretrained=True)
            tokenizer = open_clip.get_tokenizer(identifier)
    except Exception as error:
        # the library raises whatever its config, its downloads and torch raise
        raise refused_by("open_clip", name, error) from error
    model = model.float().eval().requires_grad_(False)
    describe = timm_tower if type(model.visual).__name__ == "TimmModel" else tower
    preprocess, text = _preprocess(model.visual.preprocess_cfg), OpenClipText(model, tokenizer)
    text.refuse_foreign_ids(name)
    return VisionModel(name, spec, model, describe(model, name), preprocess, text)


def _check_tokenizer(config: Mapping[str, Any]) -> None:
    """`BadInputError` for keywords of the tokenizer beyond the few that set how texts are cleaned and cut."""
    part: Any = config
    for key in ("model_cfg", "text_cfg", "tokenizer_kwargs"):
        part = part.get(key) if isinstance(part, Mapping) else None
    # the library hands all of them on, some to loaders that run code or read files
    check_keywords(part, _TOKENIZER_KEYWORDS, "text_cfg.tokenizer_kwargs of open_clip_config.json")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the library's lines on the root logger; what they say is raised as an error here."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _parts(open_clip: Any, name: str, spec: str) -> tuple[str, str]:
    identifier, _, tag = spec.partition("/")
    if identifier not in open_clip.list_models():
        raise BadInputError(
            f"model {name!r}: open_clip has no architecture {identifier!r}; see open_clip.list_models()"
        )
    known = open_clip.list_pretrained_tags_by_model(identifier)
    if tag not in known:
        # a weights file does not record its activation, and a wrong one silently gives wrong embeddings
        raise BadInputError(f"model {name!r}: {identifier} has the tags {', '.join(known)}; got {tag!r}")
    return identifier, tag


def _wants_quick_gelu(open_clip: Any, name: str, identifier: str, tag: str) -> bool:
    trained = bool(open_clip.get_pretrained_cfg(identifier, tag).get("quick_gelu", False))
    named = bool(open_clip.get_model_config(identifier).get("quick_gelu", False))
    if named and not trained:
        raise BadInputError(
            f"model {name!r}: {tag} was trained without QuickGELU, which {identifier} has; "
            f"use open_clip:{identifier.removesuffix('-quickgelu')}/{tag}"
        )
    if trained and not named:
        warnings.warn(
            f"model {name!r}: {tag} was trained with QuickGELU, so QuickGELU is used", UserWarning, stacklevel=4
        )
    return trained


def _preprocess(settings: dict[str, Any]) -> TransformPreprocess:
    """The checkpoint's evaluation transform."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config = PreprocessCfg(**settings)
    return TransformPreprocess(image_transform_v2(config, is_train=False), asdict(config))


@dataclass(frozen=True)
class _Transposed:
    """A view of a (width, dim) parameter as a projection; follows it to other devices and dtypes."""

    parameter: Tensor

    @property
    def weight(self) -> Tensor:
        return self.parameter.T

    @property
    def bias(self) -> None:
        return None

    @property
    def out_features(self) -> int:
        return int(self.parameter.shape[1])


def tower(model: Any, name: str) -> Tower:
    """Where the parts of `model.visual` are; `BadInputError` names a part that is not supported."""
    visual = model.visual
    _refuse_other_towers(visual, name)
    blocks = list(visual.transformer.resblocks)
    attentions = [block.attn for block in blocks]
    projection = None if visual.proj is None else _Transposed(visual.proj)
    pooling = _pooling(visual)

    functional = [attention for attention in attentions if isinstance(attention, nn.MultiheadAttention)]
    return Tower(
        module=visual,
        forward=partial(_embedding, visual),
        blocks=tuple(
            Block(block.attn.out_proj, block.mlp, layer_scale(block.ls_1), layer_scale(block.ls_2)) for block in blocks
        ),
        entry=blocks[0],
        n_heads=attentions[0].num_heads,
        final_norm=visual.ln_post if visual.attn_pool is None else visual.attn_pool.ln_k,
        projection=projection,
        image_size=int(visual.image_size[0]),
        tensors=neutral_tensors(visual, _NAMES, blocks, _BLOCK_NAMES),
        constants={
            "activation": _activation(blocks[0].mlp.gelu),
            "eps": repr(visual.ln_post.eps),
            **pooling_constants(pooling),
        },
        pooling=pooling,
        exchange=partial(explicit_attention, functional),
    )


def _embedding(visual: Any, pixels: Tensor) -> Tensor:
    output = visual(pixels)
    pooled: Tensor = output[0] if isinstance(output, tuple) else output
    return pooled


def _asked(pool: Any, query: Projection) -> Tensor:
    vector: Tensor = F.linear(pool.ln_q(pool.query[0]), query.weight, query.bias) / pool.attn.head_dim**0.5
    return vector


def _refuse_other_towers(visual: Any, name: str) -> None:
    kind = type(visual).__name__
    if kind != "VisionTransformer":
        raise BadInputError(f"model {name!r} has a vision tower of type {kind}; supported is VisionTransformer")
    averages_queries = visual.attn_pool is not None and visual.pool_type != "tok"
    parts = {
        f"attentional pooling of type {getattr(visual, 'attn_pool_type', '')!r}": bool(
            getattr(visual, "attn_pool_type", "")
        ),
        # after an attentional pooling, `pool_type` chooses among the queries
        f"pooling {visual.pool_type!r}": visual.pool_type not in ("tok", "avg") or averages_queries,
        "a norm after its attention (ln_attn)": any(
            not isinstance(getattr(block, "ln_attn", nn.Identity()), nn.Identity)
            for block in visual.transformer.resblocks
        ),
    }
    for part, there in parts.items():
        if there:
            raise BadInputError(
                f"model {name!r} has {part}, which is not supported; expected a tower that pools its class token, "
                "the mean of its patches, or by one attention query"
            )


def _pooling(visual: Any) -> Pooling:
    if visual.attn_pool is not None:
        return _attention_pooling(visual)
    if visual.pool_type == "avg":
        # the class token comes before the patches
        return MeanPooling(first=1, norm_first=not visual.final_ln_after_pool)
    return CLASS_TOKEN


def _attention_pooling(visual: Any) -> AttentionPooling:
    """CoCa's pooling: what the first query reads, normed and projected. The other queries are for captions."""
    pool, attention = visual.attn_pool, visual.attn_pool.attn
    query, key, value = packed_thirds(attention)

    return AttentionPooling(
        n_heads=attention.num_heads,
        query=partial(_asked, pool, query),
        key=key,
        value=value,
        out=attention.out_proj,
        norm=visual.ln_post,
    )


def _activation(module: nn.Module) -> str:
    # as in transformers' configs, so that a checkpoint has one fingerprint in both libraries
    names = {"QuickGELU": "quick_gelu", "GELU": "gelu"}
    return names.get(type(module).__name__, type(module).__name__)


def timm_tower(model: Any, name: str) -> Tower:
    """Where the parts of `model.visual`, an open_clip `TimmModel`, are; `BadInputError` for unsupported ones."""
    visual = model.visual
    inner = timm_vit.tower(visual.trunk, name)
    projection = _timm_projection(visual, name)

    tensors = dict(inner.tensors)
    if projection is not None:
        tensors |= {f"projection.{part}": value for part, value in projection.named_parameters()}
    return replace(inner, module=visual, forward=visual, projection=projection, tensors=tensors, tokens=None)


def _timm_projection(visual: Any, name: str) -> nn.Linear | None:
    """The trunk's class head, or open_clip's own layer after a trunk without one; None if there is neither."""
    steps = {part: module for part, module in visual.head.named_children() if not isinstance(module, nn.Dropout)}
    trunk_head = visual.trunk.head
    if not isinstance(trunk_head, nn.Identity):
        steps["the trunk's class head"] = trunk_head
    for part, module in steps.items():
        if not isinstance(module, nn.Linear):
            raise BadInputError(f"model {name!r} has {part!r} as its projection, which is not one linear map")
    if len(steps) > 1:
        raise BadInputError(f"model {name!r} has {len(steps)} projections in a row; expected at most one")
    return next(iter(steps.values()), None)


class OpenClipText(TextEncoder):
    """open_clip's tokenizer and text tower."""

    def _vocabulary(self) -> dict[str, int]:
        # open_clip's own tokenizer wraps one of transformers only where the config names one
        inner: Any = getattr(self._tokenizer, "tokenizer", None)
        return inner.get_vocab() if hasattr(inner, "get_vocab") else dict(getattr(self._tokenizer, "encoder", {}))

    def _n_rows(self) -> int:
        text = getattr(self._model, "text", self._model)
        rows = text.token_embedding if hasattr(text, "token_embedding") else text.transformer.get_input_embeddings()
        return int(rows.num_embeddings)

    def unknown(self, texts: Sequence[str]) -> list[str]:
        # byte pairs spell every text
        return []

    def _embed(self, texts: list[str], device: torch.device) -> Tensor:
        features: Tensor = self._model.encode_text(self._tokenizer(texts).to(device))
        return features


@contextlib.contextmanager
def explicit_attention(modules: Sequence[nn.MultiheadAttention]) -> Iterator[None]:
    """Replace the forward of these instances by an equivalent one, and put it back afterwards, also after an error.

    torch's `nn.MultiheadAttention` calls its output projection as a function, so hooks on the projection never fire.
    Inside the context these instances call the projection's own forward; the class, and every other instance, is left
    alone. The same numbers up to rounding: torch's fused kernel adds in a different order. Contexts nest.
    """
    before = [module.__dict__.get("forward") for module in modules]
    try:
        for module in modules:
            module.forward = partial(_self_attention, module)  # type: ignore[method-assign]
        yield
    finally:
        for module, forward in zip(modules, before, strict=True):
            if forward is None:
                module.__dict__.pop("forward", None)
            else:
                module.forward = forward  # type: ignore[method-assign]


def _self_attention(
    module: nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Self-attention as image towers use it: no mask, no attention weights, no extra keys."""
    unasked = all(option is None or option is False for option in options.values())
    plain = query is key and key is value and not need_weights and attn_mask is None and unasked
    if not plain or module.bias_k is not None or module.add_zero_attn or module.in_proj_weight is None:
        raise RuntimeError(
            "only plain self-attention can be traced: without a mask, attention weights or other keys and values"
        )
    x = query if module.batch_first else query.transpose(0, 1)
    n, length, width = x.shape
    packed = F.linear(x, module.in_proj_weight, module.in_proj_bias)
    q, k, v = packed.view(n, length, 3, module.num_heads, module.head_dim).permute(2, 0, 3, 1, 4)
    dropout = module.dropout if module.training else 0.0
    values = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
    out: Tensor = module.out_proj(values.transpose(1, 2).reshape(n, length, width))
    return (out if module.batch_first else out.transpose(0, 1)), None
