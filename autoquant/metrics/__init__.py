"""How a candidate is measured: device, memory, latency, and images against the reference."""
