"""``producer submit --local``: a job with a fleet of its own on this machine."""
