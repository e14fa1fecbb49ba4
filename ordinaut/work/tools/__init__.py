"""What a pipeline step can call, and how it is called."""
