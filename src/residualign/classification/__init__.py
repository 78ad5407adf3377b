"""From embeddings to classes: class vectors from text or class means, the linear probe, evaluation."""
