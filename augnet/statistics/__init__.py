"""What is measured of a Jacobian: per image, and over a dataset in parts that merge.

`image.image_statistics` gives one row per image; an `aggregate.Aggregate` takes in batches, merges and
travels as a file; `summary.summarize` turns both into tables, maps and figures. Each statistic of an image
has its entry in `augnet.storage.catalog`; what the figures mean is decided in `augnet.findings`.
"""
