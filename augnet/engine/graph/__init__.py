"""A trained Keras model as a flat graph of operations, and what can be done with any such graph."""
