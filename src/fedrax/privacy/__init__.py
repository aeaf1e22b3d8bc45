"""What a message reveals, and what bounds it: clipping, noise, their account, and a sum that hides its terms."""
