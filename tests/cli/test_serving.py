"""`tertulia serve` where nothing can be served."""

from __future__ import annotations

import socket

from tests.cli.program import Program

APP = """
from tertulia import Agent, AgentApp

app = AgentApp(agent=Agent("clerk", model="offline"))
"""


def test_a_port_that_is_taken_is_told_in_one_line_with_what_to_do(program: Program) -> None:
    (program.folder / "app.py").write_text(APP)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = program.refused("serve", "app.py", "--port", port)
    assert f"127.0.0.1 port {port}" in said
    assert "--port (0 is any that is free)" in said


def test_an_address_that_is_not_of_this_machine_is_told_so_too(program: Program) -> None:
    (program.folder / "app.py").write_text(APP)
    said = program.refused("serve", "app.py", "--host", "192.0.2.1", TERTULIA_TOKEN="a-long-token")
    assert "192.0.2.1 port 8080" in said
