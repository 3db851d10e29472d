"""What a step does to the weights: groups and their rates, the optimisers, the schedule."""
