"""What Byzantine agents do: to their environments, to their messages, or by silence."""
