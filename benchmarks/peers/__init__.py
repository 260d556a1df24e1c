"""The peers: each driven as its own documentation shows, in the environment `.venv-bench`.

Where a peer offers a cheaper call than its own agent loop uses, the cheaper one is measured
and the note of its line says so. A peer that cannot be imported is an error of the run.
"""
