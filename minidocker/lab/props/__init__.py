"""What single lessons and exercises have at hand: objects made small enough to be looked at, and wire taps."""
