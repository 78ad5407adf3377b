"""The recipe of `mini`, the bundled model: generated images with captions, a tokenizer, training, export."""
