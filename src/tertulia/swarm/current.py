"""The client session that a turn belongs to, for the code that the turn calls."""

from __future__ import annotations

from tertulia.errors import UsageError
from tertulia.swarm.client import ClientSession
from tertulia.swarm.oversight import inside
from tertulia.turns import own_turn


def current_client() -> ClientSession:
    """The `ClientSession` whose turn the calling code is a part of: a tool, or an output policy.

    Raises UsageError outside of a turn of a swarm, and when that turn has ended.
    """
    own = inside.get()
    if own is None or own_turn(own.desk.conversation) is None:
        raise UsageError(
            "this code is not a part of a turn of a swarm; get the client by its id: "
            "runtime.client_session(client_id, swarm)"
        )
    return own.desk.client
