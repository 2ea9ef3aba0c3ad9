"""The device and the process: memory, deadlines, traces."""
