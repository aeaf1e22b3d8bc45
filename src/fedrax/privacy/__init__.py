"""What bounds how much a message tells: clipping, noise, their accounting, and sums that show nobody's part."""
