"""What can be read: images, and streams that split themselves over ranks and workers.

    ImageDataset      images by number, with labels or without
    ImageStream       images as a stream; each is yielded exactly once, whatever the numbers
    ShardedStream     the base class of streams: name your shards, read one from a position
    ResizeCrop        a transform: the middle of any picture as a square uint8 tensor
    RandomResizedCrop a transform: a random part of it, half of them turned round
    Normalize         a module for the device: uint8 batches to floats

    DescribesSamples, DescribesCurrent     how a dataset of your own names its samples in errors

Below: `images` and `streams` sit on `sources` (what a folder or glob means), `paths` and `labels`
(many of them in few objects), `sharded` and `split`, and on `reading`: a path to a sample, by
`decode` (the one place of Pillow) or `jpeg` (that of simplejpeg), of which `cuts` says how much is
needed, and then by `scaling`.
"""

from penstock.datasets.describe import DescribesCurrent, DescribesSamples
from penstock.datasets.images import ImageDataset
from penstock.datasets.normalize import Normalize
from penstock.datasets.resize import RandomResizedCrop, ResizeCrop
from penstock.datasets.sharded import ShardedStream, ShardIterator
from penstock.datasets.streams import ImageStream

__all__ = [
    "DescribesCurrent",
    "DescribesSamples",
    "ImageDataset",
    "ImageStream",
    "Normalize",
    "RandomResizedCrop",
    "ResizeCrop",
    "ShardIterator",
    "ShardedStream",
]
