"""What a task's own code rests on."""
