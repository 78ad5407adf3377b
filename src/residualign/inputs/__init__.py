"""What was named on a command line or in a call, opened: model and data or a store, its class vectors, its spectra."""
