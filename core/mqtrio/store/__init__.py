"""What survives: the Store protocol, changes, the journal that commits them, the memory store."""
