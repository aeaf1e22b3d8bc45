"""A federation whose agents live elsewhere, whatever carries its letters.

The server's half of the round (:mod:`.server`) and an agent's (:mod:`.part`) are those of the simulation; between them
travel letters of named scalars and one flat array (:mod:`.letters`). An agent lives in a process of its own on its node
(:mod:`.resident`); the server trusts nothing that comes back (:mod:`.checks`).
"""
