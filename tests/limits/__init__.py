"""What happens at every limit, seen from the wire."""
