"""The chart of ``helm/virnucpro-fleet``, rendered by real Helm; ``make chart`` runs all of it."""
