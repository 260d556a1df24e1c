"""The doors for the network: live sessions over WebSocket, the HTTP API, phone calls.

Needs the extra ``server``: pip install 'tertulia[server]'.
"""
