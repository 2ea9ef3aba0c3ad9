"""Jobs on a fleet that lives as long as they do."""
