"""A ClientApp's process that lasts: it takes every message of a SuperNode, where Flower starts a process for each.

``python -m fedrax.runtime.flower.worker HOST:PORT``, for ``flower-supernode --isolation process``. It stands on
Flower's insides, of the versions that :mod:`.quick` names.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from fedrax.runtime.flower.quick import hurry_pulls

hurry_pulls()

from flwr.app import Error, Message  # noqa: E402  (after the waits were shortened)
from flwr.common.constant import ErrorCode, SubStatus  # noqa: E402
from flwr.proto.runtime_pb2 import AcquireTaskRequest  # noqa: E402
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http  # noqa: E402
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor  # noqa: E402
from flwr.supercore.retry import make_simple_http_retry_invoker  # noqa: E402
from flwr.supercore.runtime import RuntimeHttpClient  # noqa: E402
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output  # noqa: E402

from fedrax.runtime.flower.client_app import app  # noqa: E402

LOOK_SECONDS = 0.08
"""Between two questions for a message."""
AGAIN_SECONDS = 0.5
"""Before a SuperNode that does not answer is asked again."""


def main(address: str) -> None:
    """Serves the SuperNode whose Runtime API is at ``address``, for ever."""
    takers = _client(address, name="SuperExec")
    while True:
        try:
            taken = takers.AcquireTask(AcquireTaskRequest(supported_task_types=["flwr-clientapp"]))
        except Exception as error:
            # The SuperNode is starting, or starting again.
            print(f"no task: {type(error).__name__}: {error}", flush=True)
            time.sleep(AGAIN_SECONDS)
            takers = _client(address, name="SuperExec")
            continue
        if taken.HasField("task") and taken.token:
            _do(address, taken.token)
        else:
            time.sleep(LOOK_SECONDS)


def _client(address: str, *extra: Any, name: str) -> Any:
    return RuntimeHttpClient.from_server_address(
        server_address=address,
        insecure=True,
        root_certificates=None,
        interceptors=[RuntimeVersionHttpInterceptor(component_name=name), *extra],
        retry_invoker=make_simple_http_retry_invoker(),
    )


def _do(address: str, token: str) -> None:
    """One message and its answer."""
    client = _client(address, RuntimeTokenHttpInterceptor(token), name="flwr-clientapp")
    heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(client))
    heartbeat.start()
    status, details, context = SubStatus.FAILED, "", None
    try:
        message, context, _, _ = pull_task_input(client)
        try:
            reply = app(message=message, context=context)
            status = SubStatus.COMPLETED
        except Exception as error:
            details = f"{type(error).__name__}: {error}"
            reply = Message(Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=details), reply_to=message)
        push_message(client, reply, context)
    except Exception as error:
        details = f"{type(error).__name__}: {error}"
        print(f"a task failed: {details}", flush=True)
    finally:
        push_task_output(client=client, context=context, sub_status=status, details=details)
        heartbeat.stop()
        client.close()


if __name__ == "__main__":
    main(sys.argv[1])
