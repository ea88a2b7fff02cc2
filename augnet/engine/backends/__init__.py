"""What the engine asks of an array library; one module for each."""
