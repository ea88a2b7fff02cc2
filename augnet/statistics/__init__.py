"""What is measured of a Jacobian: per image, and over a dataset in parts that merge.

`image_statistics` gives one row per image; an `Aggregate` takes in batches, merges and travels as a file;
`summarize` turns the rows and the merged aggregate into tables, maps and figures. Each statistic of an
image has its entry in `augnet.storage.catalog`; what the figures mean is decided in `augnet.findings`.
"""

from augnet.statistics.aggregate import Aggregate, Shape
from augnet.statistics.decision import Task, task_of
from augnet.statistics.focus import uniform_border_fraction
from augnet.statistics.image import image_statistics
from augnet.statistics.moments import choose_map_pool
from augnet.statistics.summary import Summary, summarize

__all__ = [
    "Aggregate",
    "Shape",
    "Summary",
    "Task",
    "choose_map_pool",
    "image_statistics",
    "summarize",
    "task_of",
    "uniform_border_fraction",
]
