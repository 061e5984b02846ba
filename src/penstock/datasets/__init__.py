"""What can be read: images, and streams that split themselves over ranks and workers.

    ImageDataset      images by number, with labels or without
    ImageStream       images as a stream; each is yielded exactly once, whatever the numbers
    ShardedStream     the base class of streams: name your shards, read one from a position
    ResizeCrop        a transform: any picture to a square uint8 tensor

    DescribesSamples, DescribesCurrent     how a dataset of your own names its samples in errors

Below: `images` and `streams` sit on `sources` (what a folder or glob means), `paths` and `labels`
(many of them in few objects), `decode` (the one place of Pillow), `sharded` and `split`.
"""

from penstock.datasets.describe import DescribesCurrent, DescribesSamples
from penstock.datasets.images import ImageDataset
from penstock.datasets.resize import ResizeCrop
from penstock.datasets.sharded import ShardedStream, ShardIterator
from penstock.datasets.streams import ImageStream

__all__ = [
    "DescribesCurrent",
    "DescribesSamples",
    "ImageDataset",
    "ImageStream",
    "ResizeCrop",
    "ShardIterator",
    "ShardedStream",
]
