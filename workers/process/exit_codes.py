"""The exit codes of a worker process and of its supervisor."""

#: No process ever gets ready.
EXIT_NEVER_READY = 1

#: Only the user can correct what is wrong.
EXIT_USER_ERROR = 2

#: Of a process: its device is lost. Of the supervisor: that happened too often.
EXIT_DEVICE_LOST = 70

#: Of a process: PyTorch cannot use the GPU that it was given.
EXIT_DEVICE_UNUSABLE = 72
