"""The recipe of `mini`, the embedded model: generated images with captions, a tokenizer, training, export."""
