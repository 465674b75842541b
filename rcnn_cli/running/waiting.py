"""`rcnn wait`: waits until caches are complete, whichever process makes them. Only reads files."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.running.runner import duration, look
from rcnn_cli.running.status import state_of

POLL_SECONDS = 2.0
REPORT_SECONDS = 60.0


def wait_for(
    graph: Graph, nodes: Sequence[Node], timeout: float | None, say: Callable[[str], None], poll: float = POLL_SECONDS
) -> bool:
    """Whether the nodes' caches become complete within `timeout` seconds (None: no limit).

    Says what it is waiting for at the start and, at most once a minute, when that has changed; says how it ended.
    """
    started = time.monotonic()
    reported, reported_at = "", 0.0
    while True:
        missing = [node for node in nodes if not is_complete(graph, node)]
        waited = time.monotonic() - started
        if not missing:
            say(f"{', '.join(node.name for node in nodes)}: complete")
            return True
        late = timeout is not None and waited >= timeout
        if late or not reported or waited - reported_at >= REPORT_SECONDS:
            text = "; ".join(f"{node.name}, {state_of(graph, node).detail}" for node in missing)
            if late:
                say(f"not complete after {duration(waited)}: {text}")
                return False
            if text != reported:
                say(f"waiting for {text}")
            reported, reported_at = text, waited
        time.sleep(poll if timeout is None else max(0.0, min(poll, timeout - waited)))


def is_complete(graph: Graph, node: Node) -> bool:
    """Whether the node's cache is complete. Changes nothing."""
    return look(graph, node).complete
