"""What verify.py judges by: the model made again in float64, and the table of what was found."""
