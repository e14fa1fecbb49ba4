"""What must hold whatever is killed, frozen, flushed or restarted, under load."""
