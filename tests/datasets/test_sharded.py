from __future__ import annotations

import itertools
import pickle
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from penstock.datasets import DescribesCurrent, ShardedStream
from penstock.datasets.split import WHOLE, Part
from penstock.errors import DatasetError, OptionError
from tests.datasets.roles import as_rank, as_worker


class Numbers(ShardedStream[int, tuple[int, int]]):
    """Shard k holds (k, 0), (k, 1), …; the samples in `bad` raise."""

    def __init__(self, lengths, bad=(), known=True, **part):
        super().__init__(**part)
        self.lengths, self.bad, self.known = list(lengths), set(bad), known
        self.opened, self.closed = [], 0

    def shards(self):
        return range(len(self.lengths))

    def shard_length(self, shard):
        return self.lengths[shard] if self.known else None

    def read(self, shard, start):
        self.opened.append((shard, start))
        try:
            for position in range(start, self.lengths[shard]):
                if (shard, position) in self.bad:
                    raise ValueError(f"bad {shard} {position}")
                yield shard, position
        finally:
            self.closed += 1


def drain(stream):
    """Return all samples, and what `describe` said of each that raised."""
    samples: list[object] = []
    failed: list[str] = []
    iterator = iter(stream)
    while True:
        try:
            samples.append(next(iterator))
        except StopIteration:
            return samples, failed
        except ValueError:
            failed.append(iterator.describe())


def all_of(lengths):
    return {(k, n) for k, length in enumerate(lengths) for n in range(length)}


LENGTHS = st.lists(st.integers(0, 6), max_size=10)
COUNTS = st.integers(1, 6)


@given(LENGTHS, COUNTS, COUNTS)
def test_ranks_and_workers_read_each_sample_exactly_once(lengths, ranks, workers):
    seen: Counter[object] = Counter()
    expected_len = 0
    for rank in range(ranks):
        stream = Numbers(lengths, num_shards=ranks, shard=rank)
        expected_len += len(stream)
        for worker in range(workers):
            with as_worker(worker, workers):
                seen.update(drain(stream)[0])
    assert seen == Counter(all_of(lengths))
    assert expected_len == len(all_of(lengths))


@given(LENGTHS, st.integers(1, 4), st.integers(1, 3))
def test_the_ranks_of_torch_distributed_read_each_sample_exactly_once(lengths, ranks, workers):
    seen: Counter[object] = Counter()
    for rank in range(ranks):
        with as_rank(rank, ranks):
            stream = Numbers(lengths)
            assert stream.part() == Part(rank, ranks)
            for worker in range(workers):
                with as_worker(worker, workers):
                    seen.update(drain(stream)[0])
    assert seen == Counter(all_of(lengths))


@given(LENGTHS, st.data(), st.booleans())
def test_a_bad_sample_costs_only_itself(lengths, data, known):
    samples = sorted(all_of(lengths))
    bad = data.draw(st.sets(st.sampled_from(samples))) if samples else set()
    found, failed = drain(Numbers(lengths, bad, known))
    assert found == [sample for sample in samples if sample not in bad]
    assert failed == [f"sample {n} of shard {k}" for k, n in samples if (k, n) in bad]


def test_a_shard_is_opened_again_behind_the_bad_sample():
    stream = Numbers([5], bad={(0, 1), (0, 4)})
    drain(stream)
    assert stream.opened == [(0, 0), (0, 2)]  # nothing is left behind position 4


def test_the_exception_of_a_bad_sample_passes_unchanged():
    iterator = iter(Numbers([2], bad={(0, 0)}))
    with pytest.raises(ValueError, match=r"^bad 0 0$"):
        next(iterator)
    assert next(iterator) == (0, 1)


def test_describe_names_the_sample_that_was_returned_or_raised_last():
    iterator = iter(Numbers([1, 2], bad={(1, 1)}))
    assert isinstance(iterator, DescribesCurrent)
    assert iterator.describe() == "no sample of Numbers"
    next(iterator)
    assert iterator.describe() == "sample 0 of shard 0"
    next(iterator)
    assert (iterator.shard, iterator.position) == (1, 0)
    with pytest.raises(ValueError, match="bad 1 1"):
        next(iterator)
    assert iterator.describe() == "sample 1 of shard 1"
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(iterator)
        assert iterator.describe() == "no sample of Numbers"


def test_an_interrupted_sample_is_read_again():
    class Interrupted(Numbers):
        interrupts = 1

        def read(self, shard, start):
            for sample in super().read(shard, start):
                if sample == (0, 1) and self.interrupts:
                    self.interrupts -= 1
                    raise KeyboardInterrupt
                yield sample

    iterator = iter(Interrupted([3]))
    assert next(iterator) == (0, 0)
    with pytest.raises(KeyboardInterrupt):
        next(iterator)
    assert list(iterator) == [(0, 1), (0, 2)]


