"""The door for Redis Streams: what anybody adds to a stream becomes the runs of the tasks that listen."""
