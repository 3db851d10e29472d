"""What has not been trained yet: optima of budgets, and losses of stated sizes and tokens."""
