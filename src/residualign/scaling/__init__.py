"""Learn one scale per principal component, with the encoder frozen."""