def test_a_shard_of_unknown_length_that_only_fails_is_given_up_with_an_error():
    class Unreadable(Numbers):
        max_failures_in_row = 3

        def read(self, shard, start):
            if shard == 0:
                raise FileNotFoundError("no shard 0")
            return super().read(shard, start)

    iterator = iter(Unreadable([5, 2], known=False))
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            next(iterator)
    with pytest.raises(DatasetError, match="shard 0 failed 3 times in a row, up to position 2"):
        next(iterator)
    assert list(iterator) == [(1, 0), (1, 1)]


def test_failures_with_good_samples_between_them_do_not_add_up():
    stream = Numbers([8], bad={(0, 0), (0, 1), (0, 3), (0, 4), (0, 6)}, known=False)
    stream.max_failures_in_row = 3
    samples, failed = drain(stream)
    assert samples == [(0, 2), (0, 5), (0, 7)]
    assert len(failed) == 5


def test_a_shard_of_known_length_that_only_fails_names_each_of_its_samples():
    class Unreadable(Numbers):
        max_failures_in_row = 3

        def read(self, shard, start):
            raise ValueError("no shard")

    samples, failed = drain(Unreadable([5]))
    assert samples == []
    assert failed == [f"sample {n} of shard 0" for n in range(5)]


def test_a_reader_that_is_no_generator_will_do():
    class Lists(Numbers):
        def read(self, shard, start):
            return [(shard, n) for n in range(start, self.lengths[shard])]

    assert set(Lists([2, 3])) == all_of([2, 3])


def test_leaving_early_closes_the_open_shard():
    readers = []  # holds on to them: closing is not left to the garbage collector

    class Held(Numbers):
        def read(self, shard, start):
            readers.append(super().read(shard, start))
            return readers[-1]

    stream = Held([5])
    iterator = iter(stream)
    next(iterator)
    iterator.close()
    assert stream.closed == 1
    assert next(iterator) == (0, 1)


def test_a_stream_of_unknown_length_has_none_and_can_be_listed_all_the_same():
    stream = Numbers([2, 1], known=False)
    with pytest.raises(TypeError, match="shard 0 is not known; define shard_length"):
        len(stream)
    assert list(stream) == [(0, 0), (0, 1), (1, 0)]


def test_the_length_does_not_depend_on_workers():
    stream = Numbers([2, 3, 4])
    with as_worker(1, 2):
        assert len(stream) == 9


def test_an_endless_shard_can_be_read():
    class Endless(ShardedStream[str, int]):
        def shards(self):
            return ["naturals"]

        def read(self, shard, start):
            return itertools.count(start)

    assert list(itertools.islice(Endless(), 3)) == [0, 1, 2]


def test_a_subclass_that_does_not_call_init_is_split_all_the_same():
    class Careless(Numbers):
        def __init__(self):
            self.lengths, self.bad, self.known, self.opened, self.closed = (
                [1, 1],
                set(),
                True,
                [],
                0,
            )

    with as_worker(1, 2):
        assert list(Careless()) == [(1, 0)]


def test_an_unfinished_subclass_says_what_is_missing():
    with pytest.raises(TypeError, match=r"abstract methods.*read.*shards"):
        ShardedStream()  # type: ignore[abstract]


def test_num_shards_alone_is_refused():
    with pytest.raises(OptionError, match="num_shards=3 without shard= would read everything"):
        Numbers([1], num_shards=3)


def test_workers_know_the_rank_of_their_loader_under_every_start_method(start_method):
    with as_rank(1, 3):
        stream = Numbers([1] * 12)
        loader = DataLoader(stream, 1, num_workers=2, multiprocessing_context=start_method)
        found = sorted(int(shard) for shard, _ in loader)
        del loader
    assert found == [1, 4, 7, 10]


def test_a_stream_that_a_rank_saved_is_whole_where_there_are_no_ranks():
    with as_rank(1, 3):
        saved = pickle.dumps(Numbers([1] * 6))
    stream = pickle.loads(saved)
    assert len(list(stream)) == 6
    # A worker that is forked inherits the stream; one that is spawned gets it from a process
    # without ranks. Either reads its half of the whole.
    loader = DataLoader(stream, 1, num_workers=2, multiprocessing_context="fork")
    assert sorted(int(shard) for shard, _ in loader) == list(range(6))
    with as_worker(0, 2):
        sent = pickle.loads(saved)
        assert len(list(sent)) == 1  # shards 1 and 4 are the rank's, 1 the worker's
    del loader
    assert pickle.loads(pickle.dumps(stream))._rank_of_sender == WHOLE


def test_an_explicit_part_takes_the_place_of_the_rank():
    with as_rank(1, 3):
        assert [k for k, _ in Numbers([1] * 6, num_shards=2, shard=0)] == [0, 2, 4]


def test_torchs_loader_counts_without_a_warning():
    stream = Numbers([3, 3, 3, 3, 1])
    loader = DataLoader(stream, batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert len(loader) == 13
    assert len(list(loader)) == 13
    del loader
