"""What was skipped, and how much of that is allowed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from penstock.errors import OptionError, SampleError, TooManySkippedError
from penstock.options import ErrorPolicy, is_slip

# So many causes are shown when an epoch is stopped: enough to see a pattern.
SHOWN_CAUSES = 5


@dataclass(frozen=True, slots=True)
class Replacement:
    """A sample that the user's function gave in the place of a bad one."""

    value: object


class Ledger:
    """Keeps the account of an epoch's bad samples.

    Args:
        policy: what to do about them.
        planned: samples in the epoch, or None where that is unknown.
        read: samples of the epoch that were read before.
        skipped_before: how many of those were skipped.

    Attributes:
        read: samples of the epoch that were read, bad ones among them.
        skipped: those that were skipped here.
    """

    def __init__(
        self, policy: ErrorPolicy, planned: int | None, *, read: int = 0, skipped_before: int = 0
    ) -> None:
        self._policy = policy
        self._planned = planned
        self._skipped_before = skipped_before
        self.read = read
        self.skipped: list[SampleError] = []

    def decide(self, error: SampleError) -> Literal["skip", "raise"] | Replacement:
        """What the policy says of a bad sample. Call it once for each, in delivery order.

        Raises:
            OptionError: the user's function returned nothing that could be meant.
        """
        on_error = self._policy.on_error
        answer = on_error(error) if callable(on_error) else on_error
        if isinstance(answer, str) and answer in ("skip", "raise"):
            return "skip" if answer == "skip" else "raise"
        if is_slip(answer):
            raise OptionError(
                f"on_error returned {answer!r} for {error}; return 'skip', 'raise', or a sample to "
                "use instead"
            )
        return Replacement(answer)

    def record(self, error: SampleError) -> None:
        """Enters a skipped sample.

        Raises:
            TooManySkippedError: that is one more than is allowed.
        """
        self.skipped.append(error)
        count = self._skipped_before + len(self.skipped)
        if count <= self._policy.allowed(self._planned, self.read):
            return
        total = self._planned if self._planned is not None else self.read
        limit = self._policy.max_skipped
        allowed = f"max_skipped={limit!r} allows"
        if not isinstance(limit, int):
            allowed += f", which is {self._policy.allowed(self._planned, self.read):g}"
        shown = "".join(f"\n  {skipped}" for skipped in self.skipped[:SHOWN_CAUSES])
        raise TooManySkippedError(
            f"{count} of {total} samples were skipped, more than {allowed}. Mend the "
            "data, or allow more (a count, a fraction, or None for no limit). The first "
            f"causes:{shown}",
            list(self.skipped),
        )
