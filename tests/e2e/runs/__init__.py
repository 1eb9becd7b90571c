"""What Runkeys promises for a run, shown on a real cluster."""
