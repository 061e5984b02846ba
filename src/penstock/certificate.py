"""What is known of a worker that died, and what it most likely died of.

Evidence is gathered by the engines; here it is weighed and put into words. Rules of thumb, in this
order: what Penstock did itself; what the kernel counts as killed for memory; the signals that a
process gets of its own doing; those that somebody sends; an exit that nobody asked for.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass

# A process gets these of what it does itself. Others can be sent them too, and hardly are.
_OWN_SIGNALS = frozenset(
    getattr(signal, name)
    for name in ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS", "SIGTRAP")
    if hasattr(signal, name)
)
# What libraries write, or raise, before they give up for want of memory.
_MEMORY_WORDS = (
    "bad_alloc",
    "MemoryError",
    "out of memory",
    "Out of memory",
    "cannot allocate memory",
    "Cannot allocate memory",
    "can't allocate memory",
)
# What to do where memory is short.
LESS_MEMORY = "use fewer workers, or lower a DataLoader's prefetch_factor or batch_size"


@dataclass(frozen=True, slots=True)
class Level:
    """How full something is.

    Attributes:
        used: bytes in use.
        limit: bytes that there are.
    """

    used: int
    limit: int

    def __str__(self) -> str:
        return f"{in_units(self.used)} of {in_units(self.limit)} used"


@dataclass(frozen=True, slots=True)
class DeathCertificate:
    """What is known of one worker's death. None: could not be read.

    Attributes:
        worker: its number.
        pid: its process id.
        exit_code: as of `multiprocessing.Process.exitcode`: negative for a signal.
        fault: why it was made to go, if it did not go by itself: what is said of it behind its
            name, as "was ended, since it ...".
        limit_s: seconds that its sample might take, if that was since it took longer; None: it
            was not.
        batch: the number of the batch that it worked on, in its epoch; None: on none.
        indices: the samples of that batch, as many as fit a message; of a stream which of its
            batches it is.
        index: the sample that it was making, or had last begun with; None: not known.
        source: what that sample is: its path where that is known; empty: not known.
        ran_s: seconds since it had begun with what it was at.
        rss_bytes: memory resident when it was last looked at, a second before at most while the
            training loop waits.
        peak_rss_bytes: the most that it ever had resident.
        memory: of the control group (container) or, without a limit there, the machine.
        shared_memory: of /dev/shm.
        descriptors: open ones, when they were last counted.
        out_of_memory_kills: processes that the kernel has killed for want of memory since the look
            before that: the most that the machine, or a control group of this process, has counted.
        stack: the Python stacks of its last moment, as faulthandler writes them.
        stderr: the last lines that it wrote to stderr.
    """

    worker: int
    pid: int
    exit_code: int | None
    fault: str = ""
    limit_s: float | None = None
    batch: int | None = None
    indices: str = ""
    index: object = None
    source: str = ""
    ran_s: float | None = None
    rss_bytes: int | None = None
    peak_rss_bytes: int | None = None
    memory: Level | None = None
    shared_memory: Level | None = None
    descriptors: int | None = None
    out_of_memory_kills: int = 0
    stack: str = ""
    stderr: str = ""

    @property
    def overdue(self) -> bool:
        """Whether Penstock ended it, since its sample took longer than it may."""
        return self.limit_s is not None

    @property
    def signal_name(self) -> str:
        """The signal that ended it, by name; empty: none did."""
        code = self.exit_code
        if code is None or code >= 0:
            return ""
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"

    @property
    def of_memory(self) -> bool:
        """Whether it most likely died for want of memory."""
        if self.fault or self.exit_code is None:
            return False
        if self.signal_name == "SIGKILL":
            return self.out_of_memory_kills > 0
        said = f"{self.stderr}\n{self.stack}"
        return self.exit_code != 0 and any(words in said for words in _MEMORY_WORDS)

    @property
    def by_itself(self) -> bool:
        """Whether nobody else can have ended it: it crashed, left, or did what it must not."""
        code = self.exit_code
        return bool(self.fault) or code is None or code >= 0 or -code in _OWN_SIGNALS

    @property
    def what(self) -> str:
        """Who ended, and how: the beginning of a sentence."""
        return f"worker {self.worker} (pid {self.pid}) {self.fault or self._how}"

    @property
    def _how(self) -> str:
        if self.exit_code is None:
            return "ended"
        if self.exit_code >= 0:
            return f"ended with exit code {self.exit_code}"
        return f"was killed by {self.signal_name}"

    @property
    def where(self) -> str:
        """What it was at: the end of that sentence; empty: at nothing, as far as is known."""
        if self.source:
            return f"at sample {self.index!r} ({self.source})"
        if self.batch is not None:
            return f"while it made {self.indices or f'batch {self.batch}'}"
        return ""

    @property
    def headline(self) -> str:
        """Who ended, how, and at what."""
        return " ".join(filter(None, (self.what, self.where)))

    @property
    def likely_cause(self) -> str:
        """One sentence of what it most likely died of, and what to do about it."""
        name = self.signal_name
        if self.of_memory:
            level = f": {self.memory}" if self.memory is not None else ""
            killer = "by the kernel's out-of-memory killer" if name == "SIGKILL" else "itself"
            return f"for want of memory it was ended {killer}{level}; {LESS_MEMORY}"
        if self.fault:
            return ""
        if name in ("SIGSEGV", "SIGFPE", "SIGILL", "SIGSYS", "SIGTRAP"):
            return (
                f"native code crashed{self._called_from}; update the library that was called there"
            )
        if name == "SIGBUS":
            return (
                f"memory that is mapped could not be had{self._called_from}: a file was cut short "
                "while it was mapped, or shared memory or a disk is full"
            )
        if name == "SIGABRT":
            return f"native code gave up{self._called_from}; see what it wrote to stderr"
        if name == "SIGKILL":
            return (
                "somebody killed it: kill -9, a job scheduler, or an out-of-memory killer that "
                "leaves no trace here; if memory is short, " + LESS_MEMORY
            )
        if name:
            return f"somebody sent it {name}, which it can only have from outside"
        if self.exit_code is not None:
            return (
                "the dataset, or a library that it calls, left by sys.exit, "
                f"os._exit({self.exit_code}) or C's exit; raise an exception instead"
            )
        return ""

    @property
    def _called_from(self) -> str:
        """The innermost line of Python that was run, if there is one."""
        for line in self.stack.splitlines():
            if line.lstrip().startswith("File "):
                return f", called from {line.strip().removeprefix('File ')}"
        return ""

    def __str__(self) -> str:
        """The certificate as a page of text."""
        cause = f": most likely {self.likely_cause}" if self.likely_cause else ""
        return "\n".join([self.headline + cause, *self.details])

    def __repr__(self) -> str:
        """Its headline: a list of certificates is to be read at a glance."""
        return f"<DeathCertificate: {self.headline}>"

    @property
    def details(self) -> list[str]:
        """A line for each thing that is known, and the stack and what was written to stderr."""
        memory = [
            f"{in_units(self.rss_bytes)} resident" if self.rss_bytes is not None else "",
            f"{in_units(self.peak_rss_bytes)} at most" if self.peak_rss_bytes is not None else "",
        ]
        facts = {
            "batch": "" if self.batch is None else f"{self.batch}: {self.indices}",
            "at it for": "" if self.ran_s is None else f"{round(self.ran_s, 3):g} s",
            "its memory": ", ".join(filter(None, memory)),
            "memory": "" if self.memory is None else str(self.memory),
            "killed": f"{self.out_of_memory_kills} for want of memory"
            if self.out_of_memory_kills
            else "",
            "/dev/shm": "" if self.shared_memory is None else str(self.shared_memory),
            "descriptors": "" if self.descriptors is None else str(self.descriptors),
        }
        lines = [f"  {name:<12} {fact}" for name, fact in facts.items() if fact]
        for name, text in (("last stack", self.stack), ("last stderr", self.stderr)):
            if text:
                lines += [f"  {name}", *(f"    {line}" for line in text.splitlines())]
        return lines


def in_units(size: int) -> str:
    """A number of bytes, to be read by people."""
    if size < 1 << 20:
        return f"{size / 1024:.0f} KiB"
    return f"{size / (1 << 20):.0f} MiB" if size < 1 << 30 else f"{size / (1 << 30):.1f} GiB"
