"""The models, usable from a notebook: they know nothing of queues and stores."""
