"""A sum of agents' vectors of which the server sees nothing but the sum (Bonawitz et al., 2017).

Vectors become integers (:mod:`.quantise`), which agents hide under masks that cancel in the sum (:mod:`.masks`): one
for every pair of agents, from keys that both agree on (:mod:`.keys`), and one of each agent's own. What makes them is
shared among all (:mod:`.shamir`), so that the sum of those who stay can be had when others drop out. An agent's half of
the four stages is :mod:`.agent`, the server's :mod:`.server`; neither knows what carries their messages (:mod:`.wire`).
"""
