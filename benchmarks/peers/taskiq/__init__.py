"""taskiq with its Redis Streams broker."""
