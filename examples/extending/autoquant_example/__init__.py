"""What autoquant does not bring itself: a backend, a metric and a target."""
