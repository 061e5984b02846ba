"""Samples that are not made any more, since they end, or hold up, whoever makes them."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

from penstock.engines.failure import Failure, describe_made, revive
from penstock.errors import SampleKilledWorker, SampleTimeout, StateError, WorkerDiedError

_KINDS: dict[str, type[WorkerDiedError]] = {
    kind.__name__: kind for kind in (SampleKilledWorker, SampleTimeout)
}


class Quarantine(dict[object, object]):
    """Samples by index, each with the description of its error (`Failure`).

    One loader has it for its life, and a state of the loader has it too: what has ended several
    workers once need not do so again.
    """

    def state(self) -> list[dict[str, Any]]:
        """Itself as plain JSON; a sample whose index is no number or text is left out."""
        return [
            {
                "index": index if isinstance(index, str) else int(index),
                "source": failure.source,
                "error": type(error).__name__,
                "message": error.message,
            }
            for index, failure in self.items()
            if isinstance(failure, Failure)
            and isinstance(index, (numbers.Integral, str))
            and isinstance(error := revive(failure), WorkerDiedError)
        ]

    @classmethod
    def of_state(cls, state: Sequence[Any]) -> Quarantine:
        """What `state` has made.

        Raises:
            StateError: it was not made by `state`.
        """
        quarantine = cls()
        for entry in state:
            try:
                kind = _KINDS[entry["error"]]
                error, index = kind(str(entry["message"])), entry["index"]
                quarantine[index] = describe_made(
                    error, index=index, source=entry["source"], seat=0
                )
            except (TypeError, KeyError) as error:
                raise StateError(f"this state is damaged, in its quarantine: {error}") from error
        return quarantine
