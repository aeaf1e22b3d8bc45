"""Ways to learn together: the verbs of a round."""
