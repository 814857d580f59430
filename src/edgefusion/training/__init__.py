"""Training one network, and cross-validating several."""
