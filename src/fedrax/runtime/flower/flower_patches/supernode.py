"""A SuperNode that answers its messages itself, where Flower starts a process for each.

It uses internals of the Flower versions that :mod:`.commands` names. Flower's own loop still takes messages from the
SuperLink and sends the answers that it finds in the store.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode, Status, SubStatus
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity

from fedrax.runtime.flower.client_app import app

logger = logging.getLogger(__name__)


def answer_in_process() -> None:
    """Lets a SuperNode of this process call the ClientApp with every message that it takes."""
    loop = importlib.import_module("flwr.supernode.start_client_internal")
    vars(loop)["_pull_and_store_message"] = answering(loop._pull_and_store_message, loop._insert_message)


def answering(take: Callable[..., int | None], insert: Callable[..., None]) -> Callable[..., int | None]:
    """Flower's ``take``, which stores at most one message, with that message's answer inserted before it returns."""

    def take_and_answer(*, state: Any, object_store: Any, **others: Any) -> int | None:
        run = take(state=state, object_store=object_store, **others)
        if run is not None:
            for message in state.get_messages_legacy(run_ids=[run], is_reply=False):
                name = message.metadata.message_id
                state.record_message_processing_start(name)
                with _task(run, state):
                    reply = _answer(message, state, object_store)
                state.record_message_processing_end(name)
                insert(reply, state, object_store)
        return run

    return take_and_answer


@contextlib.contextmanager
def _task(run: int, state: Any) -> Iterator[None]:
    """What Flower counts a message as while it is worked on: a task that has been claimed, runs, and ends.

    Claimed, it is nobody else's, for Flower's own port on the node asks nobody who they are; and it stays so however
    long the work takes, as its heart beats.
    """
    (task,) = (each.task_id for each in state.get_tasks(run_ids=[run], statuses=[Status.PENDING]))
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = run, task, state.get_node_id()
    state.claim_task(task)
    state.activate_task(task)
    heart = HeartbeatSender(partial(state.acknowledge_task_heartbeat, task))
    heart.start()
    try:
        yield
    finally:
        heart.stop()
        state.finish_task(task, SubStatus.COMPLETED, "")


def _answer(message: Message, state: Any, store: Any) -> Message:
    """The ClientApp's answer to a stored message."""
    try:
        whole = _inflated(message.metadata.message_id, store)
        series = state.get_run(message.metadata.run_id).series_id
        return app(message=whole, context=state.get_run_series_context(series))
    except Exception as error:
        logger.exception("a message failed")
        reason = f"{type(error).__name__}: {error}"
        return Message(Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=reason), reply_to=message)


def _inflated(name: str, store: Any) -> Message:
    """A stored message with its content, which the store keeps no longer."""
    trees = iterate_object_tree(store.get_object_tree(name))
    contents = {each.object_id: store.get(each.object_id) for each in trees}
    store.delete(name)
    message = cast(Message, inflate_object_from_contents(name, contents))
    message.metadata.__dict__["_message_id"] = name
    return message
