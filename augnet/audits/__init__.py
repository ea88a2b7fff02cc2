"""The life of an audit, one module for each moment of it; nothing here knows Beam."""
