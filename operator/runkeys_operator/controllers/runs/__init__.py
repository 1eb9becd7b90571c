"""The controller of WorkflowRuns: observe, plan, execute, write status."""
