"""The report of an audit: figures and one HTML page, made from its files alone."""
