"""A federation whose agents are in other processes, whatever the transport between them.

The server's half of the round (:mod:`.server`) and an agent's (:mod:`.agent_runtime`) run the functions of the
simulation. Between them travel envelopes of named scalars and one flat array (:mod:`.envelopes`), over a
:mod:`.transport`. On each node one process serves the agent (:mod:`.agent_service`); the server checks every
answer before it uses any of it (:mod:`.checks`).
"""
