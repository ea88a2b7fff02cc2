"""The command line, and the audit as a Beam pipeline."""
