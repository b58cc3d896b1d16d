"""The contract with plugins: events, answers, the table of hooks, and who calls them how."""
