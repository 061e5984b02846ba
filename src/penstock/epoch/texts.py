"""What the user is told of an epoch: what happened, the likely cause, and what to change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from penstock.certificate import DeathCertificate
from penstock.schedule import MAX_DEATHS_PER_BATCH, Lease


def died_too_often(death: DeathCertificate, lease: Lease, *, is_stream: bool) -> str:
    """A batch is given up, since workers die while they work on it."""
    if is_stream:
        stream, number = lease.indices
        place = f"at batch {number} of the stream of worker {stream}"
        if death.overdue:
            return (
                f"a sample {_late(death)}, not the first time {place}. A stream cannot go on "
                "behind a sample that it cannot give: raise sample_timeout if it can take so long, "
                "or have the dataset itself skip it"
            )
        return (
            f"{_in_torchs_words(death)}, not the first to do so {place}. A stream cannot go on "
            "behind a sample that it cannot give; the dataset itself can skip it."
            f"{_most_likely(_cause_of_several(death))}"
        )
    return (
        f"{_in_torchs_words(death)}, the {MAX_DEATHS_PER_BATCH}th to die at batch {lease.batch} "
        f"with samples {list(lease.indices)!r:.200}, and no sample of it ends a worker when it is "
        f"made alone.{_most_likely(death.likely_cause)}"
    )


def killed_by(death: DeathCertificate, *, tolerant: bool) -> str:
    """One sample ends whoever makes it.

    Args:
        death: the last of those.
        tolerant: whether the program has said what becomes of such samples.
    """
    cause = _most_likely(_cause_of_several(death))
    remedy = "" if tolerant else " on_error='skip' leaves such samples out."
    return (
        f"{_in_torchs_words(death)} while it made {_named(death)} on its own, like another before "
        f"it.{cause}{'.' if cause else ''}{remedy}"
    )


def overdue(death: DeathCertificate) -> str:
    """One sample takes longer than it may."""
    return f"{_named(death)} {_late(death)}; raise sample_timeout if it can take so long"


def never_ready(death: DeathCertificate, failed_starts: int) -> str:
    """One worker after another dies before it has its dataset."""
    told = (
        f"{_in_torchs_words(death)} while it started (dataset, worker_init_fn), the "
        f"{_ordinal(failed_starts)} in a row.{_most_likely(death.likely_cause)}"
    )
    return "\n".join([told, *death.details])


def too_many_deaths(history: Sequence[DeathCertificate], most: int) -> str:
    """More workers have died than are replaced."""
    death = history[-1]
    told = " ".join(filter(None, (_in_torchs_words(death), death.where)))
    replaced = f"{most or 'no'} replacement{'s' if most > 1 else ''}"
    number = ""
    if most:
        ends = Counter(map(_end, history))
        summary = ", ".join(f"{count} {end}" for end, count in ends.most_common())
        number = f", the {_ordinal(len(history))} to die in this epoch ({summary})"
    cause = death.likely_cause
    remedy = f"{_most_likely(cause)}. Mend that, or raise" if cause else " Raise"
    return f"{told}{number}, and max_restarts={most} allows {replaced}.{remedy} max_restarts"


def timed_out(timeout_s: float) -> str:
    """No batch came in time."""
    return (
        f"DataLoader timed out after {timeout_s:g} seconds: no batch came from the "
        "workers. One sample may take that long, or hang; raise timeout, or look at "
        "what the workers do"
    )


def longer_than_claimed(length: int, samples: int) -> str:
    """An iterable dataset gives more than its `__len__` says.

    Begins with the words that torch's loader warns with, which programs match on.
    """
    return (
        f"Length of IterableDataset by its __len__ was reported to be {length} (when "
        f"accessing len(dataloader)), but {samples} samples have been fetched. If the "
        "dataset does not split itself over workers, every worker yields all of it; if it "
        "does, its __len__ must count the samples of all workers"
    )


def _in_torchs_words(death: DeathCertificate) -> str:
    """A worker's death, as programs look for it that were written for torch's loader."""
    return f"DataLoader worker (pid(s) {death.pid}) exited unexpectedly: {death.what}"


def _named(death: DeathCertificate) -> str:
    return f"sample {death.index!r} ({death.source})"


def _end(death: DeathCertificate) -> str:
    """How a worker ended, in few words; those that were ended, by what that was for."""
    if death.overdue:
        return "by sample_timeout"
    if death.fault:
        return "for what they sent"
    return f"by {death.signal_name or f'exit code {death.exit_code}'}"


def _late(death: DeathCertificate) -> str:
    """That a sample took too long, and what was done about it."""
    return (
        f"took longer than sample_timeout={death.limit_s:g} s, and worker {death.worker} "
        f"(pid {death.pid}) was ended"
    )


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in (11, 12, 13) else ending}"


def _cause_of_several(death: DeathCertificate) -> str:
    """The likely cause where worker after worker has died of making the same.

    Somebody who ends processes at random would hardly have hit it there each time.
    """
    if death.by_itself or death.of_memory:
        return death.likely_cause
    if death.signal_name == "SIGKILL":
        return "making it takes more memory than there is, or something ends processes that make it"
    return (
        f"making it brings {death.signal_name} on: a timer, a limit of the system, or a program "
        "that sends it"
    )


def _most_likely(cause: str) -> str:
    """The sentence that follows."""
    return f" Most likely {cause}" if cause else ""
