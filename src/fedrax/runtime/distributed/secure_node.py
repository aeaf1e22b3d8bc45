"""An agent's part in the secure sums of a run: what it masks, and that it masks each of its updates once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from fedrax.config import Config
from fedrax.errors import FedraxError
from fedrax.privacy.noise import skellam
from fedrax.privacy.secure_sum.agent import Participant, Stage
from fedrax.privacy.secure_sum.identity import Identity
from fedrax.privacy.secure_sum.quantise import quantised
from fedrax.records.files import write_atomic
from fedrax.runtime.compiling import jitted
from fedrax.runtime.distributed.envelopes import MASK, SHARE, Envelope
from fedrax.runtime.distributed.secure_terms import ANSWERS, terms_of
from fedrax.seeds import derive
from fedrax.trees import ravel_rows, tree_size


class SecureNode:
    """One agent's in one run."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        *,
        run: str,
        agent: int,
        participants: int,
        update: PyTree,
        key: PRNGKeyArray,
        identity: Identity,
    ) -> None:
        """Args:
        folder: where it remembers which of its updates it has masked.
        update: one as bare shapes.
        key: the root of the agent's draws.
        """
        self.agent, self.key, self.identity = agent, key, identity
        self.terms = partial(terms_of, config, run, participants=participants, length=tree_size(update))
        self.path = folder / "masked"
        """Holds the number of the last round whose update was masked."""
        self.participant: Participant | None = None
        """Of the round under way; its secrets are nowhere else."""
        clip, bits = config.privacy.clip, config.privacy.bits
        assert clip is not None
        assert bits is not None
        self._quantised = jitted(lambda vector, key: quantised(vector, clip, bits, key))

    @property
    def masked(self) -> int:
        """The last round whose update may have been masked; -1 before the first."""
        return int(self.path.read_text(encoding="utf-8")) if self.path.exists() else -1

    def keys(self, round: int, context: bytes) -> bytes:
        """Stage A: the agent's keys for a round; none where its update of that round was in a sum already.

        In two sums over different agents one update would be their difference.
        """
        if round <= self.masked:
            return b""
        terms, current = self.terms(round, context), self.participant
        if current is None or current.terms != terms or current.stage not in (None, Stage.KEYS):
            # A server that was restarted begins the sum anew; of the one before nothing was masked.
            self.participant = current = Participant(terms, self.agent, self.identity)
        return current.keys()

    def answer(self, envelope: Envelope, update: Callable[[int], PyTree], noise: float) -> Envelope:
        """A further stage's; ``update(round)`` is the agent's of that round.

        Its integers get noise of the deviation ``noise``.

        Raises:
            FedraxError: the agent knows nothing of the round's sum.
            SecureSumError: it does not do what is asked for.
        """
        round, current = int(envelope.fields["round"]), self.participant
        if current is None or current.terms.round != round:
            raise FedraxError(f"its secrets of round {round + 1} are gone: its process has started anew since")
        if envelope.kind == SHARE:
            payload = current.shares(envelope.payload)
        elif envelope.kind == MASK:
            vector = self.quantise(update(round), round)
            if noise > 0:
                # In 32 bits, as sums are.
                vector = (vector + skellam(noise, len(vector))).astype(np.int32)
            # Before it can have left.
            write_atomic(self.path, str(round))
            payload = current.masked(envelope.payload, vector)
        else:
            payload = current.unmasked(envelope.payload)
        fields = {name: envelope.fields[name] for name in ("run", "round")}
        return Envelope(ANSWERS[envelope.kind], {**fields, "agent": self.agent}, payload)

    def quantise(self, update: PyTree, round: int) -> np.ndarray:
        """The update, which was clipped before it was emitted, as integers ``int32[d]``."""
        rows = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32)[None], update)
        return np.asarray(self._quantised(ravel_rows(rows)[0], derive(self.key, "quantise", round)))
