"""Events of types that this process has no class for."""

from __future__ import annotations

from tertulia.client.unknown import UnknownEvent, unknown
from tertulia.wire.events import LiveEvent, event_types


def test_it_has_its_real_type_what_all_events_have_and_the_rest_as_fields() -> None:
    event = unknown(
        b'{"type": "shop.card", "id": "e1", "timestamp": "t", "session_id": "s", "seq": 4,'
        b' "direction": "out", "metadata": {"a": 1}, "title": "Tea", "price": {"eur": 3}}'
    )
    assert isinstance(event, LiveEvent)
    assert (event.type, event.id, event.timestamp, event.session_id) == (
        "shop.card",
        "e1",
        "t",
        "s",
    )
    assert (event.seq, event.direction, event.metadata) == (4, "out", {"a": 1})
    assert event.fields == {"title": "Tea", "price": {"eur": 3}}


def test_what_all_events_have_is_none_where_it_is_not_what_it_should_be() -> None:
    event = unknown('{"type": "x", "id": 5, "seq": true, "metadata": [], "session_id": null}')
    assert (event.id, event.seq, event.metadata, event.session_id) == (None,) * 4
    assert (event.timestamp, event.fields) == (None, {})


def test_its_class_is_none_that_a_server_in_this_process_would_take() -> None:
    assert UnknownEvent not in event_types().values()
