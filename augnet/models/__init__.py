"""The Keras side: AugNet, and trained models from disk."""
