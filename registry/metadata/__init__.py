"""What the registry knows: the SQL side."""
