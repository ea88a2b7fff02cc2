"""What an audit writes and how it is read back: names, schema, whole files, shards, and the reader."""
