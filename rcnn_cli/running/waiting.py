"""`rcnn wait`: until caches are complete, whoever makes them. It reads files and holds nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.running.runner import duration, look
from rcnn_cli.running.status import state_of

POLL_SECONDS = 2.0
SAY_SECONDS = 60.0


def wait_for(
    graph: Graph, nodes: Sequence[Node], timeout: float | None, say: Callable[[str], None], poll: float = POLL_SECONDS
) -> bool:
    """Whether the nodes' caches are complete, at once or within `timeout` seconds (None: however long it takes).

    Says what it waits for at the beginning, once a minute where something has changed, and at the end.
    """
    started = time.monotonic()
    told, said = "", 0.0
    while True:
        missing = [node for node in nodes if not is_complete(graph, node)]
        waited = time.monotonic() - started
        if not missing:
            say(f"{', '.join(node.name for node in nodes)}: complete")
            return True
        late = timeout is not None and waited >= timeout
        if late or not told or waited - said >= SAY_SECONDS:
            text = "; ".join(f"{node.name}, {state_of(graph, node).detail}" for node in missing)
            if late:
                say(f"not complete after {duration(waited)}: {text}")
                return False
            if text != told:
                say(f"waiting for {text}")
            told, said = text, waited
        time.sleep(poll if timeout is None else max(0.0, min(poll, timeout - waited)))


def is_complete(graph: Graph, node: Node) -> bool:
    """Whether the cache is complete; nothing is set aside."""
    return look(graph, node).complete
