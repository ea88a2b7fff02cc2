"""A finished audit handed to other programs: viewers of image datasets, and whatever reads Parquet.

run.py          `augnet export`: what is written, and what of it the user is told
images.py       an audit's images, part by part, with picture, small map, place and cluster
maps.py         small maps of where the model looks, of the images that have one
projection.py   all small maps as points in the plane, and groups of them
encoding.py     pictures and maps as PNG and JPEG
parquet.py      one Parquet file, for table readers or Embedding Atlas
fiftyone.py     a FiftyOne dataset
"""
