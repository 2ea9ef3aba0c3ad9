"""A job in the store: manifest, layout, output form, input records, quarantine."""
