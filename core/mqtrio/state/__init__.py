"""What sessions, subscriptions and messages are: pure values, time is an argument."""
