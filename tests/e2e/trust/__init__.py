"""Who may do what: each promise of the admission policies tried by those who would break it."""
