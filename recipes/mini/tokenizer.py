"""The tokenizer: byte-level BPE over captions and a broad word list, special tokens as CLIP expects them."""

from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from recipes.mini.generate import generate

PAD, BOS, UNK, EOS = "<|pad|>", "<|startoftext|>", "<|unk|>", "<|endoftext|>"
SPECIAL = (PAD, BOS, UNK, EOS)
PAD_ID, BOS_ID, UNK_ID, EOS_ID = range(4)  # the end token must not be 2: CLIP pools differently for that id
MAX_LENGTH = 32
VOCABULARY = 3072


def words() -> list[str]:
    """The words of `words.txt`, in order, without duplicates."""
    lines = (Path(__file__).parent / "words.txt").read_text().splitlines()
    return list(dict.fromkeys(word for line in lines if not line.startswith("#") for word in line.split()))


def corpus(n_batches: int = 4) -> Iterator[str]:
    """Generated captions, then the word list, each word often enough to become one or a few tokens."""
    for index in range(n_batches):
        yield from generate(seed=2**20, index=index, n=512, size=8).captions
    for word in words():
        yield from [word] * 3


def train_tokenizer(vocabulary: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """Train on `corpus`. Lower case; digits are single tokens; any string can be encoded."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNK))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    # A space is put before every piece, so "3" is the same token at the start and inside of a caption.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Whitespace(),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}", special_tokens=[(BOS, BOS_ID), (EOS, EOS_ID)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, unk_token=UNK, eos_token=EOS,
        model_max_length=MAX_LENGTH, padding_side="right", truncation_side="right",
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
