"""Numbers over stored verdicts."""
