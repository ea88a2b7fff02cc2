"""What the figures of an audit mean: opinions, each with its evidence."""
